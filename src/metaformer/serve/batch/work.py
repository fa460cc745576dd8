"""What is asked of which model, and the sum of its weights."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaformer.download import hash_of
from metaformer.infer.exported import is_exported

if TYPE_CHECKING:
    from metaformer.infer.dense import Asking


@dataclass(frozen=True)
class Work:
    """What is asked of which model."""

    verb: str
    """predict or embed."""
    source: str
    engine: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    streams: int | None = None
    top: int = 5
    asking: "Asking | None" = None
    """Of models that find objects or regions; None of classifiers."""
    sha256: str = ""
    """Of the weights; "" for whichever are there."""

    def told(self) -> dict[str, Any]:
        """What the answers depend on."""
        told: dict[str, Any] = {
            "verb": self.verb,
            "model": Path(self.source).name,
            "sha256": self.sha256,
            "precision": self.precision,
        }
        if self.verb == "predict":
            told |= {"engine": self.engine}
            told |= {"top": self.top} if self.asking is None else asdict(self.asking)
        return told


def asked(threshold: float | None, tile: int | None, overlap: int, tta: str) -> "Asking":
    """How a model of objects or regions looks at images."""
    from metaformer.infer.dense import THRESHOLD, Asking

    return Asking(THRESHOLD if threshold is None else threshold, tile, overlap, tta)


def source_sha256(source: str) -> str:
    """The sum of an exported file; of a model in torch that of its weights and what is said of them.

    Raises OSError or ValueError with a sentence.
    """
    if is_exported(source):
        file = Path(source)
        if not file.is_file():
            raise FileNotFoundError(f"no file {file}")
        weights = file.with_suffix(".bin")
        return _sum([file, weights] if file.suffix.lower() == ".xml" and weights.is_file() else [file])
    from metaformer.infer.source import find_source
    from metaformer.weights.fetch import fetch

    found = find_source(source)
    if not isinstance(found, Path):
        return _sum([fetch(found)])
    return _sum(sorted(file for file in found.iterdir() if file.is_file()) if found.is_dir() else [found])


def _sum(files: list[Path]) -> str:
    sums = [hash_of(file, "sha256") for file in files]
    return sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()
