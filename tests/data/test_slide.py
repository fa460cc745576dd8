"""Sliding lines: what Pillow's affine transform gives, to one level in few of the pixels."""

import random
from typing import Any

import numpy as np
import pytest
from PIL import Image
from timm.data import auto_augment

from metaformer.data.slide import SLIDES

FILTERS = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
TIMMS = {
    "ShearX": auto_augment.shear_x,
    "ShearY": auto_augment.shear_y,
    "TranslateXRel": auto_augment.translate_x_rel,
    "TranslateYRel": auto_augment.translate_y_rel,
}


@pytest.mark.parametrize("name", SLIDES)
@pytest.mark.parametrize("resample", [*FILTERS, FILTERS])
def test_slides_as_timm_does(name: str, resample: Any) -> None:
    image = Image.fromarray(np.random.RandomState(0).randint(0, 256, (37, 53, 3), np.uint8))
    for amount in (-2.0, -0.41, -0.3, -0.01, 0.0, 0.003, 0.17, 0.45, 1.1):
        random.seed(3)
        theirs = TIMMS[name](image, amount, fillcolor=(124, 116, 104), resample=resample)
        after = random.random()
        random.seed(3)
        ours = SLIDES[name](image, amount, fillcolor=(124, 116, 104), resample=resample)
        assert random.random() == after  # as many draws
        assert (ours.mode, ours.size) == ("RGB", image.size)
        difference = np.abs(np.asarray(ours).astype(int) - np.asarray(theirs))
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.03
