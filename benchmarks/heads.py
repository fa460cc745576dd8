"""Images a second of each head in training: one epoch with a short side of 800 pixels and at most 1333, as published for COCO.

python benchmarks/heads.py coco:TRAIN.json,VAL.json masks:FOLDER --out FOLDER
Detectors learn from the first set, segmenters from the second. It is meant for a GPU; elsewhere --size 256 gives a first idea.
The speed is that of a whole epoch, loading included, after one that is not counted: the first steps choose their algorithms.
"""

import argparse
from pathlib import Path

import torch

from metaformer.lab.bench import machine
from metaformer.lab.jobs import train
from metaformer.train.dense import finds_regions
from metaformer.zoo import HEADS


def main() -> None:
    """Prints the machine and a table: model, images a second, and the most memory that a GPU had to give."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("objects", help="with masks, such as coco:TRAIN.json,VAL.json")
    parser.add_argument("regions", help="such as masks:FOLDER")
    parser.add_argument("--backbone", default="poolformer_s12")
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=list(HEADS))
    parser.add_argument("--size", type=int, default=800)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path("heads"))
    args = parser.parse_args()
    print(machine("cuda" if torch.cuda.is_available() else "cpu"))
    print("| model | images/s | MiB |\n|---|---:|---:|")
    for head in args.heads:
        name = f"{head}/{args.backbone}"
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        run = train(
            name, data=args.regions if finds_regions(name) else args.objects, name=head, root=args.out, quiet=True,
            augment="coco", image_size=args.size, epochs=2, batch=args.batch,
        )  # fmt: skip
        memory = f"{torch.cuda.max_memory_allocated() / 2**20:,.0f}" if torch.cuda.is_available() else "–"
        print(f"| `{name}` | {run.metrics[-1]['images_per_second']:.3g} | {memory} |", flush=True)


if __name__ == "__main__":
    main()
