"""The demo's sample images."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from metaformer.data.sources import open_data
from metaformer.lab.demo import sample_digits


def test_samples_are_held_out_digits_named_by_what_they_show(tmp_path: Path) -> None:
    paths = sample_digits(tmp_path / "deep" / "samples", count=7)
    val = open_data("digits").val
    labels = val.labels[:7].tolist()
    assert [path.name for path in paths] == [f"{i:02d}-is-{label}.png" for i, label in enumerate(labels)]
    assert sorted((tmp_path / "deep" / "samples").iterdir()) == paths
    for i, path in enumerate(paths):
        with Image.open(path) as image:
            assert torch.equal(torch.from_numpy(np.array(image)), val.image(i)[0])
