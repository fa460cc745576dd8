"""What speaks for an answer, by captum: Grad-CAM, and what is lost where a window is covered."""

from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor, nn

from metaformer.lab.cam import to_one
from metaformer.lab.feature_maps import Through

AT_ONCE = 32
"""Covered images that go through the model together."""


def captum() -> ModuleType:
    """Captum's methods. Raises ValueError where it is not installed."""
    try:
        import captum.attr
    except ImportError as error:
        raise ValueError(
            f"explain needs captum, which cannot be imported ({error}): pip install 'metaformer[explain]'"
        ) from error
    return captum.attr


@torch.inference_mode(False)
@torch.enable_grad()
def grad_cam(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """Grad-CAM (Selvaraju et al. 2017) of images (B, C, H, W) for their `classes` (B,): (B, h, w) from 0 to 1, as
    `lab.cam.class_activation` gives it. The model is in evaluation mode. Raises ValueError for one that has no map."""
    through = Through(model)
    images = images.detach().clone().requires_grad_()
    found = captum().LayerGradCam(through, through.place).attribute(images, target=classes.clone(), relu_attributions=True)
    return to_one(found.detach().squeeze(1))


@torch.no_grad()
def occlusion(probabilities: Callable[[Tensor], Tensor], images: Tensor, classes: Tensor, window: int) -> Tensor:
    """How much of the probability of its class of `classes` (B,) each image (B, C, H, W) loses where a window is covered
    with 0, the mean colour (Zeiler and Fergus 2014, section 4.2).

    `probabilities` maps images to (B, classes). The window moves by half of its side: (B, rows, columns) are the means over
    the windows that cover each half. Raises ValueError for a window that is larger than the images.
    """
    height, width = images.shape[2:]
    if not 1 <= window <= min(height, width):
        raise ValueError(f"window={window} is not between 1 and {min(height, width)}, the side of the images")
    stride = max(1, window // 2)
    lost = (
        captum()
        .Occlusion(probabilities)
        .attribute(
            images,
            sliding_window_shapes=(images.shape[1], window, window),
            strides=(images.shape[1], stride, stride),
            baselines=0.0,
            target=classes,
            perturbations_per_eval=max(1, AT_ONCE // len(images)),
        )
    )
    return lost[:, 0, ::stride, ::stride]
