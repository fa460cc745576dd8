"""The feature pyramid, and the convolution that heads of dense prediction are built from."""

from collections import OrderedDict
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from metaformer.core.layers import NoNorm, Norm


def conv_norm_act(dim: int, out: int, kernel: int, norm: Norm) -> nn.Sequential:
    """A convolution that keeps H and W, a norm, ReLU; the convolution has a bias where there is no norm."""
    conv = nn.Conv2d(dim, out, kernel, padding=kernel // 2, bias=isinstance(norm, NoNorm))
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    parts: OrderedDict[str, nn.Module] = OrderedDict(conv=conv, norm=norm(out), act=nn.ReLU(inplace=True))
    return nn.Sequential(parts)


class FPN(nn.Module):
    """Feature pyramid (arXiv 1612.03144) over maps of `dims` channels, finest first: as many maps of `out` channels, and more.

    A map goes through a 1×1 convolution, the coarser one is added to it, upsampled to the nearest place, and a 3×3
    convolution ends it. `extra` makes coarser maps at the end: "conv" two by convolutions of stride 2, the first from the last
    map that came in and without ReLU between them, as in the published RetinaNet; "pool" one by taking every second place.
    """

    def __init__(self, dims: Sequence[int], out: int, *, extra: str = "") -> None:
        super().__init__()
        assert extra in ("", "conv", "pool")
        self.lateral = nn.ModuleList(nn.Conv2d(dim, out, 1) for dim in dims)
        self.smooth = nn.ModuleList(nn.Conv2d(out, out, 3, padding=1) for _ in dims)
        coarser = (dims[-1], out) if extra == "conv" else ()
        self.extra = nn.ModuleList(nn.Conv2d(dim, out, 3, 2, 1) for dim in coarser)
        self.pool = extra == "pool"
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        last = maps[-1]
        x = self.lateral[-1](last)
        sums = [x]
        for lateral, finer in zip(reversed(self.lateral[:-1]), reversed(maps[:-1]), strict=True):
            finer = lateral(finer)
            x = finer + F.interpolate(x, size=finer.shape[2:], mode="nearest")
            sums.insert(0, x)
        levels = [smooth(x) for smooth, x in zip(self.smooth, sums, strict=True)]
        for conv in self.extra:
            last = conv(last)
            levels.append(last)
        if self.pool:
            levels.append(F.max_pool2d(levels[-1], 1, stride=2))
        return levels
