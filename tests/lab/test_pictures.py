"""Pictures that lie in the page: what they show, and how large they are."""

import base64
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from metaformer.data.splits import Encoded, Images
from metaformer.lab.pictures import matrix, overlay, pictures, thumbnail


def opened(address: str) -> Image.Image:
    head, _, data = address.partition(",")
    image = Image.open(BytesIO(base64.b64decode(data)))
    assert head == f"data:image/{(image.format or '').lower()};base64"
    return image


def test_small_pictures_keep_every_pixel() -> None:
    for channels in (1, 3):
        pixels = torch.randint(256, (channels, 9, 14), dtype=torch.uint8)
        shown = np.asarray(opened(thumbnail(pixels)))
        assert np.array_equal(shown.reshape(9, 14, channels), pixels.permute(1, 2, 0).numpy())


def test_photographs_become_small_jpegs() -> None:
    address = thumbnail(torch.randint(256, (3, 900, 1500), dtype=torch.uint8))
    assert opened(address).size == (192, 115)
    assert opened(address).format == "JPEG"
    assert len(address) < 40_000


def test_a_map_is_clear_where_it_is_zero_and_red_where_it_is_one() -> None:
    grey = torch.full((1, 24, 24), 100, dtype=torch.uint8)
    heat = torch.zeros(4, 4)
    heat[:2, :2] = 1
    shown = np.asarray(opened(overlay(grey, heat)).convert("RGB")).astype(int)
    side = len(shown)
    assert abs(shown[-side // 8, -side // 8] - 100).max() <= 5
    red, green, blue = shown[side // 8, side // 8]
    assert red > 150
    assert red > green + 60 > blue
    untouched = np.asarray(opened(overlay(grey, torch.zeros(2, 2))).convert("RGB")).astype(int)
    assert abs(untouched - 100).max() <= 3


def test_matrix_is_blue_on_the_diagonal_and_red_beside_it() -> None:
    shares = torch.zeros(40, 40)
    shares[3, 3], shares[7, 20] = 1.0, 0.25
    shown = np.asarray(opened(matrix(shares)))
    assert shown.shape == (40, 40, 4)
    assert tuple(shown[3, 3]) == (37, 99, 235, 255)
    assert tuple(shown[7, 20, :3]) == (220, 38, 38)
    assert 0 < shown[7, 20, 3] < 255
    assert (shown[..., 3] > 0).sum() == 2


def test_a_large_matrix_keeps_its_lone_mistakes() -> None:
    shares = torch.zeros(1001, 1001)
    shares[0, 999] = 1.0
    shown = np.asarray(opened(matrix(shares)))
    assert shown.shape == (201, 201, 4)
    assert shown[0, 199, 3] == 255


def test_pictures_of_any_split(tmp_path: Path) -> None:
    pixels = torch.randint(256, (4, 1, 5, 6), dtype=torch.uint8)
    assert torch.equal(torch.stack(pictures(Images(pixels, torch.arange(4)), [3, 1])), pixels[[3, 1]])
    files = []
    for i, size in enumerate([(30, 20), (8, 40)]):
        files.append(tmp_path / f"{i}.png")
        Image.new("RGB", size, (10, 20, 30)).save(files[-1])
    found = pictures(Encoded(files, torch.tensor([0, 1]), 3), [0, 1])
    assert [tuple(one.shape) for one in found] == [(3, 20, 30), (3, 40, 8)]
