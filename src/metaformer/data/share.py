"""Which images of a batch are whose, where several processes learn from it together."""

from metaformer.core.ranks import Ranks


def places(batch: int, ranks: Ranks, *, pairs: bool) -> list[int]:
    """Places in a batch that are this rank's, in order; of a small batch perhaps none.

    They lie scattered, so that each micro-batch that the batch is cut into is shared evenly too. With `pairs` the first
    place goes with the last one, the second with the last but one: mixing puts them together, whoever computes it.
    """
    return [place for place in range(batch) if (min(place, batch - 1 - place) if pairs else place) % ranks.count == ranks.rank]


def cuts(batch: int, mine: list[int], parts: int) -> tuple[int, ...]:
    """How many of the places that are `mine` lie in each micro-batch; as many numbers on every rank, some perhaps 0."""
    size = -(-batch // parts)
    return tuple(sum(at <= place < at + size for place in mine) for at in range(0, batch, size))
