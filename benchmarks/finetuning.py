"""Fine-tuning against training from scratch: cats and dogs from 250 images of each, after the other eight classes of CIFAR-10.

python benchmarks/finetuning.py cifar10:PATH --out FOLDER
A caformer_t6 learns the eight classes. Then, for each seed, other 500 training images of the two held-out classes teach it in
six ways, and all their 2,000 test images judge it once, after the last epoch: nothing is chosen by them. The folder keeps the
pre-trained run, and results.json with every arm of every seed: what is there is not done again, so a cut loses one arm.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from metaformer.config import Recipe
from metaformer.core.lora import plain_state
from metaformer.data.batch import generator
from metaformer.data.dataset import Data
from metaformer.data.loader import Loader
from metaformer.data.sources import open_data
from metaformer.data.splits import Encoded, Images, subset
from metaformer.lab.probe import features, linear_probe, neighbours
from metaformer.recipes import SMALL
from metaformer.runs import Run, create_run, open_run, write_text
from metaformer.train.checkpoint import Progress
from metaformer.train.display import Display
from metaformer.train.train import go_on, prepare, start

CHANGES = {"mixers": "(SepConv(kernel=3), SepConv(kernel=3), Attention(), Attention())", "head": "LinearHead()"}
"""Of caformer_t6: kernels of 3, which a processor runs faster, and a linear head, for the published one is a tenth of all."""
HELD = ("cat", "dog")
TUNED = replace(SMALL, changes=CHANGES, epochs=20, batch=32, warmup_epochs=1.0, precision="bf16", workers=0)
ARMS: dict[str, dict[str, Any]] = {
    "from scratch": {"lr": 5e-4, "learn": "all"},
    "full": {"lr": 1e-3, "learn": "all"},
    "LoRA": {"lr": 3e-3, "learn": "lora:4"},
    "head only": {"lr": 3e-3, "learn": "head"},
}
"""What trains: settings beside those of TUNED; the better of two rates each, on training images of another seed."""
PROBES = ("linear probe", "k-NN")


def only(split: Images | Encoded, classes: list[int]) -> Images | Encoded:
    """The images of some classes, which are then called 0, 1, ... in that order."""
    places = torch.full((int(split.labels.max()) + 1,), -1)
    places[classes] = torch.arange(len(classes))
    kept = subset(split, (places[split.labels] >= 0).nonzero().flatten())
    return replace(kept, labels=places[kept.labels])


def of_classes(data: Data, names: list[str]) -> Data:
    """The part of a data set that shows these classes."""
    classes = [data.classes.index(name) for name in names]
    return replace(data, train=only(data.train, classes), val=only(data.val, classes), classes=tuple(names))


def drawn(data: Data, shots: int, *key: int | str) -> Data:
    """As many training images of each class, drawn by the key."""
    draw = generator(*key)
    order = torch.randperm(len(data.train), generator=draw)
    labels = data.train.labels[order]
    keep = torch.cat([order[labels == label][:shots] for label in range(len(data.classes))])
    return replace(data, train=subset(data.train, keep))


def pretrain(data: Data, source: str, epochs: int, out: Path) -> Run:
    """The run on the other classes, begun, gone on with or there already."""
    others = of_classes(data, [name for name in data.classes if name not in HELD])
    folder = out / "pretrained"
    if not (folder / "recipe.json").exists():
        recipe = replace(SMALL, changes=CHANGES, data=source, epochs=epochs, batch=128, precision="bf16", workers=0)
        return start(recipe, others, None, name=folder.name, root=out, quiet=False)
    run = open_run(folder)
    return run if run.finished else go_on(run, others, None, quiet=False)


def train_arm(recipe: Recipe, data: Data) -> dict[str, float]:
    """Top-1 after the last epoch and learning parameters, in percent; seconds of the processor that learning took."""
    glance = replace(data, val=subset(data.val, torch.arange(64)))  # what every epoch ends with; nothing follows from it
    fit = prepare(recipe, glance, None)
    model = fit.state.model
    with tempfile.TemporaryDirectory() as folder:
        run = create_run(fit.recipe, folder, "run")
        display = Display(run.path / "log.txt", fit.recipe.epochs * fit.steps, 0, quiet=True)
        began = time.process_time()
        fit(run, Progress(), display)
        seconds = time.process_time() - began
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    whole = sum(tensor.numel() for tensor in plain_state(model).values())
    judging = Loader(data.val, 250, fit.val.preprocess, torch.device("cpu"))
    top1 = fit.task.evaluate(model, judging.epoch()).top1
    return {"top1": top1, "learning": 100 * learning / whole, "seconds": seconds}


def probe_arms(recipe: Recipe, data: Data, seed: int) -> dict[str, dict[str, float]]:
    """The same of both probes; their seconds include the features of the training images."""
    fit = prepare(recipe, data, None)
    model, total = fit.state.model, sum(p.numel() for p in fit.state.model.parameters())

    def seen(split: Images | Encoded) -> Tensor:
        return features(model, Loader(split, 250, fit.val.preprocess, torch.device("cpu")))

    began = time.process_time()
    known, labels, classes = seen(data.train), data.train.labels, len(data.classes)
    shared = time.process_time() - began
    judged = seen(data.val)

    def timed(predict: Callable[[], Tensor], learning: int) -> dict[str, float]:
        began = time.process_time()
        right = predict() == data.val.labels
        seconds = shared + time.process_time() - began
        return {"top1": 100 * right.double().mean().item(), "learning": 100 * learning / total, "seconds": seconds}

    return {
        "linear probe": timed(
            lambda: linear_probe(known, labels, judged, classes, seed=seed)[0], classes * (known.shape[1] + 1)
        ),
        "k-NN": timed(lambda: neighbours(known, labels, judged, classes, k=20), 0),
    }


def interval(values: list[float]) -> str:
    """Mean and its 95 % interval by Student's t."""
    half = stats.t.ppf(0.975, len(values) - 1) * stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{fmean(values):.2f} ({fmean(values) - half:.2f} to {fmean(values) + half:.2f})"


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """Markdown: a row for each arm, over the seeds that have it; then full minus LoRA on the same images."""
    lines = ["| arm | top-1, mean (95 % interval) | parameters that learn | processor seconds |", "|---|---:|---:|---:|"]
    for arm in (*ARMS, *PROBES):
        found = [seed[arm] for seed in results.values() if arm in seed]
        if found:
            seconds = fmean(one["seconds"] for one in found)
            top1 = interval([one["top1"] for one in found])
            lines.append(f"| {arm} | {top1} | {found[0]['learning']:.2f} % | {seconds:.1f} |")
    pairs = [seed["full"]["top1"] - seed["LoRA"]["top1"] for seed in results.values() if {"full", "LoRA"} <= seed.keys()]
    return "\n".join([*lines, "", f"full − LoRA, in points: {interval(pairs)}"] if pairs else lines)


def main() -> None:
    """Prints the table after each seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="cifar10:PATH")
    parser.add_argument("--out", type=Path, default=Path("finetuning"))
    parser.add_argument("--epochs", type=int, default=16, help="of pre-training")
    parser.add_argument("--images", type=int, default=5000, help="of each class, to pre-train with")
    parser.add_argument("--shots", type=int, default=250, help="images of each held-out class")
    parser.add_argument("--tuning-epochs", type=int, default=TUNED.epochs)
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    data = open_data(args.data)
    run = pretrain(drawn(data, args.images, "pre-training"), args.data, args.epochs, args.out)

    file = args.out / "results.json"
    results: dict[str, dict[str, dict[str, float]]] = json.loads(file.read_text()) if file.exists() else {}
    for seed in range(args.seeds):
        few = drawn(of_classes(data, list(HELD)), args.shots, seed, "few")
        done = results.setdefault(str(seed), {})
        base = replace(TUNED, data=args.data, seed=seed, epochs=args.tuning_epochs)
        for arm, settings in ARMS.items():
            if arm not in done:
                weights = None if arm == "from scratch" else str(run.path)
                done[arm] = train_arm(replace(base, weights=weights, **settings), few)
                write_text(file, json.dumps(results, indent=1) + "\n")
        if not done.keys() >= {*PROBES}:
            done |= probe_arms(replace(base, weights=str(run.path)), few, seed)
            write_text(file, json.dumps(results, indent=1) + "\n")
        print(f"\n{seed + 1} of {args.seeds} seeds\n\n{table(results)}", flush=True)


if __name__ == "__main__":
    main()
