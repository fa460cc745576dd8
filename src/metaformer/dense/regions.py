"""Semantic FPN and UPerNet, arXiv 1901.02446 and 1807.10221: a class for every pixel, by convolutions on a pyramid."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metaformer.core.pyramid import FPN, conv_norm_act
from metaformer.dense.config import VOID, DenseConfig
from metaformer.dense.model import Dense, Images, Size

STRIDES = (4, 8, 16, 32)
POOLS = (1, 2, 3, 6)
"""Sides of the grids to which UPerNet pools the last map."""
AT_ONCE = 16
"""Classes whose logits are brought to an image's own size together."""


@dataclass(frozen=True, eq=False)
class RegionLogits:
    """Logits (B, classes, H / 4, W / 4) of a batch, and the height and width of each image in it."""

    logits: Tensor
    sizes: list[Size]

    def whole(self, place: int, size: Size, classes: slice = slice(None)) -> Tensor:
        """(classes, *size): those of an image, or of some classes, cut to it and brought to that height and width."""
        height, width = self.sizes[place]
        logits = self.logits[place, None, classes].float()
        stride = STRIDES[0]
        fed = resized(logits, (logits.shape[2] * stride, logits.shape[3] * stride))[..., :height, :width]
        return (fed if (height, width) == size else resized(fed, size))[0]

    def decode(self, sizes: Sequence[Size]) -> list[Tensor]:
        """A region map (H, W) of uint8 for each image of height and width `sizes`."""
        return [self._called(place, size).to(torch.uint8).cpu() for place, size in enumerate(sizes)]

    def judged(self, place: int, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Of an image with a map (H, W): the cross entropy of its pixels, added up, void ones left out; the class of each."""
        size, labels = (truth.shape[0], truth.shape[1]), truth.long()
        if self.logits.shape[1] <= AT_ONCE:
            logits = self.whole(place, size)
            loss = F.cross_entropy(logits[None], labels[None], ignore_index=VOID, reduction="sum")
            return loss, logits.argmax(0)
        best = total = own = torch.full(size, -torch.inf, device=self.logits.device)
        called = torch.zeros_like(labels)
        for first, logits in self._in_turn(place, size):
            best, called = _better(best, called, first, logits)
            total = torch.logaddexp(total, logits.logsumexp(0))
            inside = (labels >= first) & (labels < first + len(logits))
            read = logits.gather(0, (labels - first).clamp(0, len(logits) - 1)[None])[0]
            own = torch.where(inside, read, own)
        return torch.where(labels != VOID, total - own, 0).sum(), called

    def _called(self, place: int, size: Size) -> Tensor:
        """The class of each pixel of an image."""
        parts = self._in_turn(place, size)
        best, called = next(parts)[1].max(0)
        for first, logits in parts:
            best, called = _better(best, called, first, logits)
        return called

    def _in_turn(self, place: int, size: Size) -> Iterator[tuple[int, Tensor]]:
        """The logits of an image's pixels, a few classes at a time, and which is the first: all at once take gigabytes."""
        for first in range(0, self.logits.shape[1], AT_ONCE):
            yield first, self.whole(place, size, slice(first, first + AT_ONCE))


def _better(best: Tensor, called: Tensor, first: int, logits: Tensor) -> tuple[Tensor, Tensor]:
    """The largest logits so far and their classes, when some classes more are known, from number `first` on."""
    more, which = logits.max(0)
    return torch.maximum(best, more), torch.where(more > best, which + first, called)


class Segmenter(Dense):
    """`model(images, truths)` gives the loss, summed over pixels; `model(images)` logits for the batch.

    A truth is a region map (H, W) of an image, or (B, H, W) of all: classes from 0, and 255 where there is none.
    """

    def __init__(self, config: DenseConfig) -> None:
        super().__init__(config, STRIDES)
        self.dropout = nn.Dropout2d(config.head_dropout)
        self.classify = nn.Conv2d(config.head_channels, config.num_classes, 1)
        nn.init.normal_(self.classify.weight, std=0.01)
        assert self.classify.bias is not None
        nn.init.zeros_(self.classify.bias)

    def read(self, maps: list[Tensor]) -> Tensor:
        """The backbone's maps → (B, head_channels, H / 4, W / 4)."""
        raise NotImplementedError

    def predict(self, x: Tensor) -> Tensor:
        """A batch → logits (B, classes, H / 4, W / 4)."""
        return self.classify(self.dropout(self.read(self.backbone(x))))

    def forward(self, images: Images, truths: Sequence[Tensor] | Tensor | None = None) -> dict[str, Tensor] | RegionLogits:
        x, sizes = self.stack(images)
        logits = self.predict(x)
        if truths is None:
            return RegionLogits(logits, sizes)
        height, width = x.shape[2:]
        wanted = torch.stack(
            [F.pad(truth.long(), (0, width - truth.shape[1], 0, height - truth.shape[0]), value=VOID) for truth in truths]
        )
        whole = resized(logits.float(), (height, width))
        return {"region": F.cross_entropy(whole, wanted.to(x.device), ignore_index=VOID, reduction="sum")}


class Doubling(nn.Module):
    """(B, C, H, W) → (B, C, 2H, 2W), bilinear."""

    def forward(self, x: Tensor) -> Tensor:
        return resized(x, (x.shape[2] * 2, x.shape[3] * 2))


class SemanticFPN(Segmenter):
    """Each level goes up to stride 4 by convolutions with a doubling behind each; the sum of all is classified."""

    def __init__(self, config: DenseConfig) -> None:
        super().__init__(config)
        self.fpn = FPN(self.backbone.dims, config.channels)
        out = config.head_channels
        self.levels = nn.ModuleList()
        for doublings in range(len(STRIDES)):
            parts: list[nn.Module] = [conv_norm_act(config.channels, out, 3, config.head_norm)]
            for _ in range(doublings - 1):
                parts += [Doubling(), conv_norm_act(out, out, 3, config.head_norm)]
            self.levels.append(nn.Sequential(*parts, *([Doubling()] if doublings else [])))

    def read(self, maps: list[Tensor]) -> Tensor:
        total, *others = (level(x) for level, x in zip(self.levels, self.fpn(maps), strict=True))
        for x in others:
            total = total + (x if x.shape == total.shape else resized(x, total.shape[2:]))
        return total


class UPerNet(Segmenter):
    """The last map, pooled to four grids, heads a pyramid of norms and ReLU; its levels are read side by side."""

    def __init__(self, config: DenseConfig) -> None:
        super().__init__(config)
        *finer, last = self.backbone.dims
        out, norm = config.head_channels, config.head_norm
        self.pooled = nn.ModuleList(conv_norm_act(last, out, 1, norm) for _ in POOLS)
        self.top = conv_norm_act(last + len(POOLS) * out, out, 3, norm)
        self.lateral = nn.ModuleList(conv_norm_act(dim, out, 1, norm) for dim in finer)
        self.smooth = nn.ModuleList(conv_norm_act(out, out, 3, norm) for _ in finer)
        self.fuse = conv_norm_act(len(STRIDES) * out, out, 3, norm)

    def read(self, maps: list[Tensor]) -> Tensor:
        *finer, last = maps
        grids = [conv(F.adaptive_avg_pool2d(last, side)) for side, conv in zip(POOLS, self.pooled, strict=True)]
        x = self.top(torch.cat([last, *(resized(grid, last.shape[2:]) for grid in grids)], 1))
        sums = [x]
        for lateral, one in zip(reversed(self.lateral), reversed(finer), strict=True):
            one = lateral(one)
            x = one + resized(x, one.shape[2:])
            sums.insert(0, x)
        levels = [smooth(x) for smooth, x in zip(self.smooth, sums[:-1], strict=True)]
        size = levels[0].shape[2:]
        return self.fuse(torch.cat([levels[0], *(resized(x, size) for x in (*levels[1:], sums[-1]))], 1))


def resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """(B, C, H, W) → (B, C, *size), bilinear, the borders of both the same."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)
