"""What `data=` can name: a data set known by name or on the hub, a folder, Parquet files, tar shards, a CSV, addresses."""

from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

import torch

from metaformer.data.check import build, build_judged, recalled
from metaformer.data.dataset import Data, Listing, Progress, read_split, with_channels
from metaformer.data.find import files_in, is_image
from metaformer.data.folder import list_folder
from metaformer.data.hub import find_on_hub
from metaformer.data.known import cifar10, digits, fashion_mnist
from metaformer.data.parquet import list_parquet, list_rows
from metaformer.data.places import Places, find_places, is_pattern
from metaformer.data.splits import subset
from metaformer.data.store import is_remote
from metaformer.data.tables import list_csv
from metaformer.data.tar import list_tar

KNOWN: dict[str, Callable[[str, Progress | None], Data]] = {
    "digits": digits,
    "fashion-mnist": fashion_mnist,
    "cifar10": cifar10,
}
FORMS = (
    "digits, fashion-mnist[:PATH], cifar10[:PATH], hf:NAME[:CONFIG], a folder of class folders, .tar or .parquet files, "
    "a .csv file, or addresses of such files"
)


def open_data(
    source: str, *, seed: int = 0, split: Path | None = None, labels: str = "auto", progress: Progress | None = None
) -> Data:
    """The data set that `data=` names, to train on; docs/data.md shows every form.

    A source that has no judging part is split by `seed`, or as the file `split` of an earlier run says (`split_csv`).
    `labels` says whether an image has one label (single), any number (multi), or as the source looks (auto).
    Every image is looked at, in threads; `progress` is told how far that is. Raises ValueError or FileNotFoundError with
    a sentence.
    """
    name, _, place = source.partition(":")
    if name in KNOWN:
        if labels == "multi":
            raise _one_label(source)
        return KNOWN[name](place, progress)
    recorded = read_split(split) if split is not None and split.is_file() else None
    return build(_listing(source, labels=labels, progress=progress), source, seed=seed, split=recorded, progress=progress)


def open_judged(
    source: str,
    classes: tuple[str, ...],
    channels: int,
    *,
    split: Path | None = None,
    labels: str = "single",
    progress: Progress | None = None,
) -> Data:
    """The judging part of a source as `val`, for a model that knows `classes` and takes `channels`; `train` is empty.

    Where the source has no parts, the file `split` of a run says which images judge; without it, all do. Only what judges
    is looked at. Raises ValueError or FileNotFoundError with a sentence, also for classes that the model does not know.
    """
    name, _, place = source.partition(":")
    if name in KNOWN:
        if labels == "multi":
            raise _one_label(source)
        data = KNOWN[name](place, progress)
        if data.classes != classes:
            raise ValueError(f"the classes of {source}, {_some(data.classes)}, are not the model's, {_some(classes)}")
        data = replace(data, train=subset(data.train, torch.arange(0)))
    else:
        listing = _listing(source, judged=True, labels=labels, progress=progress)
        if listing.parts is None and split is not None and split.is_file():
            listing = recalled(listing, read_split(split), source, part="val")
        data = build_judged(listing, source, classes, progress=progress)
    return with_channels(data, channels)


def check_there(source: str) -> None:
    """Raises ValueError or FileNotFoundError where `data=` names no folder or file; what is elsewhere is not asked for."""
    elsewhere = source.partition(":")[0] in (*KNOWN, "hf", "tar") or is_remote(source) or is_pattern(source)
    if not elsewhere and (not source or not Path(source).expanduser().exists()):
        raise nothing(source)


def few(data: Data, count: int) -> Data:
    """The data set with `count` images to learn and as many to judge, spread over those there are."""
    spread = (torch.arange(0, len(split), max(1, len(split) // count))[:count] for split in (data.train, data.val))
    return replace(data, train=subset(data.train, next(spread)), val=subset(data.val, next(spread)))


def _one_label(source: str) -> ValueError:
    return ValueError(f"{source} has one label for each image: labels=multi is for a .csv or .parquet that has several")


def _listing(source: str, *, judged: bool = False, labels: str = "auto", progress: Progress | None = None) -> Listing:
    """What is in a folder or in files. Raises FileNotFoundError or ValueError where it is none that is known."""
    places = find_shards(source)
    if places is not None:
        return _shards(source, places, judged=judged, labels=labels, progress=progress)
    place = Path(source).expanduser()
    if not source or not place.exists():
        raise nothing(source)
    if place.is_dir():
        if any(file.suffix.lower() == ".parquet" for file in files_in(place)):
            return list_parquet(place, judged=judged, labels=labels)
        if labels == "multi":
            raise _one_label(source)
        return list_folder(place, judged=judged)
    if place.suffix.lower() == ".parquet":
        return list_parquet(place, judged=judged, labels=labels)
    if place.suffix.lower() in (".csv", ".tsv"):
        return list_csv(place, judged=judged, labels=labels)
    raise ValueError(f"data={source} is a file, but not a .tar, .parquet, .csv or .tsv one; allowed: {FORMS}")


def find_shards(source: str) -> Places | None:
    """The files that a pattern, an address or the hub names, or the tar files of a folder; None for what is something else.

    Raises FileNotFoundError or ValueError with a sentence.
    """
    place = Path(source).expanduser()
    if source and place.exists():
        return find_places(str(place)) if place.suffix.lower() == ".tar" or (place.is_dir() and _has_tars(place)) else None
    if source.startswith("hf:") and not is_remote(source):
        return find_on_hub(source.removeprefix("hf:"))
    if source.startswith("tar:") or is_remote(source) or is_pattern(source):
        return find_places(source.removeprefix("tar:"))
    return None


def _shards(source: str, places: Places, *, judged: bool, labels: str, progress: Progress | None) -> Listing:
    """What is in such files."""
    if places.kind == ".tar":
        return list_tar(places, judged=judged, labels=labels, progress=progress)
    if places.kind == ".parquet":
        return list_rows(places, judged=judged, labels=labels)
    if places.kind in (".csv", ".tsv") and len(places.files) == 1:
        return list_csv(places.files[0], judged=judged, labels=labels)
    raise ValueError(f"data={source} names {places.kind or 'other'} files; allowed: {FORMS}")


def _has_tars(folder: Path) -> bool:
    """Whether a folder holds tar files and neither images nor Parquet files."""
    kinds = {"image" if is_image(file) else file.suffix.lower() for file in files_in(folder)}
    return ".tar" in kinds and not kinds & {"image", ".parquet"}


def nothing(source: str) -> ValueError | FileNotFoundError:
    """Why a name stands for nothing, and which one may be meant."""
    name, colon, place = source.partition(":")
    close = get_close_matches(name.lower().replace("_", "-"), [*KNOWN, "cifar-10"], n=1, cutoff=0.6)
    if close:
        right = close[0].replace("cifar-10", "cifar10") + colon + place
        return ValueError(f"no data {source!r}, and no such folder or file; did you mean {right}?")
    path = Path(source).expanduser()
    beside = [file.name for file in path.parent.iterdir()] if source and path.parent.is_dir() else []
    near = get_close_matches(path.name, beside, n=1, cutoff=0.8)
    if near:
        return FileNotFoundError(f"there is no {path}; did you mean {path.parent / near[0]}?")
    if path.name != source or path.suffix:
        return FileNotFoundError(f"there is no {path}; data= may be {FORMS}")
    return ValueError(f"no data {source!r}, and no such folder or file; allowed: {FORMS}")


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + (" …" if len(names) > 4 else "")
