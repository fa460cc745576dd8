"""`DensePredictor`: a trained detector or segmenter asked about images of any size, whole, in tiles or in several ways."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from metaformer.core.device import choose_device, choose_precision
from metaformer.data.moves import fitted
from metaformer.dense.model import Dense
from metaformer.infer.engines import Options
from metaformer.infer.exported import is_exported
from metaformer.infer.given import pixels_of
from metaformer.infer.results import DensePrediction
from metaformer.infer.source import find_source
from metaformer.infer.tiles import find_in_tiles, score_in_tiles, tiles
from metaformer.infer.views import (
    Find,
    Score,
    find_at,
    find_in_views,
    fitted_within,
    score_at,
    score_in_views,
    shown_at,
    size_of,
)  # fmt: skip
from metaformer.tasks.found import Found, Size
from metaformer.weights.pretrained import read_dense

if TYPE_CHECKING:
    from metaformer.infer.dense_file import DenseFile
    from metaformer.infer.given import Picture

THRESHOLD = 0.5
"""The score from which on what was found is told, where nobody says another."""
SCALES = (0.75, 1.0, 1.25)
"""Of the sizes of tta=scales."""
WAYS = ("flip", "scales")
SHOWN = {"short": 512, "long": 2048}
"""How large the short side of an image is shown, and the long one at most, where a model does not say it."""


@dataclass(frozen=True)
class Asking:
    """How images are looked at."""

    threshold: float = THRESHOLD
    """Least score of what is told; of objects alone."""
    tile: int | None = None
    """Side in pixels of the tiles in which an image is looked at as large as it is; None for the whole image, resized."""
    overlap: int = 128
    """Pixels that tiles share at least."""
    tta: str = ""
    """flip, scales, or both with a comma: each image shown several times."""

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold={self.threshold} is not between 0 and 1")
        for word in self.ways:
            if word not in WAYS:
                raise ValueError(f"tta={word!r} is not one of {', '.join(WAYS)}, or both with a comma")
        if self.tile is not None:
            tiles((self.tile, self.tile), self.tile, self.overlap)  # which says what cannot be

    @property
    def ways(self) -> tuple[str, ...]:
        """The words in `tta`."""
        return tuple(self.tta.replace(" ", "").split(",")) if self.tta else ()

    @property
    def scales(self) -> tuple[float, ...]:
        return SCALES if "scales" in self.ways else (1.0,)

    @property
    def mirror(self) -> bool:
        return "flip" in self.ways


WHOLE = Asking()


class DensePredictor:
    """A trained detector or segmenter: `DensePredictor("runs/cells")(["a.png"])` gives a DensePrediction for each image.

    `source` is a run directory (its best weights), a folder that `save_pretrained` wrote, or a file that `export` wrote.
    `engine` is what runs a file: onnxruntime, openvino, torch, compiled, or auto, which is the one that it was written for;
    `threads` are those of a processor that it takes. Raises ValueError or OSError with a sentence.
    """

    def __init__(
        self,
        source: str | Path,
        engine: str = "auto",
        *,
        device: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
    ) -> None:
        self.source = source
        self.model: Dense | DenseFile
        """In torch; or the exported file, which is asked likewise."""
        self.within: Size | None = None
        """Height and width that an image is fitted into for a file, which takes images of one size."""
        if is_exported(source):
            file = _opened(Path(source), engine, Options(device, precision, threads))
            self.model, self.within, about = file, file.within, file.about
            self.device, self.precision = torch.device("cpu"), torch.float32  # of what goes in
        else:
            if engine not in ("auto", "torch") or threads is not None:
                raise ValueError(f"{source} is run by torch: leave engine and threads out, or export it and choose them there")
            self.device = choose_device(device)
            self.precision = choose_precision(precision, self.device)
            found = find_source(source)
            if not isinstance(found, Path):
                raise ValueError(f"{source} is a classifier: metaformer.Predictor opens it")
            model, about = read_dense(found)
            self.model = model.eval().to(self.device)
        self.classes = _classes(about, source, self.model.config.num_classes)
        shown = about.get("shown", SHOWN)
        self.short, self.long = int(shown["short"]), int(shown["long"])
        self.numbers: tuple[int, ...] | None = tuple(about["numbers"]) if about.get("numbers") else None

    @property
    def regions(self) -> bool:
        """Whether it finds regions, and not objects."""
        return self.model.config.task == "segmentation"

    @property
    def masks(self) -> bool:
        """Whether what it finds has masks."""
        return self.model.config.task == "instances"

    def __repr__(self) -> str:
        return f"DensePredictor({str(self.source)!r}, {self.model.config.head}, {len(self.classes)} classes)"

    def __call__(self, images: "Sequence[Picture]", asking: Asking = WHOLE) -> list[DensePrediction]:
        """Answers in the order of `images`. One that cannot be read gives its reason as `error`, and nothing else.

        An image is a path, the bytes of a file, a PIL image, or pixels as uint8: a tensor (3, H, W) or an array (H, W, 3).
        Raises ValueError where this is no list of images.
        """
        return list(self.stream(images, asking))

    def stream(self, images: "Sequence[Picture]", asking: Asking = WHOLE) -> Iterator[DensePrediction]:
        """The same, one by one, with one image in memory."""
        if isinstance(images, str | bytes | Path):
            raise ValueError("give a list of images, be it of one: predictor([image])")
        for image in images:
            path = str(image) if isinstance(image, str | Path) else ""
            try:
                pixels = torch.from_numpy(pixels_of(image, 3)).permute(2, 0, 1)
            except ValueError as error:
                yield DensePrediction(path, error=str(error))
                continue
            yield self.ask(pixels, path, asking)

    def ask(self, pixels: Tensor, path: str = "", asking: Asking = WHOLE) -> DensePrediction:
        """The answer for pixels (3, H, W) of uint8. Raises ValueError for sizes that a file does not take."""
        self._check(asking)
        size = size_of(pixels)
        if self.regions:
            return DensePrediction(path, size, regions=self._regions(pixels, asking))
        return DensePrediction(path, size, found=self._finder(asking)([pixels])[0].best(asking.threshold))

    # --- objects ------------------------------------------------------------------------------------------------------

    def _finder(self, asking: Asking) -> Find:
        """What finds in images as they come."""
        least, plain = asking.threshold, not asking.tta
        if plain and asking.tile is None:
            return partial(self._find_fitted, least=least)
        find: Find = self._find if asking.tile is not None else partial(self._find, least=least)  # a piece may be unsure
        find = find if plain else find_in_views(find, scales=asking.scales, mirror=asking.mirror)
        if asking.tile is not None:
            return find_in_tiles(find, asking.tile, asking.overlap, least=least)
        return find_at(find, self.fitted)

    def _check(self, asking: Asking) -> None:
        """Raises ValueError for what shows a file images of other sizes than it takes."""
        if self.within is None:
            return
        sides = f"{self.source} takes images of {self.within[0]} × {self.within[1]} pixels, height and width"
        if asking.tile is not None and asking.tile > min(self.within):
            raise ValueError(f"tile={asking.tile} is too large: {sides}; at most {min(self.within)}")
        if len(asking.scales) > 1:
            raise ValueError(f"tta=scales shows images larger and smaller, and {sides}: flip is allowed")

    def fitted(self, size: Size) -> Size:
        """The size at which an image is fed."""
        return fitted(size, self.short, self.long) if self.within is None else fitted_within(size, self.within)

    def _find_fitted(self, images: Sequence[Tensor], least: float) -> list[Found]:
        """As it is judged: what is found is brought to the image's own size at once, masks too."""
        sizes = [size_of(image) for image in images]
        fed = [shown_at(image, self.fitted(size)) for image, size in zip(images, sizes, strict=True)]
        return self._found(fed, sizes, least)

    def _find(self, images: Sequence[Tensor], least: float = 0.0) -> list[Found]:
        """At the size that they have."""
        return self._found(images, [size_of(image) for image in images], least)

    def _found(self, images: Sequence[Tensor], sizes: Sequence[Size], least: float) -> list[Found]:
        """What scores at least `least`: what is left out needs no mask."""
        from metaformer.tasks.detection import decode as located

        return [located(answer, size, least) for answer, size in zip(self._asked(list(images)), sizes, strict=True)]

    # --- regions ------------------------------------------------------------------------------------------------------

    def _regions(self, pixels: Tensor, asking: Asking) -> Tensor:
        """(H, W) of uint8."""
        plain = not asking.tta
        score: Score = self._score if plain else score_in_views(self._score, scales=asking.scales, mirror=asking.mirror)
        if asking.tile is not None:
            return score_in_tiles(score, pixels, asking.tile, asking.overlap)
        if plain:
            fed = shown_at(pixels, self.fitted(size_of(pixels)))
            return self._asked(fed[None]).decode([size_of(pixels)])[0]
        logits = score_at(score, self.fitted)(pixels[None])[0]
        return logits.argmax(0).to(torch.uint8).cpu()

    def _score(self, images: Tensor) -> Tensor:
        """At the size that they have: logits (B, classes, H, W)."""
        answer = self._asked(images)
        return torch.stack([answer.whole(place, size_of(images)) for place in range(len(images))])

    def _asked(self, images: list[Tensor] | Tensor) -> Any:
        """The model's answer to bytes."""
        fed = images.to(self.device) if isinstance(images, Tensor) else [image.to(self.device) for image in images]
        half = self.precision != torch.float32
        with torch.no_grad(), torch.autocast(self.device.type, self.precision, enabled=half):
            return self.model(fed)


def _opened(file: Path, engine: str, options: Options) -> "DenseFile":
    """An exported file; what converts and runs such ones is imported for them alone."""
    from metaformer.infer.dense_file import DenseFile

    return DenseFile(file, engine, options)


def _classes(about: dict[str, Any], source: str | Path, count: int) -> tuple[str, ...]:
    """Their names; numbers where nothing names them. Raises ValueError where they are not as many as the model knows."""
    classes = about.get("classes", [str(number) for number in range(count)])
    if not isinstance(classes, list) or len(classes) != count or not all(type(name) is str for name in classes):
        raise ValueError(f"{source} does not say the {count} classes of its model")
    return tuple(classes)
