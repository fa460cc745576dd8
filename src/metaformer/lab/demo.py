"""`metaformer demo`: real digits learnt, judged and predicted."""

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from metaformer.data.sources import open_data
from metaformer.infer.evaluate import evaluate
from metaformer.infer.predictor import Predictor
from metaformer.lab.jobs import train
from metaformer.lab.tables import evaluation_text
from metaformer.runs import Run


def demo(root: Path, say: Callable[[str], object]) -> Run:
    """Trains `caformer_t6` in a new directory under `root`, then says what `metaformer eval` and `predict` say of it."""
    names = ("demo" if number == 1 else f"demo-{number}" for number in range(1, 10**6))
    run = train("caformer_t6", data="digits", root=root, name=next(name for name in names if not (root / name).exists()))
    say(f"\n$ metaformer eval {run.path}")
    say(evaluation_text(evaluate(run.path).summary()))
    samples = sample_digits(run.path / "samples")
    say(f"\n$ metaformer predict {run.path} {run.path / 'samples'}")
    for answer in Predictor(run.path)(samples):
        say(f"{answer.path}  " + "  ".join(f"{name} {value:.1%}" for name, value in answer.top[:3]))
    return run


def sample_digits(folder: Path, count: int = 10) -> list[Path]:
    """Writes `count` held-out digits as PNG files, named by what they show, and returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    val = open_data("digits").val
    paths = []
    for i, label in enumerate(val.labels[:count].tolist()):
        paths.append(folder / f"{i:02d}-is-{label}.png")
        Image.fromarray(val.image(i)[0].numpy()).save(paths[-1])
    return paths
