"""What an epoch takes beside its bare training steps: reading, augmenting, schedule, display, log and both saves.

python benchmarks/loop_overhead.py fashion-mnist:PATH
Bare are forward, backward, clipping and optimizer step on batches that lie ready. The two take turns on the same model;
reported are the medians and the share by which each round's epoch is longer. Judging is of one batch only.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from metaformer.core.device import keep_memory
from metaformer.data.sources import open_data
from metaformer.data.splits import Images
from metaformer.recipes import SMALL
from metaformer.runs import create_run
from metaformer.train.checkpoint import Progress
from metaformer.train.display import Display
from metaformer.train.loop import Fit
from metaformer.train.train import prepare


def bare(fit: Fit) -> float:
    """Seconds of an epoch's steps and nothing else."""
    ready = list(fit.train.epoch())
    fit.state.model.train()
    started = time.perf_counter()
    for batch in ready:
        loss, _, _ = fit.step(batch, fit.recipe.lr)
    loss.item()
    return time.perf_counter() - started


def whole(fit: Fit, folder: Path) -> float:
    """Seconds of an epoch of the product, with its saves."""
    run = create_run(fit.recipe, folder, None)
    started = time.perf_counter()
    with Display(run.path / "log.txt", fit.steps, 0, quiet=True) as display:
        fit(run, Progress(), display)
    return time.perf_counter() - started


def main() -> None:
    """Prints a JSON record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="such as digits or fashion-mnist:PATH")
    parser.add_argument("--model", default="caformer_t6")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=12_800, help="of an epoch")
    args = parser.parse_args()

    keep_memory()  # as training does
    recipe = replace(SMALL, model=args.model, data=args.data, epochs=1)
    data = open_data(args.data)
    train, val = data.train, data.val
    assert isinstance(train, Images)
    assert isinstance(val, Images)
    few = Images(train.pixels[: args.images], train.labels[: args.images])
    fit = prepare(recipe, replace(data, train=few, val=Images(val.pixels[:64], val.labels[:64])), None)
    pairs: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for done in range(args.rounds + 1):
            pair = whole(fit, Path(folder)), bare(fit)
            if done:  # the first round warms up
                pairs.append(pair)
    extra = sorted(100 * (ours / steps - 1) for ours, steps in pairs)
    record = {
        "seconds": {"epoch": statistics.median(ours for ours, _ in pairs), "steps": statistics.median(t for _, t in pairs)},
        "overhead_percent": {"median": statistics.median(extra), "min": extra[0], "max": extra[-1]},
        "rounds": args.rounds,
        "steps": fit.steps,
        "model": args.model,
        "precision": fit.recipe.precision,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
