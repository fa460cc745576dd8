"""Robustness and calibration of the five mixers on CIFAR-10: the t6 models, trained alike, then judged on the same images.

python benchmarks/robustness.py cifar10:PATH --out FOLDER
Each model trains for a few epochs (a run in the folder, gone on with where it was cut); then all are judged together, with the
fifteen corruptions on a part of the test images. The folder gets eval.html, eval.json and robustness.png; tables are printed.
"""

import argparse
from pathlib import Path

from metaformer.lab.jobs import train
from metaformer.lab.judge import Asked, judge
from metaformer.lab.judge_text import markdown_tables
from metaformer.lab.plots import robustness
from metaformer.runs import is_run, open_run

MODELS = ("identityformer_t6", "randformer_t6", "poolformerv2_t6", "convformer_t6", "caformer_t6")


def trained(model: str, data: str, epochs: int, out: Path) -> Path:
    """The run of a model, begun, gone on with or there already."""
    folder = out / model
    if not is_run(folder):
        return train(model, data=data, name=model, root=out, epochs=epochs, batch=128, precision="bf16", workers=0).path
    return folder if open_run(folder).finished else train(folder).path


def main() -> None:
    """Prints the tables; the page and the picture are in the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="cifar10:PATH")
    parser.add_argument("--out", type=Path, default=Path("robustness"))
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--images", type=int, default=1000, help="test images that are made worse")
    args = parser.parse_args()
    runs = [trained(model, args.data, args.epochs, args.out) for model in MODELS]
    asked = Asked(corruptions="all", tta="flip", images=args.images)
    found = judge(*runs, data=args.data, asked=asked, precision="fp32", out=args.out)
    robustness(MODELS, [model["corruptions"] for model in found.told["shown"]["models"]], args.out / "robustness.png")
    print(markdown_tables(found.told))


if __name__ == "__main__":
    main()
