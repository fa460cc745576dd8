"""What a save in the middle of an epoch costs the training beside it.

python benchmarks/saving.py --model caformer_s18 --rounds 5
Each round times some steps without a save, then begins one and times the steps until it is on the disk. What these took
beyond as many usual steps is what the save cost: reported are its median and its share of a minute. The batch lies ready.
Then some saves while nothing trains, each of which is written when the next step could begin.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace

import torch

from metaformer.core.device import choose_device, keep_memory
from metaformer.data.batch import Batch
from metaformer.data.sources import open_data
from metaformer.recipes import SMALL
from metaformer.runs import create_run
from metaformer.train.checkpoint import Progress
from metaformer.train.loop import Fit
from metaformer.train.saver import Saver
from metaformer.train.train import prepare


def steps(fit: Fit, batch: Batch, saver: Saver, least: int) -> tuple[int, float]:
    """Steps and their seconds: `least` of them, and as many more as a save needs to be written."""
    done, began = 0, time.perf_counter()
    while done < least or saver.writing is not None:
        fit.step(batch, 1e-4)[0].item()
        saver.due()
        done += 1
    return done, time.perf_counter() - began


def main() -> None:
    """Prints a JSON record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="caformer_s18")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=8, help="timed without a save in each round, and at least with one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", help="on the disk to measure; by default a temporary one")
    args = parser.parse_args()

    keep_memory()  # as training does
    recipe = replace(SMALL, model=args.model, data="digits", image_size=args.size, batch=args.batch, ema=0.999)
    recipe = replace(recipe, device=args.device, precision="fp32" if args.device == "cpu" else "bf16")
    fit = prepare(recipe, open_data("digits"), None)
    batch, progress = next(iter(fit.train.epoch())), Progress()
    waiting: list[float] = []
    alone: list[float] = []
    cost: list[float] = []
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        run = create_run(fit.recipe, folder, "run")
        with Saver(run, fit.about) as saver:
            fit.state.model.train()
            steps(fit, batch, saver, args.steps)
            for done in range(args.rounds + 1):
                count, usual = steps(fit, batch, saver, args.steps)
                began = time.perf_counter()
                saver.begin(fit.state, progress)
                waited = time.perf_counter() - began
                more, beside = steps(fit, batch, saver, args.steps)
                if done:  # the first save makes room in memory
                    waiting.append(waited)
                    cost.append(waited + beside - more * usual / count)
            for _ in range(args.rounds):
                began = time.perf_counter()
                saver.save(fit.state, progress)
                alone.append(time.perf_counter() - began)
        size = sum(file.stat().st_size for file in run.last.iterdir())
    record = {
        "megabytes": round(size / 1e6),
        "seconds": {
            "until training goes on": sorted(waiting),
            "a save while nothing trains": sorted(alone),
            "lost by a save beside training": sorted(cost),
            "a usual step": usual / count,
        },
        "lost_percent_if_saved_every_minute": 100 * statistics.median(cost) / 60,
        "model": args.model,
        "batch": args.batch,
        "device": str(choose_device(args.device)),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
