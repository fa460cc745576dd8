"""Images made worse on the fly, as in ImageNet-C and CIFAR-10-C: fifteen corruptions at five severities, the same each time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metaformer.data import corruptions as made
from metaformer.data.batch import number
from metaformer.data.dataset import LUMA

SEVERITIES = (1, 2, 3, 4, 5)
SMALL = 64
"""Up to so many pixels of a side the parameters are CIFAR-10-C's, above it ImageNet-C's; both are in pixels, as published."""


@dataclass(frozen=True)
class Corruption:
    """What makes images worse: the parameters of its severities for images of 224 pixels, and for small ones of 32."""

    kind: str
    """noise, blur, weather or digital."""
    apply: Callable[..., made.Picture]
    large: tuple[tuple[Any, ...], ...]
    small: tuple[tuple[Any, ...], ...]

    def parameters(self, side: int, severity: int) -> tuple[Any, ...]:
        """Of images of that side."""
        return (self.small if side <= SMALL else self.large)[severity - 1]


def _each(*values: float) -> tuple[tuple[float], ...]:
    return tuple((value,) for value in values)


# Parameters of Hendrycks and Dietterich's programs, make_cifar_c.py and imagenet_c/corruptions.py (Apache-2.0).
# fmt: off
CORRUPTIONS = {
    "gaussian_noise": Corruption("noise", made.gaussian_noise, _each(.08, .12, .18, .26, .38), _each(.04, .06, .08, .09, .10)),
    "shot_noise": Corruption("noise", made.shot_noise, _each(60, 25, 12, 5, 3), _each(500, 250, 100, 75, 50)),
    "impulse_noise": Corruption("noise", made.impulse_noise, _each(.03, .06, .09, .17, .27), _each(.01, .02, .03, .05, .07)),
    "defocus_blur": Corruption("blur", made.defocus_blur,
        ((3, .1), (4, .5), (6, .5), (8, .5), (10, .5)), ((.3, .4), (.4, .5), (.5, .6), (1, .2), (1.5, .1))),
    "glass_blur": Corruption("blur", made.glass_blur,
        ((.7, 1, 2), (.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        ((.05, 1, 1), (.25, 1, 1), (.4, 1, 1), (.25, 1, 2), (.4, 1, 2))),
    "motion_blur": Corruption("blur", made.motion_blur,
        ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)), ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))),
    "zoom_blur": Corruption("blur", made.zoom_blur,
        ((1.11, .01), (1.16, .01), (1.21, .02), (1.26, .02), (1.31, .03)),
        ((1.06, .01), (1.11, .01), (1.16, .01), (1.21, .01), (1.26, .01))),
    "snow": Corruption("weather", made.snow,
        ((.1, .3, 3, .5, 10, 4, .8), (.2, .3, 2, .5, 12, 4, .7), (.55, .3, 4, .9, 12, 8, .7),
         (.55, .3, 4.5, .85, 12, 8, .65), (.55, .3, 2.5, .85, 12, 12, .55)),
        ((.1, .2, 1, .6, 8, 3, .95), (.1, .2, 1, .5, 10, 4, .9), (.15, .3, 1.75, .55, 10, 4, .9),
         (.25, .3, 2.25, .6, 12, 6, .85), (.3, .3, 1.25, .65, 14, 12, .8))),
    "frost": Corruption("weather", made.frost,
        ((1, .4), (.8, .6), (.7, .7), (.65, .7), (.6, .75)), ((1, .2), (1, .3), (.9, .4), (.85, .4), (.75, .45))),
    "fog": Corruption("weather", made.fog,
        ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)), ((.2, 3), (.5, 3), (.75, 2.5), (1, 2), (1.5, 1.75))),
    "brightness": Corruption("weather", made.brightness, _each(.1, .2, .3, .4, .5), _each(.05, .1, .15, .2, .3)),
    "contrast": Corruption("digital", made.contrast, _each(.4, .3, .2, .1, .05), _each(.75, .5, .4, .3, .15)),
    "elastic_transform": Corruption("digital", made.elastic_transform,
        ((488, 170.8, 24.4), (488, 19.52, 48.8), (12.2, 2.44, 4.88), (17.08, 2.44, 4.88), (29.28, 2.44, 4.88)),
        ((0, 0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6), (3.2, .96, .96))),
    "pixelate": Corruption("digital", made.pixelate, _each(.6, .5, .4, .3, .25), _each(.95, .9, .85, .75, .65)),
    "jpeg_compression": Corruption("digital", made.jpeg_compression, _each(25, 18, 15, 10, 7), _each(80, 65, 58, 50, 40)),
}
# fmt: on


def corrupt(pixels: Tensor, name: str, severity: int, samples: Sequence[int], seed: int = 0) -> Tensor:
    """(B, C, H, W) of bytes → the same made worse; what is drawn follows from the seed and each image's number alone.

    Grey images are corrupted in colour and then turned grey.
    """
    what = CORRUPTIONS[name]
    parameters = what.parameters(min(pixels.shape[2:]), severity)
    done = []
    for image, sample in zip(pixels, samples, strict=True):
        x = image.expand(3, -1, -1).permute(1, 2, 0).numpy() / 255.0
        draw = np.random.default_rng(number(seed, "corruption", name, severity, sample))
        y = np.clip(what.apply(x, draw, *parameters), 0, 1) * 255 + 1e-9  # cut off, as published; 7 / 255 · 255 is 7
        done.append((y if len(image) == 3 else (y @ LUMA)[..., None]).astype(np.uint8))
    return torch.from_numpy(np.stack(done)).permute(0, 3, 1, 2).contiguous()


def read_corruptions(text: str) -> tuple[str, ...]:
    """Names with commas between, kinds of them, or all. Raises ValueError for anything else."""
    if text == "all":
        return tuple(CORRUPTIONS)
    kinds = {what.kind for what in CORRUPTIONS.values()}
    found: list[str] = []
    for word in text.replace(" ", "").split(","):
        if word not in CORRUPTIONS and word not in kinds:
            close = get_close_matches(word, [*CORRUPTIONS, *kinds], n=1, cutoff=0.6)
            hint = f", did you mean {close[0]}?" if close else f"; allowed: all, {', '.join([*sorted(kinds), *CORRUPTIONS])}"
            raise ValueError(f"no corruption {word!r}{hint}")
        found += [name for name, what in CORRUPTIONS.items() if word in (name, what.kind)]
    return tuple(dict.fromkeys(found))
