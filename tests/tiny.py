"""A data set and a model so small that a test can train: drawn here, written as Fashion-MNIST's files are."""

import gzip
import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from metaformer import cli
from metaformer.config import Recipe
from metaformer.core.spec import OWN
from metaformer.data.sources import open_data
from metaformer.runs import Run
from metaformer.train.hold import reopen
from metaformer.train.loop import Fit
from metaformer.train.train import go_on, start

CHANGES = {"dims": "(16, 16, 32, 32)", "depths": "(1, 1, 1, 1)"}
QUICK: dict[str, Any] = {
    "image_size": 8, "batch": 32, "epochs": 2, "lr": 5e-3, "warmup_epochs": 0.5, "precision": "fp32", "changes": CHANGES,
}  # fmt: skip
"""Settings with which an epoch of three steps takes a twentieth of a second."""


def write_idx(path: Path, array: np.ndarray[Any, Any]) -> None:
    """The IDX format of bytes, gzipped if the name says so."""
    head = bytes((0, 0, 8, array.ndim)) + b"".join(int(length).to_bytes(4, "big") for length in array.shape)
    raw = head + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


def write_fashion(folder: Path, train: int = 96, val: int = 40) -> str:
    """Ten easy classes, a bright patch in a place of its own over noise; returns what `data=` takes."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.RandomState(0)
    for prefix, count in (("train", train), ("t10k", val)):
        labels = np.arange(count) % 10
        images = random.randint(0, 100, (count, 28, 28))
        for image, label in zip(images, labels, strict=True):
            top, left = label // 5 * 14, label % 5 * 5
            image[top : top + 14, left : left + 6] += 150
        write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", labels)
    return f"fashion-mnist:{folder}"


PLACES = {"left": (slice(None), slice(0, 4)), "right": (slice(None), slice(8, 12)), "top": (slice(0, 4), slice(None))}


def write_several(folder: Path, train: int = 96, val: int = 40) -> str:
    """Pictures of 12 pixels with none to three bright sides, each a label; returns the path of their CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.RandomState(0)
    lines = ["path,label,split"]
    for i in range(train + val):
        labels = [name for name in PLACES if random.rand() < 0.4]
        image = random.randint(0, 100, (12, 12)).astype(np.uint8)
        for name in labels:
            image[PLACES[name]] += 75
        Image.fromarray(image).save(folder / f"{i}.png")
        lines.append(f"{i}.png,{'|'.join(labels)},{'train' if i < train else 'val'}")
    (folder / "sides.csv").write_text("\n".join(lines) + "\n")
    return str(folder / "sides.csv")


def as_single(table: str) -> str:
    """A copy of a table of several labels in which no image is without one: each text is then a class."""
    made = Path(table).with_name("single.csv")
    made.write_text(Path(table).read_text().replace(",,", ",none,"))
    return str(made)


def begin(recipe: Recipe, root: Path) -> Run:
    """Trains it as `root/run`."""
    return start(recipe, open_data(recipe.data), None, name="run", root=root, quiet=True)


def finish(path: Path) -> Run:
    """Goes on with a run in a process whose random generators stand elsewhere."""
    torch.manual_seed(999)
    run = reopen(path, quiet=True)
    return go_on(run, open_data(run.recipe.data), None, quiet=True)


def pairs(settings: dict[str, Any]) -> list[str]:
    """The settings as a command line writes them."""
    flat = {key: value for key, value in settings.items() if key != "changes"}
    flat |= {f"model.{key}": text for key, text in settings.get("changes", {}).items()}
    return [f"{key}={value}" for key, value in flat.items()]


def command(*arguments: object) -> tuple[int | str | None, str, str]:
    """Exit code, output and errors of `metaformer ARGUMENTS`, in this process. An escaping exception is a traceback."""
    out, err = io.StringIO(), io.StringIO()
    before = sys.argv
    sys.argv = ["metaformer", *map(str, arguments)]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            cli.main()
    except SystemExit as end:
        return end.code or 0, out.getvalue(), err.getvalue()
    finally:
        sys.argv = before
    return 0, out.getvalue(), err.getvalue()


@contextmanager
def one_core() -> Iterator[None]:
    """One thread: tiny tensors are not worth more, and sums then have one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def forget(folder: Path) -> None:
    """Code of one's own in a folder is as in another process: not imported yet."""
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(f"{folder}/"):
            del sys.modules[name]
    OWN.clear()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two state dicts are equal to the bit."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def weights(folder: Path) -> dict[str, Tensor]:
    """What is in a folder's model.safetensors."""
    return load_file(folder / "model.safetensors")


def timeless(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Metrics without what a clock decides."""
    return [{key: value for key, value in line.items() if key not in ("seconds", "images_per_second")} for line in metrics]


class Stopped(BaseException):
    """Nobody catches it: as if the process had been killed."""


class Killer:
    """Stops the process, so to speak, just before the call `at` of those that change a disk."""

    CALLS = (
        *((Path, name) for name in ("mkdir", "open", "rename", "replace", "write_text")),
        (shutil, "rmtree"), (os, "fsync"), (os, "ftruncate"), (torch, "save"),
    )  # fmt: skip

    def __init__(self, patch: pytest.MonkeyPatch, at: int) -> None:
        self.left = at
        for owner, name in self.CALLS:
            patch.setattr(owner, name, self.counted(getattr(owner, name)))

    def counted(self, call: Callable[..., object]) -> Callable[..., object]:
        def counting(*arguments: object, **options: object) -> object:
            self.left -= 1
            if self.left < 0:
                raise Stopped
            return call(*arguments, **options)

        return counting


def after_steps(monkeypatch: pytest.MonkeyPatch, steps: int, act: Callable[[], None]) -> None:
    """Does something when an optimizer step is done, once."""
    left, step = [steps], Fit.step

    def counted(self: Fit, *arguments: Any) -> Any:
        result = step(self, *arguments)
        left[0] -= 1
        if left[0] == 0:
            act()
        return result

    monkeypatch.setattr(Fit, "step", counted)


class Table(nn.Module):
    """Answers with logits (N, classes), by the number in each image's only pixel; notes how it was asked."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(logits.clone())
        self.asked: list[tuple[int, bool, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.asked.append((len(x), self.training, torch.is_grad_enabled()))
        return self.table[x[:, 0, 0, 0].long()]
