"""Where a model looked: class-activation maps, by their formula; `lab.attribution` has them by captum."""

import torch
from torch import Tensor, nn

from metaformer.lab.feature_maps import Through


@torch.inference_mode(False)
@torch.enable_grad()
def class_activation(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """Grad-CAM: which places of each image (B, C, H, W) speak for its class of `classes` (B,); (B, h, w) from 0 to 1.

    ReLU(Σ over channels of weight · map), where a weight is the mean gradient of the class's logit over its channel
    (Selvaraju et al. 2017, eq. 1 and 2), divided by its maximum; all 0 where no place speaks for the class. The map is that
    of `lab.feature_maps.Through`. The model is left as it was. Raises ValueError for a model that has no map, or one of a
    single place.
    """
    training, led = model.training, list[Tensor]()
    through = Through(model.eval())
    through.place.register_forward_hook(lambda _, inputs, out: led.append(out))
    try:
        logits = through(images.detach().clone().requires_grad_())
    finally:
        model.train(training)
    own = logits.gather(1, classes.clone().to(logits.device).unsqueeze(1)).sum()
    (slopes,) = torch.autograd.grad(own, led)
    return to_one((slopes.mean((2, 3), keepdim=True) * led[0].detach()).sum(1).relu())


def to_one(maps: Tensor) -> Tensor:
    """(B, h, w), each divided by its maximum; all 0 where that is 0."""
    return maps / maps.amax((1, 2), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
