"""The classes of ImageNet in the order of published weights: WordNet's numbers, and names for people.

Both come from the tables inside timm (Apache-2.0), read as files: timm itself is not imported.
"""

from collections import Counter
from functools import cache
from importlib.util import find_spec
from pathlib import Path

FILES = {1000: "imagenet_synsets.txt", 21841: "imagenet22k_synsets.txt"}
SUBSETS = {"imagenet-a": "imagenet_a_synsets.txt", "imagenet-r": "imagenet_r_synsets.txt"}
"""Test sets of 200 of the 1000 classes: Hendrycks et al., arXiv 1907.07174 and 2006.16241."""


@cache
def synsets(num_classes: int) -> tuple[str, ...]:
    """WordNet's numbers, such as n01440764, of ImageNet-1K (1000 classes) or ImageNet-21K (21841), sorted."""
    return tuple(_lines(FILES[num_classes]))


@cache
def class_names(num_classes: int) -> tuple[str, ...]:
    """A name for each class, none twice: the first word of the synset; all its words where classes share the first.

    None at all for other numbers than ImageNet's.
    """
    if num_classes not in FILES:
        return ()
    words = dict(line.split("\t", 1) for line in _lines("imagenet_synset_to_lemma.txt"))
    numbers = synsets(num_classes)
    short = [words[number].split(",")[0].strip() for number in numbers]
    often = Counter(short)
    longer = [name if often[name] == 1 else words[number].strip() for name, number in zip(short, numbers, strict=True)]
    often = Counter(longer)
    return tuple(f"{name} ({n})" if often[name] > 1 else name for name, n in zip(longer, numbers, strict=True))


@cache
def rows_by_synset() -> tuple[int | None, ...]:
    """For each class of ImageNet-1K its place among the 21841, None where it has none: 850, the teddy bear."""
    places = {synset: place for place, synset in enumerate(synsets(21841))}
    return tuple(places.get(synset) for synset in synsets(1000))


@cache
def subset(name: str) -> tuple[int, ...]:
    """The places among ImageNet-1K's classes of those that a test set of SUBSETS has."""
    places = {synset: place for place, synset in enumerate(synsets(1000))}
    return tuple(sorted(places[synset] for synset in _lines(SUBSETS[name])))


def real_labels() -> Path:
    """The file of ReaL's labels of the validation set, all that a person sees on each image (arXiv 2006.07159)."""
    return _folder() / "imagenet_real_labels.json"


def _lines(file: str) -> list[str]:
    return (_folder() / file).read_text(encoding="utf-8").splitlines()


def _folder() -> Path:
    found = find_spec("timm")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "data" / "_info"
