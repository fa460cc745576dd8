"""What the classes of ImageNet are called, in the order of the published classifiers, from the lists that come with timm."""

from functools import cache

SUBSETS = {1000: "imagenet-1k", 21841: "imagenet-22k"}
"""Number of classes → timm's name of the list. The 21841 are those of the 2011 release, by synset."""


@cache
def class_names(num_classes: int) -> tuple[str, ...] | None:
    """WordNet's words for each class of ImageNet-1K (1000) or ImageNet-21K (21841); None for any other number.

    Two classes can have the same words: 134 and 517 of ImageNet-1K are both a crane.
    """
    if num_classes not in SUBSETS:
        return None
    from timm.data.imagenet_info import ImageNetInfo

    return tuple(ImageNetInfo(SUBSETS[num_classes]).label_descriptions())


@cache
def synsets(num_classes: int) -> tuple[str, ...]:
    """WordNet's numbers of the classes, such as n01440764."""
    from timm.data.imagenet_info import ImageNetInfo

    return tuple(ImageNetInfo(SUBSETS[num_classes]).label_names())


@cache
def rows_by_synset() -> tuple[int | None, ...]:
    """For each class of ImageNet-1K its place among the 21841, None where it has none: 850, the teddy bear."""
    places = {synset: place for place, synset in enumerate(synsets(21841))}
    return tuple(places.get(synset) for synset in synsets(1000))
