"""From a listing to a data set: the rules that all keep, a split where none is given, and what cannot be read left out."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from itertools import pairwise

import torch

from metaformer.data.dataset import Data, Label, Listing, Progress, names_of
from metaformer.data.scan import Scan, scan
from metaformer.data.splits import Encoded, Images

MOST_UNREADABLE = 0.01
"""Part of the images that may be unreadable; with more, nothing is trained."""
HELD_OUT = 0.2
"""Part of each class that judges where a split has to be drawn; of all images where an image may have several."""
PARTS = ("train", "val")


def build(
    listing: Listing,
    source: str,
    *,
    seed: int = 0,
    split: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Data:
    """The data set of a listing to train on, with every image looked at (`scan` says how closely).

    Where the listing has no parts, `split` (part by key) gives them, else they are drawn: a fifth of each class, decided
    by `seed` and the images' own keys, so that adding images moves few. Unreadable images are left out. Raises ValueError
    with a sentence: one class only, classes alike but for case, classes that are only in the judging part, too few images
    to draw a split, more than 1 % unreadable.
    """
    drawn = listing.parts is None
    if listing.parts is None and split is not None:
        listing = recalled(listing, split, source)
    classes = _classes(listing, source)
    if listing.parts is None:
        listing = replace(listing, parts=draw_parts(listing, seed, source))
    assert listing.parts is not None
    seen = scan(listing.items, torch.tensor([part == "train" for part in listing.parts]), progress=progress)
    unreadable = _unreadable(listing, seen, source)
    keep = [i for i in range(len(listing.items)) if i not in seen.unreadable]
    train, val = ([i for i in keep if listing.parts[i] == part] for part in ("train", "val"))
    absent = _absent(listing, classes, train, val, source)
    return Data(
        train=_split(listing, classes, seen, train),
        val=_split(listing, classes, seen, val),
        classes=classes,
        channels=seen.channels,
        image_size=None if seen.pixels is None else max(28, *seen.pixels.shape[2:]),
        mirrors=True,
        mean=seen.mean,
        std=seen.std,
        unreadable=unreadable,
        drawn=tuple((listing.keys[i], listing.parts[i]) for i in keep) if drawn else (),
        notes=(*listing.notes, *absent, *_copies(listing, seen)),
    )


def build_judged(listing: Listing, source: str, classes: tuple[str, ...], *, progress: Progress | None = None) -> Data:
    """The data set of a listing to judge a model on that knows `classes`: all of it is `val`, and `train` is empty.

    Raises ValueError with a sentence: classes that the model does not know, more than 1 % unreadable.
    """
    strange = sorted(names_of(listing.labels) - set(classes))
    if strange:
        raise ValueError(f"{source} has class {_nearest(strange[0], classes)}, which the model does not know")
    every = torch.ones(len(listing.items), dtype=torch.bool)
    seen = scan(listing.items, every, closely=every, progress=progress)
    unreadable = _unreadable(listing, seen, source)
    val = _split(listing, classes, seen, [i for i in range(len(listing.items)) if i not in seen.unreadable])
    size = None if seen.pixels is None else max(28, *seen.pixels.shape[2:])
    empty = _split(listing, classes, seen, [])
    return Data(empty, val, classes, seen.channels, size, mirrors=True, unreadable=unreadable, notes=listing.notes)


def recalled(listing: Listing, split: Mapping[str, str], source: str, *, part: str | None = None) -> Listing:
    """The images of a split that was drawn before, or those of one `part`. Raises ValueError where some are gone."""
    wanted = {key: where for key, where in split.items() if part in (None, where)}
    keep = [i for i, key in enumerate(listing.keys) if key in wanted]
    if len(keep) < len(wanted):
        gone = sorted(wanted.keys() - set(listing.keys))
        raise ValueError(f"images of the run's split that {source} has no more: {len(gone):,}, such as {gone[0]}; put it back")
    new = len(listing.keys) - sum(key in split for key in listing.keys)
    note = (f"images of {source} that are not in the run's split, left out: {new:,}",) if new else ()
    listing = listing.take(keep)
    return replace(listing, parts=[wanted[key] for key in listing.keys], notes=listing.notes + note)


def _classes(listing: Listing, source: str) -> tuple[str, ...]:
    """The classes in order. Raises ValueError with a sentence if they are not what can be learnt."""
    parts = listing.parts or ["train"] * len(listing.labels)
    learnt, judged = (
        names_of(label for label, part in zip(listing.labels, parts, strict=True) if part == wanted) for wanted in PARTS
    )
    if "train" not in parts:
        raise ValueError(f"{source} has no image to learn from")
    if listing.parts is not None and "val" not in parts:
        raise ValueError(f"{source} has no image to judge by")
    if not learnt:
        raise ValueError(f"{source} has no image with a label to learn from")
    names = sorted(learnt | judged)
    for one, other in pairwise(_by_case(names)):
        if one.casefold() == other.casefold():
            raise ValueError(f"{source} has classes {one!r} and {other!r}, alike but for case: rename or merge them")
    if judged - learnt:
        strange = _nearest(min(judged - learnt), sorted(learnt))
        raise ValueError(f"the judging part of {source} has class {strange}, which the part to learn from lacks")
    if len(learnt) == 1 and not listing.multi:
        raise ValueError(f"{source} has only one class, {names[0]!r}: at least two are needed to tell apart")
    return listing.classes or tuple(names)


def _by_case(names: Iterable[str]) -> list[str]:
    """Sorted so that names alike but for case are neighbours."""
    return sorted(names, key=lambda name: (name.casefold(), name))


def _nearest(name: str, known: Sequence[str]) -> str:
    close = get_close_matches(name, known, n=1, cutoff=0.7)
    return f"{name!r} (did you mean {close[0]!r}?)" if close else repr(name)


def draw_parts(listing: Listing, seed: int, source: str) -> list[str]:
    """Part of each image: in each class, the fifth whose keys, hashed with the seed, come first judges.

    Where an image may have several classes, the fifth of all images, but for those with a class that no other teaches.
    """
    if listing.multi:
        return _draw_several(listing, seed, source)
    by_class: dict[Label, list[int]] = defaultdict(list)
    for i, label in enumerate(listing.labels):
        by_class[label].append(i)
    parts = ["train"] * len(listing.labels)
    for label, members in by_class.items():
        if len(members) < 2:
            raise ValueError(
                f"class {label!r} of {source} has one image, too few to split: two are needed, one to learn from and one to "
                "judge by, where there is no val/"
            )
        members.sort(key=lambda i: _place(listing.keys[i], seed))
        for i in members[: max(1, round(HELD_OUT * len(members)))]:
            parts[i] = "val"
    return parts


def _draw_several(listing: Listing, seed: int, source: str) -> list[str]:
    order = sorted(range(len(listing.labels)), key=lambda i: _place(listing.keys[i], seed))
    held = order[: max(1, round(HELD_OUT * len(order)))]
    learnt = names_of(listing.labels[i] for i in order[len(held) :])
    parts = ["train"] * len(order)
    for i in held:
        own = names_of([listing.labels[i]])
        if own <= learnt:
            parts[i] = "val"
        learnt |= own
    if "val" not in parts:
        raise ValueError(f"{source} has too few images to split, {len(order)}: say in a column which are train and which val")
    return parts


def _place(key: str, seed: int) -> bytes:
    """By which an image comes sooner or later, whatever the others are."""
    return hashlib.blake2b(f"{seed}/{key}".encode(), digest_size=8).digest()


def _unreadable(listing: Listing, seen: Scan, source: str) -> tuple[tuple[str, str], ...]:
    found = tuple((listing.name(i), reason) for i, reason in sorted(seen.unreadable.items()))
    if len(found) > MOST_UNREADABLE * len(listing.items):
        first = "; ".join(f"{name}: {reason}" for name, reason in found[:3])
        raise ValueError(
            f"{len(found):,} of the {len(listing.items):,} images of {source} cannot be read, more than 1 %: repair or remove "
            f"them ({first}{'; …' if len(found) > 3 else ''})"
        )
    return found


def _absent(listing: Listing, classes: tuple[str, ...], train: list[int], val: list[int], source: str) -> list[str]:
    """Classes without images: told. Raises ValueError where unreadable images were all that there was."""
    learnt, judged = (names_of(listing.labels[i] for i in numbers) for numbers in (train, val))
    lost = sorted(names_of(listing.labels) - learnt)
    if lost:
        raise ValueError(f"no image of class {lost[0]!r} in {source} can be read")
    if not val:
        raise ValueError(f"no image that judges in {source} can be read")
    if not judged:
        raise ValueError(f"no image that judges in {source} has a label: nothing could be found right")
    untaught, untested = ([name for name in classes if name not in present] for present in (learnt, judged))
    notes = [f"{_some(untaught)} of {source} has no image, though it is named as a class"] if untaught else []
    return notes + ([f"no image judges {_some(untested)}"] if judged < learnt else [])


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")


def _copies(listing: Listing, seen: Scan) -> list[str]:
    """What copies of files mean for the figures."""
    assert listing.parts is not None
    groups: dict[bytes, list[int]] = defaultdict(list)
    for i, code in seen.digests.items():
        groups[code].append(i)
    copies = [group for group in groups.values() if len(group) > 1]
    leaks = [group for group in copies if len({listing.parts[i] for i in group}) > 1]
    torn = [group for group in copies if len({listing.labels[i] for i in group}) > 1]
    notes = []
    if leaks:
        count = sum(listing.parts[i] == "val" for group in leaks for i in group)
        like = " and ".join(listing.name(i) for i in leaks[0][:2])
        notes.append(f"judging images that are also learnt from, byte for byte: {count:,} ({like}); that flatters the result")
    if torn:
        like = " and ".join(listing.name(i) for i in torn[0][:2])
        what = "copies with different labels" if listing.multi else "images in several classes at once"
        notes.append(f"{what}, byte for byte: {len(torn):,} ({like})")
    return notes


def _split(listing: Listing, classes: tuple[str, ...], seen: Scan, keep: list[int]) -> Images | Encoded:
    number = {name: i for i, name in enumerate(classes)}
    taken = listing.take(keep)
    if listing.multi:
        places = [(row, number[name]) for row, label in enumerate(taken.labels) for name in names_of([label])]
        rows, columns = torch.tensor(places, dtype=torch.int64).view(-1, 2).unbind(1)
        labels = torch.zeros(len(keep), len(classes), dtype=torch.uint8)
        labels[rows, columns] = 1
    else:
        labels = torch.tensor([number[str(label)] for label in taken.labels], dtype=torch.int64)
    if seen.pixels is not None:
        return Images(seen.pixels[keep], labels, [taken.name(i) for i in range(len(keep))])
    return Encoded(taken.items, labels, seen.channels, taken.keys)
