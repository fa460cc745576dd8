"""How a service runs: what it takes of one request, and what its models run on. Stdlib only."""

import math
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Limits:
    """Most that is taken. Raises ValueError with a sentence for what cannot be."""

    body: int = 64 << 20
    """Bytes of a request."""
    image: int = 32 << 20
    """Bytes of one image."""
    pixels: int = 100_000_000
    """Of one image, as its header says before anything is decoded; decoding itself has limits, too."""
    images: int = 64
    """Of one request."""
    queue: int = 256
    """Images that wait for a model."""
    held: int = 1 << 30
    """Bytes of these images."""
    deadline: float = 30.0
    """Seconds in which a request is answered, or gives its place to others."""
    read: float = 20.0
    """Seconds in which a request must have come."""
    drain: float = 20.0
    """Seconds in which what was taken is answered when the service stops."""

    def __post_init__(self) -> None:
        _check_counts(self, ("body", "image", "pixels", "images", "queue", "held"))
        _check_seconds(self, ("deadline", "read"), least=math.ulp(0.0))
        _check_seconds(self, ("drain",), least=0.0)
        if self.queue < self.images:
            raise ValueError(f"queue={self.queue} has no room for a request of images={self.images}: make it as large at least")


@dataclass(frozen=True)
class Running:
    """What the models run on, as `Predictor` takes it, and in how large batches. Raises ValueError with a sentence."""

    engine: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    streams: int | None = None
    batch: int = 16
    """Most images at once."""
    wait: float = 0.0
    """Seconds that images may wait for others to fill a batch; with 0 a batch is what waits when the model is free."""

    def __post_init__(self) -> None:
        _check_counts(self, ("batch",))
        _check_counts(self, tuple(name for name in ("threads", "streams") if getattr(self, name) is not None))
        _check_seconds(self, ("wait",), least=0.0)
        if self.wait > 1:
            raise ValueError(f"wait={self.wait} is longer than a person waits: at most 1 second, such as 0.005")


def _check_counts(settings: Limits | Running, names: tuple[str, ...]) -> None:
    assert set(names) <= {field.name for field in fields(settings)}
    for name in names:
        value = getattr(settings, name)
        if type(value) is not int or value < 1:
            raise ValueError(f"{name}={value!r} is not a whole number of 1 or more")


def _check_seconds(settings: Limits | Running, names: tuple[str, ...], *, least: float) -> None:
    for name in names:
        value = getattr(settings, name)
        if type(value) not in (int, float) or not least <= value < math.inf:
            raise ValueError(f"{name}={value!r} is not a number of seconds {'from 0 on' if least == 0 else 'over 0'}")
