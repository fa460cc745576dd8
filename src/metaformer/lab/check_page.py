"""`check.html` and `check.json`: what was found in a data set, on one self-contained page and as figures."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metaformer.data.checked import ASPECTS, GROUPS, MEMBERS, NEAR, SAME_FILE, SAME_PICTURE, Checked, Group
from metaformer.data.look import MISNAMED, TRUNCATED, UNREADABLE
from metaformer.data.scenes import Scenes
from metaformer.infer.palette import palette
from metaformer.lab.dense_pictures import truth_of
from metaformer.lab.doctor import examine
from metaformer.lab.frame import template
from metaformer.lab.page import duration
from metaformer.lab.pictures import address, embedded
from metaformer.runs import write_text

ROWS = 200
"""Files of a kind that are listed on the page; check.json has all."""
PICTURES = 24
"""Images that are shown with what is true of them."""
SIDE = 480
"""Their longer side in pixels."""
SIZES = (("small", "under 32 pixels a side"), ("medium", "32 to 96"), ("large", "over 96"))
TROUBLES = (
    (UNREADABLE, "Unreadable", "They have no picture; training leaves them out, and refuses to go on with more than 1 %."),
    (TRUNCATED, "Truncated", "They end before they should."),
    (MISNAMED, "Named after another format", "Here the content counts and not the name, but not everywhere."),
)


def write_check(checked: Checked, out: Path, *, allow_leaks: bool = False) -> None:
    """Writes check.html and check.json into the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "check.json", json.dumps(checked.to_dict(), indent=1, ensure_ascii=False) + "\n")
    write_text(out / "check.html", check_page(checked, allow_leaks=allow_leaks))


def check_text(checked: Checked) -> str:
    """The main figures, a line each."""
    told = checked.to_dict()
    lines = [f"{told['images']:,} images of {len(told['classes'])} classes"]
    lines += [f"{len(told[what]):,} {title.lower()}" for what, title, _ in TROUBLES if told[what]]
    for kind, plural in ((SAME_FILE, "the same file"), (SAME_PICTURE, "the same picture"), (NEAR, "near copies")):
        own = [group for group in checked.groups if group.kind == kind]
        leaks = sum(group.leaks for group in own)
        if own:
            lines.append(f"{len(own):,} groups of {plural}, {leaks:,} of them in several parts")
    if checked.truths is not None:
        kind = "pixels" if checked.truths.regions else "objects"
        lines.insert(1, f"{int(checked.truths.counts.sum()):,} {kind}" + (" with a class" if checked.truths.regions else ""))
        lines += [str(flaw) for flaw in checked.truths.flaws]
    return "\n".join(lines if len(lines) > 1 else [*lines, "nothing wrong found"])


def check_page(checked: Checked, *, allow_leaks: bool = False) -> str:
    """The HTML text."""
    told = checked.to_dict()
    inventory = checked.inventory
    return template("check.html", {}).render(
        title=f"Check of {Path(inventory.source).name or inventory.source}",
        place=inventory.source,
        version=examine()["metaformer"],
        took=duration(checked.seconds),
        told=told,
        parts=[part or "images" for part in inventory.named],
        cards=_cards(checked),
        errors=checked.errors(leaks=not allow_leaks),
        groups=[_shown(checked, group) for group in checked.groups[:GROUPS]],
        more_groups=max(0, len(checked.groups) - GROUPS),
        troubles=[(title, why, checked.problems(what)[:ROWS], len(told[what])) for what, title, why in TROUBLES if told[what]],
        classes=_classes(checked),
        common=_shares([((wide, high), count) for wide, high, count in told["sizes"]["common"]]),
        aspects=_shares([((_between(i),), count) for i, count in enumerate(told["sizes"]["aspects"])]),
        preview=_preview(checked),
        truth=_truth(checked),
    )


@dataclass(frozen=True)
class TruthShown:
    """What the page tells of objects or regions."""

    what: str
    rows: list[tuple[str, str, list[tuple[int, float]]]]
    """Class, its colour, and for each part the count and its share of the part's largest."""
    sizes: list[tuple[object, ...]]
    sides: list[float]
    crowd: int
    pictures: list[tuple[str, str]]
    """Address and name."""


def _truth(checked: Checked) -> TruthShown | None:
    truths = checked.truths
    if truths is None:
        return None
    most = truths.counts.max(1, initial=1).tolist()
    rows = [
        (name, "#{:02x}{:02x}{:02x}".format(*colour), [(n, n / top) for n, top in zip(own, most, strict=True)])
        for name, colour, own in zip(truths.classes, palette(len(truths.classes)), truths.counts.T.tolist(), strict=True)
    ]
    told = truths.sizes()
    pictures = [
        pair for scenes in truths.scenes.values() for pair in _pictures(scenes, PICTURES // len(truths.scenes), truths.classes)
    ]
    sizes = [] if truths.regions else _shares([((name, about), told[name]) for name, about in SIZES])
    return TruthShown("pixels" if truths.regions else "objects", rows, sizes, told["sides"], int(truths.crowd.sum()), pictures)


def _pictures(scenes: Scenes, most: int, classes: tuple[str, ...]) -> list[tuple[str, str]]:
    """Address and name of pictures of images spread over those there are; those that cannot be read are told elsewhere."""
    found: list[tuple[str, str]] = []
    for i in np.unique(np.linspace(0, len(scenes) - 1, min(most, len(scenes))).astype(int)).tolist():
        try:
            found.append((embedded(truth_of(scenes.scene(i), classes, side=SIDE)), scenes.names[i]))
        except ValueError:
            continue
    return found


def _cards(checked: Checked) -> list[tuple[str, str, str, bool]]:
    """Name, figure, what it means, and whether it is bad."""
    groups = {kind: [group for group in checked.groups if group.kind == kind] for kind in (SAME_FILE, SAME_PICTURE, NEAR)}
    exact = groups[SAME_FILE] + groups[SAME_PICTURE]
    torn = sum(len(group.labels) > 1 for group in checked.groups)
    ends = len(checked.problems(TRUNCATED))
    leaked = checked.leaked()
    disagreeing = [("Labels that disagree", f"{torn:,}", "groups of copies with several labels", torn > 0)]
    return [
        ("Leaks", f"{leaked:,}", "images that judge and have a copy in another part", leaked > 0),
        ("Exact copies", f"{sum(len(g.members) - 1 for g in exact):,}", f"more than once, in {len(exact):,} groups", False),
        ("Near copies", f"{len(groups[NEAR]):,}", "groups of pictures that are nearly the same", False),
        *(disagreeing if checked.truths is None else ()),  # what is in nearly the same pictures may well differ
        ("Unreadable", f"{checked.unreadable:,}", f"without a picture, {ends:,} of them cut short", checked.unreadable > 0),
        ("Misnamed", f"{len(checked.problems(MISNAMED)):,}", "named after another format than theirs", False),
    ]


@dataclass(frozen=True)
class Shot:
    """A preview of an image with what is known of it."""

    source: str
    title: str
    label: str | None
    """None where it has objects or regions, which are shown."""
    part: str
    tiny: bool


def _tiles(checked: Checked, numbers: tuple[int, ...]) -> list[Shot]:
    inventory, labelled = checked.inventory, checked.truths is None
    return [
        Shot(
            source=address(checked.shots[i]),
            title=inventory.name(i),
            label=inventory.label(i) if labelled else None,
            part=inventory.part(i),
            tiny=_tiny(checked, i),
        )
        for i in numbers
        if i in checked.shots
    ]


def _tiny(checked: Checked, i: int) -> bool:
    """Whether its pixels are to be shown as squares."""
    return int(checked.survey.sizes[i].max()) < 96


def _shown(checked: Checked, group: Group) -> dict[str, Any]:
    about = [f"{len(group.members):,} images"]
    about += [f"in {' and '.join(group.parts)}"] if group.leaks else []
    about += ["labels disagree"] if checked.truths is None and len(group.labels) > 1 else []
    about += [f"{group.alike:.2f}"] if group.kind == NEAR else []
    tiles = _tiles(checked, group.members[:MEMBERS])
    return {"kind": group.kind, "leaks": group.leaks, "about": ", ".join(about), "tiles": tiles}


def _classes(checked: Checked) -> list[tuple[str, list[tuple[int, float]]]]:
    """Each class with its images in each part, and what share that is of the part's largest."""
    counts = checked.inventory.per_class()
    most = counts.max(1, initial=1).tolist()
    rows = zip(checked.inventory.classes, counts.T.tolist(), strict=True)
    return [(name, [(count, count / top) for count, top in zip(row, most, strict=True)]) for name, row in rows]


def _shares(rows: list[tuple[tuple[object, ...], int]]) -> list[tuple[object, ...]]:
    """What a row is called, its count, and what share that is of the largest."""
    most = max((count for _, count in rows), default=0) or 1
    return [(*called, count, count / most) for called, count in rows]


def _between(i: int) -> str:
    low, high = ASPECTS[i : i + 2]
    if low == 0:
        return f"under {high:.2g}"
    return f"{low:.2g} to {high:.2g}" if high < float("inf") else f"{low:.2g} and more"


def _preview(checked: Checked) -> list[tuple[str, list[Shot]]]:
    by_label: dict[str, list[int]] = {}
    for i in checked.previewed:
        by_label.setdefault(checked.inventory.label(i) or "no label", []).append(i)
    return [(label, _tiles(checked, tuple(numbers))) for label, numbers in by_label.items()]
