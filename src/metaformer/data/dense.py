"""Data sets of objects or of regions, by the words before their paths: coco:, voc:, yolo:, camvid:, ade20k:, masks:."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path

import numpy as np

from metaformer.data.annotations import Annotations
from metaformer.data.check import draw_parts, recalled
from metaformer.data.coco import coco_parts
from metaformer.data.dataset import Listing, Progress, read_split
from metaformer.data.find import printable
from metaformer.data.flaws import Flaw, together
from metaformer.data.listed import Listed, Parts
from metaformer.data.maps import Maps
from metaformer.data.regions import ade20k_parts, camvid_parts, mask_parts
from metaformer.data.scenes import Scenes
from metaformer.data.seen import Seen, see_all, statistics_of
from metaformer.data.truth import VOID
from metaformer.data.voc import voc_parts
from metaformer.data.yolo import yolo_parts

OBJECTS: Mapping[str, Callable[[str], Parts]] = {"coco": coco_parts, "voc": voc_parts, "yolo": yolo_parts}
REGIONS: Mapping[str, Callable[[str], Parts]] = {
    "camvid": camvid_parts, "ade20k": ade20k_parts, "masks": mask_parts, "voc": partial(voc_parts, regions=True),
}  # fmt: skip
DENSE = tuple(dict.fromkeys((*OBJECTS, *REGIONS)))
"""The words."""


@dataclass(frozen=True, eq=False)
class DenseData:
    """A data set of objects or of regions: two parts, and what a recipe needs to know of them."""

    train: Scenes
    val: Scenes
    classes: tuple[str, ...]
    numbers: tuple[int, ...] = ()
    """What the source calls the classes where that is a number, as COCO's results name them."""
    mean: tuple[float, ...] = ()
    """Mean of the training pixels per channel, in units of 0 to 1."""
    std: tuple[float, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()
    """Images that were left out, each with its reason."""
    drawn: tuple[tuple[str, str], ...] = ()
    """Where no split was given, so one was drawn: every image with its part, train or val. Paths from the root on."""
    notes: tuple[str, ...] = ()
    """What a person should know of the data, a sentence each; what is wrong with it is among them."""
    flaws: tuple[Flaw, ...] = ()

    @property
    def regions(self) -> bool:
        """Whether truth is maps of regions, and not objects."""
        return self.val.regions


def is_dense(source: str) -> bool:
    """Whether `data=` names objects or regions."""
    return source.partition(":")[0] in DENSE and ":" in source


def parts_of(source: str, *, regions: bool | None = None) -> Parts:
    """The parts of what `data=` names, not read yet: of maps with `regions`, of objects without, by default as its word says.

    Raises ValueError or FileNotFoundError with a sentence.
    """
    word, colon, place = source.partition(":")
    if not colon or word not in DENSE:
        known = DENSE if regions is None else tuple(REGIONS if regions else OBJECTS)
        close = get_close_matches(word.lower(), known, n=1, cutoff=0.6)
        hint = f"; did you mean {close[0]}:{place}?" if close else ""
        raise ValueError(f"data={source} has no objects and no regions; allowed: {', '.join(f'{w}:PATH' for w in known)}{hint}")
    if not place:
        raise ValueError(f"data={source} lacks a path: {word}:PATH")
    forms = REGIONS if regions or (regions is None and word not in OBJECTS) else OBJECTS
    if word not in forms:
        kinds = ("regions", "objects") if forms is OBJECTS else ("objects", "regions")
        allowed = ", ".join(f"{w}:PATH" for w in forms)
        raise ValueError(f"data={source} has {kinds[0]}, and this model finds {kinds[1]}; allowed: {allowed}")
    return forms[word](place)


def open_dense(
    source: str,
    *,
    regions: bool,
    masks: bool = False,
    seed: int = 0,
    split: Path | None = None,
    progress: Progress | None = None,
) -> DenseData:
    """The data set that `data=` names, to train on: maps with `regions`, else objects, with their masks where they are wanted.

    What has no judging part is split by `seed`, or as the file `split` of an earlier run says. Raises ValueError or
    FileNotFoundError with a sentence.
    """
    parts = parts_of(source, regions=regions)
    if len(parts) == 1:
        learnt = see_all(next(iter(parts.values()))(masks), source, judging=True, progress=progress)
        train, val, drawn = _split(learnt.listed, source, seed, split)
        unreadable = learnt.unreadable
    else:
        judging = "val" if "val" in parts else "test"
        if "train" not in parts:
            raise ValueError(f"{source} has no part to learn from, only {' and '.join(parts)}")
        learnt = see_all(parts["train"](masks), source, progress=progress)
        judged = see_all(parts[judging](masks), source, judging=True, progress=progress)
        train, drawn, unreadable = learnt.listed, (), learnt.unreadable + judged.unreadable
        val = aligned(judged.listed, train.classes, f"the judging part of {source}", "the part to learn from")
    for listed in (train, val):
        _check(listed, source, masks=masks)
    flaws = train.flaws.all() if drawn else together((train.flaws.all(), val.flaws.all()))
    mean, std = statistics_of(train.root, train.names)
    notes = (*_told(parts), *map(str, flaws), *_untaught(train, learnt))
    sides = (_scenes(train), _scenes(val))
    return DenseData(*sides, train.classes, train.numbers, mean, std, unreadable, drawn, notes, flaws)


def open_dense_judged(
    source: str,
    classes: tuple[str, ...],
    *,
    regions: bool,
    masks: bool = False,
    split: Path | None = None,
    progress: Progress | None = None,
) -> DenseData:
    """The judging part of a source as `val`, for a model that knows `classes`; `train` is empty.

    Where the source has no parts, the file `split` of a run says which images judge; without it, all do. Raises ValueError
    or FileNotFoundError with a sentence, also for classes that the model does not know.
    """
    parts = parts_of(source, regions=regions)
    part = next((word for word in ("val", "test", "") if word in parts), "train")
    seen = see_all(parts[part](masks), source, judging=True, progress=progress)
    listed = seen.listed
    if part == "" and split is not None and split.is_file():
        keys = [printable(name) for name in listed.names]
        listing = recalled(
            Listing([*map(Path, keys)], keys, [()] * len(keys), None, None), read_split(split), source, part="val"
        )
        numbers = {key: i for i, key in enumerate(keys)}
        listed = _take(listed, [numbers[key] for key in listing.keys])
    listed = aligned(listed, classes, source, "the model")
    _check(listed, source, masks=masks)
    flaws, val = listed.flaws.all(), _scenes(listed)
    return DenseData(val.take([]), val, classes, listed.numbers, (), (), seen.unreadable, (), tuple(map(str, flaws)), flaws)


def few_scenes(data: DenseData, count: int) -> DenseData:
    """The data set with `count` images to learn and as many to judge, spread over those there are."""
    return replace(data, train=_few(data.train, count), val=_few(data.val, count))


def _few(scenes: Scenes, count: int) -> Scenes:
    return scenes.take(range(0, len(scenes), max(1, len(scenes) // count))[:count])


def _scenes(listed: Listed) -> Scenes:
    return Scenes(listed.root, listed.names, listed.truths)


def _take(listed: Listed, numbers: list[int]) -> Listed:
    return replace(listed, names=[listed.names[i] for i in numbers], truths=listed.truths.take(numbers))


def _split(listed: Listed, source: str, seed: int, split: Path | None) -> tuple[Listed, Listed, tuple[tuple[str, str], ...]]:
    """Two parts of a listing, and the part of every image, as an earlier run says or by `seed` and the images' own paths.

    An image with a class that no other teaches is learnt from.
    """
    keys, classes, truths = [printable(name) for name in listed.names], listed.classes, listed.truths
    labels: list[tuple[str, ...]] = [()] * len(keys)
    if isinstance(truths, Annotations):
        ends = truths.starts.tolist()
        own = (np.unique(truths.labels[ends[i] : ends[i + 1]]).tolist() for i in range(len(keys)))
        labels = [tuple(classes[c] for c in some) for some in own]
    listing = Listing([*map(Path, keys)], keys, labels, None, None, multi=True)
    if split is not None and split.is_file():
        recorded = recalled(listing, read_split(split), source)
        assert recorded.parts is not None
        drawn = tuple(zip(recorded.keys, recorded.parts, strict=True))
    else:
        drawn = tuple(zip(keys, draw_parts(listing, seed, source), strict=True))
    numbers = {key: i for i, key in enumerate(keys)}
    train, val = (_take(listed, [numbers[key] for key, part in drawn if part == wanted]) for wanted in ("train", "val"))
    return train, val, drawn


def aligned(listed: Listed, classes: tuple[str, ...], whose: str, knower: str) -> Listed:
    """The listing with its classes numbered as in `classes`. Raises ValueError where it has one that is not among them."""
    place = {name: c for c, name in enumerate(classes)}
    numbers = [place.get(name, -1) for name in listed.classes]
    truths = listed.truths
    used = range(len(numbers)) if isinstance(truths, Maps) else np.unique(truths.labels).tolist()
    strange = [listed.classes[c] for c in used if numbers[c] < 0]
    if strange:
        close = get_close_matches(strange[0], classes, n=1, cutoff=0.7)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(f"{whose} has class {strange[0]!r}{hint}, which {knower} does not know")
    truths = truths.relabelled(numbers, classes) if isinstance(truths, Maps) else truths.relabelled(numbers or [0])
    own = dict(zip(listed.classes, listed.numbers, strict=False))
    return replace(listed, truths=truths, classes=classes, numbers=tuple(own.get(name, -1) for name in classes) if own else ())


def _check(listed: Listed, source: str, *, masks: bool) -> None:
    """Raises ValueError where there is nothing to learn or to judge by."""
    if not listed.names:
        raise ValueError(f"{source} has no image that can be read")
    truths = listed.truths
    if isinstance(truths, Annotations) and not len(truths.labels):
        what = "with an outline: boxes alone teach no masks" if masks else "in it"
        raise ValueError(f"{source} has no object {what}")


def _told(parts: Parts) -> list[str]:
    """Which part judges, where one may wonder."""
    if "test" in parts and "val" in parts:
        return ["val judges; test is left alone"]
    return ["the test part picks the best epoch, because there is no val part"] if "test" in parts else []


def _untaught(train: Listed, learnt: Seen) -> list[str]:
    """Classes without an object to learn from, or without a pixel in the label files that were read."""
    if isinstance(train.truths, Maps):
        present = set() if learnt.present is None else set(np.flatnonzero(learnt.present).tolist())
    else:
        present = set(np.unique(train.truths.labels).tolist())
    absent = [name for c, name in enumerate(train.classes) if c not in present]
    if not absent:
        return []
    called = ", ".join(map(repr, absent[:3])) + (f" and {len(absent) - 3:,} more" if len(absent) > 3 else "")
    if not isinstance(train.truths, Maps):
        return [f"no object to learn from of {called}"]
    void = f"; {VOID} is void, unless the class list has it, as {f'{VOID} {absent[0]}'!r}" if VOID in present else ""
    return [f"no pixel of {called} in the label files, of which {learnt.maps:,} were read{void}"]
