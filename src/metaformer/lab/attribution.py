"""What speaks for an answer, by captum: Grad-CAM, and what is lost where a window is covered."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from metaformer.core.model import MetaFormer
from metaformer.lab.cam import LEAST, as_map
from metaformer.weights.peers import Peer

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


class Through(nn.Module):
    """The model, with the map that Grad-CAM reads, (B, C, h, w), led through `place`; the answers stay the same.

    Of a MetaFormer it is that of the deepest stage with at least 4 places on its shorter side, else of the first; of timm's
    models the last before the head, of transformers what enters the last block, which may reach the head by its class token
    alone when it leaves it.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.place = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        if isinstance(self.model, MetaFormer):
            return self._through_stages(self.model, images)
        inner: Any = self.model.model if isinstance(self.model, Peer) else self.model
        if not hasattr(inner, "forward_features") or not hasattr(inner, "forward_head"):
            raise ValueError(f"{type(inner).__name__} has no forward_features and forward_head, so no map to explain it by")
        if not hasattr(inner, "blocks"):
            return inner.forward_head(self._placed(inner.forward_features(images)))
        hook = inner.blocks[-1].register_forward_pre_hook(lambda _, inputs: (self._placed(inputs[0]), *inputs[1:]))
        try:
            return inner.forward_head(inner.forward_features(images))
        finally:
            hook.remove()

    def _through_stages(self, model: MetaFormer, images: Tensor) -> Tensor:
        with torch.no_grad():
            sides = [min(one.shape[2:]) for one in model.features(images[:1])]
        read = max((place for place, side in enumerate(sides) if side >= LEAST), default=0)
        hook = model.stages[read].register_forward_hook(lambda _, inputs, out: self.place(out))
        try:
            return model(images)
        finally:
            hook.remove()

    def _placed(self, features: Tensor) -> Tensor:
        """Leads a map through `place` and lays it out again as it came: channels first, channels last, or tokens."""
        found = self.place(as_map(self.model, features))
        if features.ndim == 4:
            return found if found.shape == features.shape else found.permute(0, 2, 3, 1)
        grid = found.flatten(2).transpose(1, 2)
        return torch.cat([features[:, : features.shape[1] - grid.shape[1]], grid], 1)


@torch.inference_mode(False)
@torch.enable_grad()
def grad_cam(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """Grad-CAM (Selvaraju et al. 2017) of images (B, C, H, W) for their `classes` (B,): (B, h, w) from 0 to 1, as
    `lab.cam.class_activation` gives it. The model is in evaluation mode. Raises ValueError for one that has no map."""
    through = Through(model)
    images = images.detach().clone().requires_grad_()
    found = captum().LayerGradCam(through, through.place).attribute(images, target=classes.clone(), relu_attributions=True)
    heat = found.detach().squeeze(1)
    if min(heat.shape[1:]) < 2:
        raise ValueError("the images are so small that the model's last map is one place wide, which does not tell where")
    return heat / heat.amax((1, 2), keepdim=True).clamp(min=torch.finfo(heat.dtype).tiny)


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
