"""What a predictor is given as an image: a path, a file's bytes, a PIL image, an array or a tensor. No torch is needed."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from metaformer.data.decode import decode_array
from metaformer.data.preprocess import Pixels

if TYPE_CHECKING:
    from torch import Tensor

    Picture = str | Path | bytes | Image.Image | NDArray[Any] | Tensor


def pixels_of(image: "Picture", channels: int) -> Pixels:
    """(H, W, channels) as uint8. Raises ValueError with a sentence for what is no image of so many channels."""
    if isinstance(image, str | Path | bytes | Image.Image):
        return decode_array(image, channels)
    if is_tensor(image):
        if image.ndim != 3 or len(image) != channels or str(image.dtype) != "torch.uint8" or not image.numel():
            shape = tuple(image.shape)
            raise ValueError(f"{image.dtype} {shape}: this model takes tensors ({channels}, H, W) of uint8, 0 to 255")
        return image.permute(1, 2, 0).cpu().numpy()
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"{kind}: an image is a path, bytes, a PIL image, or pixels as uint8, 0 to 255")
    pixels = image[..., None] if image.ndim == 2 else image
    if pixels.ndim != 3 or pixels.shape[2] != channels or not pixels.size:
        raise ValueError(f"{image.dtype} {image.shape}: this model takes arrays (H, W, {channels}) of uint8, 0 to 255")
    return pixels


def is_tensor(value: Any) -> "TypeGuard[Tensor]":
    """Whether this is a tensor, which it can only be where torch was imported."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)
