"""Our input pipeline beside timm's loader: the papers' ImageNet recipe on the same photographs, on the processor.

python benchmarks/input_pipeline.py FOLDER      a folder of JPEGs, at any depth
Crops, flips, RandAugment, erasing, mixup and CutMix as the recipe of caformer_s18.in1k has them; timm's loader is set up as
timm's own training does. The two take turns; an image counts when it is ready for the model, normalised and mixed.
"""

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from timm.data import FastCollateMixup, ImageDataset, auto_augment, create_loader
from torch import Tensor

from metaformer.data.augment import Augment, View, posterize
from metaformer.data.loader import Loader
from metaformer.data.part import faster
from metaformer.data.preprocess import Preprocess
from metaformer.data.splits import Encoded
from metaformer.recipes import ROWS

RECIPE = ROWS["caformer_s18.in1k"].recipe
PREPROCESS = Preprocess(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
Epoch = Callable[[], Iterator[Tensor]]
"""The images of an epoch, batch by batch."""


def ours(paths: list[Path], batch: int, workers: int) -> Epoch:
    """As metaformer trains."""
    split = Encoded(paths, torch.arange(len(paths)), 3)
    view = View(PREPROCESS, RECIPE.crop, RECIPE.randaugment, RECIPE.seed)
    augment = Augment.of(RECIPE, mirrors=True)
    loader = Loader(split, batch, PREPROCESS, torch.device("cpu"), workers=workers, view=view, augment=augment)
    epochs = iter(range(10**6))
    return lambda: (mixed.images for mixed in loader.epoch(next(epochs)))


def timms(folder: str, batch: int, workers: int) -> Epoch:
    """As timm's train.py, where images are mixed while they are collated; but for a call that Pillow 13 refuses."""
    auto_augment.NAME_TO_OP["PosterizeIncreasing"] = posterize
    mix = FastCollateMixup(RECIPE.mixup, RECIPE.cutmix, label_smoothing=RECIPE.label_smoothing, num_classes=1000)
    loader = create_loader(
        ImageDataset(folder), (3, PREPROCESS.size, PREPROCESS.size), batch, is_training=True,
        re_prob=RECIPE.erase, re_mode="pixel", scale=(RECIPE.crop, 1.0), hflip=RECIPE.flip, color_jitter=0.0,
        auto_augment=RECIPE.randaugment, interpolation="random", mean=PREPROCESS.mean, std=PREPROCESS.std,
        num_workers=workers, collate_fn=mix, device=torch.device("cpu"), persistent_workers=workers > 0,
    )  # fmt: skip
    return lambda: (images for images, _ in loader)


def busy() -> float:
    """Seconds that this process and its workers have kept a core busy."""
    ticks = 0
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def measured(epoch: Epoch, epochs: int) -> tuple[float, float]:
    """Images per second, and per second of a core."""
    images, clock, cores = 0, time.perf_counter(), busy()
    for _ in range(epochs):
        images += sum(len(batch) for batch in epoch())
    return images / (time.perf_counter() - clock), images / (busy() - cores)


def summary(values: list[float]) -> dict[str, float]:
    """Median and, by 2,000 resamplings of the rounds, its 95 % interval."""
    drawn = np.median(np.random.default_rng(0).choice(values, (2000, len(values))), 1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return {"median": statistics.median(values), "low": float(low), "high": float(high)}


def compared(mine: Epoch, theirs: Epoch, rounds: int, epochs: int) -> dict[str, Any]:
    """Both by turns, after one round that warms up."""
    speeds: dict[str, list[tuple[float, float]]] = {"ours": [], "timm": []}
    for done in range(rounds + 1):
        turns = [("ours", mine), ("timm", theirs)]
        for name, epoch in turns if done % 2 else turns[::-1]:
            speed = measured(epoch, epochs)
            if done:
                speeds[name].append(speed)
    record: dict[str, Any] = {}
    for at, what in enumerate(("images_per_second", "images_per_core_second")):
        pairs = list(zip(*([speed[at] for speed in speeds[name]] for name in speeds), strict=True))
        columns = {"ours": [a for a, _ in pairs], "timm": [b for _, b in pairs], "ratio": [a / b for a, b in pairs]}
        record[what] = {name: summary(values) for name, values in columns.items()}
    return record


def spread(epoch: Epoch, epochs: int) -> dict[str, list[float]]:
    """Mean and deviation by channel of what comes out, and the mean step from a pixel to its neighbour."""
    images = torch.cat([batch for _ in range(epochs) for batch in epoch()])
    return {
        "mean": images.mean((0, 2, 3)).tolist(),
        "std": images.std((0, 2, 3)).tolist(),
        "step": images.diff(dim=3).abs().mean((0, 2, 3)).tolist(),
    }


def main() -> None:
    """Prints a JSON record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--epochs", type=int, default=2, help="of each round")
    parser.add_argument("--batch", type=int, default=50, help="a part of the number of images, and even")
    args = parser.parse_args()

    torch.set_num_threads(1)
    paths = sorted(path.resolve() for path in args.folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    record: dict[str, Any] = {"workers": {}}
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:  # timm wants a folder for each class
            Path(folder, path.stem).mkdir()
            Path(folder, path.stem, path.name).symlink_to(path)
        for workers in args.workers:
            both = ours(paths, args.batch, workers), timms(folder, args.batch, workers)
            record["workers"][workers] = compared(*both, args.rounds, args.epochs)
            if not workers:
                record["outputs"] = {name: spread(epoch, 5) for name, epoch in zip(("ours", "timm"), both, strict=True)}
            del both
    versions = {"torch": torch.__version__, "timm": timm.__version__, "pillow": Image.__version__}
    versions["simplejpeg"] = version("simplejpeg") if faster() else "none"
    record |= {"images": len(paths), "rounds": args.rounds, "epochs": args.epochs, "batch": args.batch, "versions": versions}
    print(json.dumps(record | {"machine": platform.processor() or platform.machine()}, indent=2))


if __name__ == "__main__":
    main()
