"""Data: channels changed, statistics with them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.photos import photo

from metaformer.data.dataset import in_memory, with_channels
from metaformer.data.splits import Encoded, Images

COLOUR = torch.from_numpy(np.random.RandomState(0).randint(0, 256, (6, 3, 5, 4), np.uint8))
LABELS = torch.tensor([0, 1, 0, 1, 0, 1])


def test_colour_as_grey() -> None:
    data = in_memory(Images(COLOUR, LABELS), Images(COLOUR[:2], LABELS[:2]), ("a", "b"), image_size=28, mirrors=True)
    grey = with_channels(data, 1)
    assert grey.channels == 1
    assert isinstance(grey.train, Images)
    by_pillow = [np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L")) for image in COLOUR]
    assert (grey.train.pixels[:, 0].int() - torch.from_numpy(np.stack(by_pillow)).int()).abs().max() <= 1
    assert grey.mean == pytest.approx((float(grey.train.pixels.float().mean() / 255),), abs=0.01)
    assert with_channels(data, 3) is data


def test_grey_as_colour() -> None:
    images = Images(COLOUR[:, :1], LABELS)
    data = with_channels(in_memory(images, images, ("a", "b"), image_size=28, mirrors=True), 3)
    assert isinstance(data.val, Images)
    assert torch.equal(data.val.pixels, COLOUR[:, :1].repeat(1, 3, 1, 1))
    assert data.mean == (data.mean[0],) * 3
    assert len(data.std) == 3


def test_files_are_decoded_in_the_other_way(tmp_path: Path) -> None:
    split = Encoded([photo(tmp_path / "a.png")], torch.tensor([0]), 3)
    data = in_memory(Images(COLOUR, LABELS), Images(COLOUR, LABELS), ("a", "b"), image_size=28, mirrors=True)
    data = with_channels(replace(data, train=split, val=split), 1)
    assert data.train.image(0).shape == (1, 66, 70)
