"""Our whole training loop on caformer_t6 beside a plain loop on timm's class of the same shape, on the same images.

python benchmarks/training_loop.py fashion-mnist:PATH
The two take turns, a round being the same images; reported are the medians and the ratio of each pair of rounds.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from timm.models import metaformer as timm_metaformer
from torch import nn

from metaformer.core.count import count
from metaformer.data.sources import Data, open_data
from metaformer.data.splits import Images
from metaformer.recipes import SMALL
from metaformer.runs import create_run
from metaformer.train.checkpoint import Progress
from metaformer.train.display import Display
from metaformer.train.loop import Fit
from metaformer.train.train import prepare


def timm_twin(channels: int, classes: int) -> nn.Module:
    """timm's class in the shape of caformer_t6; its stem has stride 4, so the convolution is exchanged."""
    mixers = [timm_metaformer.SepConv] * 2 + [timm_metaformer.Attention] * 2
    norms = [timm_metaformer.LayerNorm2dNoBias] * 2 + [timm_metaformer.LayerNormNoBias] * 2
    model = timm_metaformer.MetaFormer(
        in_chans=channels, num_classes=classes, depths=(1, 1, 3, 1), dims=(32, 64, 128, 192),
        token_mixers=mixers, norm_layers=norms, drop_path_rate=0.05, use_mlp_head=True,
    )  # fmt: skip
    model.stem.conv = nn.Conv2d(channels, 32, 7, 2, 3)
    return model


def plain_round(model: nn.Module, optimizer: torch.optim.Optimizer, data: Data, batch: int, precision: str) -> float:
    """Images per second of the shortest correct loop: shuffle, normalise, forward, backward, clip, step."""
    model.train()
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (data.mean, data.std))
    started = time.perf_counter()
    for index in torch.randperm(len(data.train)).split(batch):
        pixels, labels = data.train.pixels[index], data.train.labels[index]
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = F.cross_entropy(model((pixels.float() / 255 - mean) / std), labels, label_smoothing=0.1)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return len(data.train) / (time.perf_counter() - started)


def our_round(fit: Fit, folder: Path) -> float:
    """Images per second of the product's loop over one epoch: augmentation, schedule, display and log included."""
    run = create_run(fit.recipe, folder, None)
    with Display(run.path / "log.txt", fit.recipe.epochs * fit.steps, 0, quiet=True) as display:
        fit(run, Progress(), display)
    return float(run.metrics[-1]["images_per_second"])


def cut(data: Data, images: int) -> Data:
    """The first images of each split."""
    train, val = data.train, data.val
    small = Images(val.pixels[:256], val.labels[:256])
    return replace(data, train=Images(train.pixels[:images], train.labels[:images]), val=small)


def main() -> None:
    """Prints a JSON record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="such as digits or fashion-mnist:PATH")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=2560, help="of each round")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    args = parser.parse_args()

    recipe = replace(SMALL, data=args.data, epochs=1, precision=args.precision)
    data = cut(open_data(args.data), args.images)
    fit = prepare(recipe, data, None)
    pixels = fit.train.preprocess.fitted(data.train.pixels)  # what ours does each time, where sizes differ
    data = replace(data, train=Images(pixels, data.train.labels))
    twin = timm_twin(data.channels, len(data.classes)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(twin.parameters(), lr=2e-3, weight_decay=0.05)
    size = fit.train.preprocess.size
    sizes = [sum(p.numel() for p in model.parameters()) for model in (fit.state.model, twin)]
    macs = [count(model, size).macs for model in (fit.state.model, twin)]

    ours: list[float] = []
    plain: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for done in range(args.rounds + 1):
            pair = our_round(fit, Path(folder)), plain_round(twin, optimizer, data, recipe.batch, args.precision)
            if done:  # the first round warms up
                ours.append(pair[0])
                plain.append(pair[1])
    ratios = sorted(a / b for a, b in zip(ours, plain, strict=True))
    record: dict[str, Any] = {
        "images_per_second": {"ours": statistics.median(ours), "timm, plain loop": statistics.median(plain)},
        "ratio": {"median": statistics.median(ratios), "min": ratios[0], "max": ratios[-1]},
        "rounds": args.rounds,
        "images": args.images,
        "precision": args.precision,
        "parameters": sizes,
        "macs": macs,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
