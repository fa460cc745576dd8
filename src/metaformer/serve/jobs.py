"""What is asked of a model, how a model is described, and why there may be no answer. Stdlib only."""

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["predict", "embed", "explain"]
Masks = Literal["polygons", "rle"]

Record = dict[str, Any]
"""What is answered to one image, ready for JSON or msgpack; bytes where it holds a picture."""

KINDS: tuple[Kind, ...] = ("predict", "embed", "explain")
MASKS: tuple[Masks, ...] = ("polygons", "rle")


@dataclass(frozen=True)
class Asked:
    """What is wanted of images. Raises ValueError with a sentence."""

    kind: Kind = "predict"
    top: int = 5
    """Classes told of each image."""
    threshold: float = 0.5
    """Least score of objects that are told."""
    masks: Masks = "polygons"
    label: str | None = None
    """The class that is explained; None for the most probable one."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r} is not one of {', '.join(KINDS)}")
        if self.masks not in MASKS:
            raise ValueError(f"masks={self.masks!r} is not one of {', '.join(MASKS)}")
        if type(self.top) is not int or self.top < 1:
            raise ValueError(f"top={self.top!r} is not a whole number of 1 or more")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold={self.threshold!r} is not between 0 and 1")


@dataclass(frozen=True)
class Job:
    """Images of one request, as bytes of files, and what is wanted of them. Raises ValueError with a sentence."""

    kind: Kind
    images: tuple[bytes, ...]
    top: int = 5
    threshold: float = 0.5
    masks: Masks = "polygons"
    label: str | None = None

    def __post_init__(self) -> None:
        self.asked  # noqa: B018 -- which says what cannot be
        if not self.images:
            raise ValueError("a job has one image at least")

    @property
    def asked(self) -> Asked:
        """What is wanted, without the images."""
        return Asked(self.kind, self.top, self.threshold, self.masks, self.label)


@dataclass(frozen=True)
class Model:
    """What is to know of a model that is served."""

    name: str
    source: str
    """The last part of where it comes from, never the folders above it."""
    task: str
    """classification, detection, instances or segmentation."""
    classes: tuple[str, ...]
    size: int | None
    """Pixels a side that images are fitted to; None where that depends on the image."""
    engine: str
    precision: str
    several: bool = False
    """Whether an image may have several labels."""
    embeds: int = 0
    """Length of its embeddings; 0 where it has none."""
    explains: bool = False
    """Whether it can say where it looked."""


class RefusedError(Exception):
    """No answer, for a reason that is not the image's. Its text is a sentence."""


class Full(RefusedError):  # noqa: N818 -- what is answered, as in queue.Full
    """As many images wait as may. `retry_after` is in how many seconds there should be room again."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Opening(RefusedError):  # noqa: N818 -- beside Full
    """The model is being opened again, and not in time. `retry_after` is in how many seconds it should be open."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Late(RefusedError):  # noqa: N818 -- beside Full
    """The deadline passed before there was an answer."""


class Lost(RefusedError):  # noqa: N818 -- beside Full
    """The process that worked on it is gone, or is going."""


class Unable(RefusedError):  # noqa: N818 -- beside Full
    """This model cannot do what is asked."""
