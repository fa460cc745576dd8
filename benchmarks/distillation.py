"""What a teacher is worth: timm:resnet18, then poolformerv2_t6 with and without it, the same images, epochs and seeds.

python benchmarks/distillation.py fashion-mnist:PATH --images 12000 --epochs 6
A finished arm is kept in OUT/distillation.json, an unfinished one goes on. Top-1 is the last epoch's on the held-out images,
so nothing is picked by them. Differences are paired by seed, their 95 % intervals Student's.
"""

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from scipy import stats

from metaformer.config import Recipe
from metaformer.data.dataset import Data
from metaformer.data.sources import open_data
from metaformer.data.splits import subset
from metaformer.recipes import SMALL
from metaformer.runs import Run, is_run, write_text
from metaformer.tasks.metrics import wilson
from metaformer.train.train import go_on, start

PLAIN = "labels alone"


def arms(base: Recipe, teacher: Path, teacher_epochs: int, kinds: list[str], seeds: int) -> dict[str, Recipe]:
    """Name → recipe, the teacher first; the arms of a seed one after the other."""
    first = replace(base, model="timm:resnet18", epochs=teacher_epochs, lr=1e-3, label_smoothing=0.0)
    made = {"teacher": first}
    for seed in range(seeds):
        student = replace(base, seed=seed)
        made[f"{PLAIN} {seed}"] = student
        made |= {f"{kind} {seed}": replace(student, teacher=str(teacher), distill=kind) for kind in kinds}
    return made


def finished(recipe: Recipe, data: Data, folder: Path) -> Run:
    """The run in a folder, begun or gone on with."""
    if is_run(folder):
        run = Run(folder)
        return run if run.finished else go_on(run, data, None, quiet=True)
    return start(recipe, data, None, name=folder.name, root=folder.parent, quiet=True)


def interval(values: list[float]) -> tuple[float, float]:
    """Mean, and half the width of Student's 95 % interval."""
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return statistics.mean(values), float(half)


def table(done: dict[str, dict[str, Any]], kinds: list[str], seeds: int, judged: int) -> str:
    """Markdown: top-1 by seed, its mean, and the gain over the labels alone."""
    top1 = {kind: [done[f"{kind} {seed}"]["top1"] for seed in range(seeds)] for kind in (PLAIN, *kinds)}
    low, high = wilson(done["teacher"]["top1"] / 100, judged)
    lines = ["| learns from | top-1 by seed, % | mean, % | gain, points (95 %) | training, s |", "|---|---|---:|---:|---:|"]
    for kind, values in top1.items():
        gains = [value - plain for value, plain in zip(values, top1[PLAIN], strict=True)]
        gain = "–" if kind == PLAIN else "{:+.2f} ± {:.2f}".format(*interval(gains))
        seconds = statistics.mean(done[f"{kind} {seed}"]["seconds"] for seed in range(seeds))
        name = kind if kind == PLAIN else f"labels and teacher, {kind}"
        by_seed = ", ".join(f"{value:.2f}" for value in values)
        lines.append(f"| {name} | {by_seed} | {statistics.mean(values):.2f} | {gain} | {seconds:.0f} |")
    own = f"The teacher: {done['teacher']['top1']:.2f} % ({100 * low:.2f} to {100 * high:.2f})"
    return "\n".join([*lines, "", f"{own}, {done['teacher']['seconds']:.0f} s of training."])


def main() -> None:
    """Prints a line for each arm, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="such as fashion-mnist:PATH")
    parser.add_argument("--out", type=Path, default=Path("runs/distillation"), help="where the runs and figures go")
    parser.add_argument("--images", type=int, default=12_000, help="of the training part, spread over it, to learn from")
    parser.add_argument("--epochs", type=int, default=6, help="of each student")
    parser.add_argument("--teacher-epochs", type=int, default=6)
    parser.add_argument("--kinds", default="soft", help="soft, hard, or both with a comma")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()

    data = open_data(args.data)
    spread = torch.arange(args.images) * len(data.train) // args.images
    data = replace(data, train=subset(data.train, spread))
    kinds = args.kinds.split(",")
    base = replace(
        SMALL, model="poolformerv2_t6", data=args.data, epochs=args.epochs, batch=128, precision="bf16", warmup_epochs=1.0
    )
    file = args.out / "distillation.json"
    args.out.mkdir(parents=True, exist_ok=True)
    done: dict[str, dict[str, Any]] = json.loads(file.read_text()) if file.exists() else {}
    for name, recipe in arms(base, args.out / "teacher", args.teacher_epochs, kinds, args.seeds).items():
        if name not in done:
            metrics = finished(recipe, data, args.out / name.replace(" ", "-")).metrics
            done[name] = {"top1": metrics[-1]["top1"], "seconds": sum(line["seconds"] for line in metrics)}
            write_text(file, json.dumps(done, indent=2) + "\n")
        print(f"{name}: {done[name]['top1']:.2f} %, {done[name]['seconds']:.0f} s", flush=True)
    print("\n" + table(done, kinds, args.seeds, len(data.val)))
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {args.images:,} images, {args.epochs} epochs")


if __name__ == "__main__":
    main()
