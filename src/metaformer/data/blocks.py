"""Images in large files, each file a block that is best read as a whole; and an order of images that respects that."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaformer.data.dataset import Taken
from metaformer.data.store import Stored, kept, opened, read_at, read_kept

WINDOW = 20_000
"""Images over which an epoch is shuffled where they do not lie on this machine, file by file."""


class Shard(Protocol):
    """Images of one file."""

    @property
    def near(self) -> bool:
        """Whether any image is read as fast as the next one."""
        ...

    def __len__(self) -> int: ...

    def read(self, i: int) -> bytes:
        """One image file. Raises OSError where it cannot be had, ValueError where the shard is damaged."""
        ...


@dataclass(frozen=True, eq=False)
class Spans:
    """Images that lie in a file as they are: the members of a tar."""

    stored: Stored
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]

    @property
    def near(self) -> bool:
        """Whether the file is here."""
        return not self.stored.remote

    def __len__(self) -> int:
        return len(self.starts)

    def read(self, i: int) -> bytes:
        """The bytes of a member."""
        return read_at(self.stored, int(self.starts[i]), int(self.sizes[i]))


@dataclass(frozen=True)
class Column:
    """Images in a column of a Parquet file; when the first is wanted, all are laid out one after the other in a copy."""

    stored: Stored
    column: str
    rows: int
    near: bool = False

    def __len__(self) -> int:
        return self.rows

    def read(self, i: int) -> bytes:
        """The bytes in a row."""
        start, end = np.frombuffer(read_kept(self._laid_out, 8 * i, 16), np.int64).tolist()
        return read_kept(self._laid_out, start, end - start)

    def _laid_out(self) -> Path:
        return kept(f"{self.stored.key}.rows", self.stored.size or 0, self._lay_out)

    def _lay_out(self, part: Path) -> None:
        """Writes where each image starts and the last one ends, as numbers of 8 bytes, and then the images."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        edges, row = np.full(self.rows + 1, 8 * (self.rows + 1), np.int64), 0
        try:
            with opened(self.stored) as source, pq.ParquetFile(source) as rows, part.open("wb") as out:
                out.write(edges.tobytes())
                for batch in rows.iter_batches(64, columns=[self.column]):
                    images = batch.column(0)
                    for image in images.field("bytes") if pa.types.is_struct(images.type) else images:
                        out.write(image.as_py() or b"")
                        row += 1
                        edges[row] = out.tell()
                out.seek(0)
                out.write(edges.tobytes())
        except pa.ArrowException as error:
            raise ValueError(f"{self.stored.place} is damaged ({' '.join(str(error).split())[:160]})") from error


@dataclass(frozen=True)
class Whole:
    """A file elsewhere that is an image, and nothing else."""

    stored: Stored
    near: bool = False

    def __len__(self) -> int:
        return 1

    def read(self, i: int) -> bytes:
        """All of its bytes."""
        return read_at(self.stored, 0, -1)


class Shards(Sequence[Path | bytes]):
    """The images of several shards, one after the other."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards, self.ends = tuple(shards), np.cumsum([len(shard) for shard in shards])

    @property
    def near(self) -> bool:
        """Whether any image is read as fast as the next one."""
        return all(shard.near for shard in self.shards)

    def __len__(self) -> int:
        return int(self.ends[-1]) if self.shards else 0

    @overload
    def __getitem__(self, i: int) -> bytes: ...
    @overload
    def __getitem__(self, i: slice) -> Taken: ...
    def __getitem__(self, i: int | slice) -> bytes | Taken:
        if isinstance(i, slice):
            return Taken(self, range(*i.indices(len(self))))
        if not 0 <= i < len(self):
            raise IndexError(i)
        shard = int(np.searchsorted(self.ends, i, side="right"))
        return self.shards[shard].read(i - int(self.ends[shard]) + len(self.shards[shard]))


def blocks_of(items: Sequence[Path | bytes]) -> tuple[Tensor, bool] | None:
    """The number of the file that each image lies in (N,), and whether all are near; None where none are in shards."""
    if isinstance(items, Taken):
        found = blocks_of(items.items)
        return None if found is None else (found[0][items.numbers], found[1])
    if not isinstance(items, Shards):
        return None
    lengths = torch.tensor([len(shard) for shard in items.shards])
    return torch.arange(len(lengths)).repeat_interleave(lengths), items.near


def in_window(samples: Tensor, blocks: Tensor, window: int, draw: torch.Generator) -> Tensor:
    """Shuffled samples in an order in which few blocks are needed at a time; `blocks` (N,) says where each sample lies.

    Blocks come in random order, the samples of each as they are in `samples`; each is then put off by up to `window` places,
    evenly. A batch so comes from `window` places that follow each other. At the beginning and the end of an epoch from fewer.
    """
    turn = torch.randperm(int(blocks.max()) + 1, generator=draw)
    near = samples[turn[blocks[samples]].argsort(stable=True)]
    late = torch.rand(len(near), generator=draw, dtype=torch.float64) * window
    return near[(torch.arange(len(near)) + late).argsort(stable=True)]


def first_blocks(blocks: Tensor, counts: Tensor, least: int) -> Tensor:
    """(N,) which samples lie in some blocks, drawn evenly, that have at least so many of the samples that count."""
    order = torch.randperm(int(blocks.max()) + 1, generator=torch.Generator().manual_seed(0))
    held = torch.bincount(blocks[counts], minlength=len(order))[order].cumsum(0)
    taken = order[: int((held < least).sum()) + 1]
    return torch.isin(blocks, taken)
