"""What several processes do together, for tests: every rank does every case, and keeps what it has in the end.

`torchrun -m tests.many WHICH OUT DATA SEVERAL` writes OUT/<count>-<rank>.pt; alone, `WHICH[...]` is done by this process.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import QUICK, after_steps, timeless
from torch import Tensor

from metaformer.core.model import MetaFormer
from metaformer.core.ranks import Ranks, together
from metaformer.data.loader import Loader
from metaformer.data.preprocess import Preprocess
from metaformer.data.sources import open_data
from metaformer.lab.jobs import resolve
from metaformer.runs import Run, create_run
from metaformer.tasks.classification import Classification
from metaformer.tasks.multilabel import Multilabel
from metaformer.train.checkpoint import restore
from metaformer.train.display import Display
from metaformer.train.train import prepare
from metaformer.weights.create import create_model

STEADY = QUICK | {"drop_path": 0.0, "device": "cpu", "workers": 0}
UNEVEN = STEADY | {"batch": 19, "epochs": 4, "image_size": 32}  # 6 steps an epoch, the last one of a single image
NORM = QUICK["changes"] | {"norm": "BatchNorm()"}
BATCH_NORM = STEADY | {"batch": 47, "epochs": 7, "image_size": 32, "changes": NORM}  # 3 steps, the last one of two images
RANDOM = STEADY | {"drop_path": 0.3, "head_dropout": 0.3, "epochs": 7}  # 3 steps
MIXED = {"mixup": 0.8, "cutmix": 1.0, "erase": 0.3, "crop": 0.5, "ema": 0.9, "accumulate": 2}
LAMB = {"optimizer": "lamb", "learn": "lora:2", "nonfinite": "skip", "clip": 0.1, "class_weights": "balanced"}

CASES: dict[str, dict[str, Any]] = {
    "plain": UNEVEN,
    "plain in parts": UNEVEN | {"accumulate": 2},
    "batch norm": BATCH_NORM,
    "batch norm in parts": BATCH_NORM | {"accumulate": 2, "batch": 46},
    "timm's batch norm": BATCH_NORM | {"model": "timm:test_efficientnet", "changes": {}, "image_size": 64, "optimizer": "sgd"},
    "mixed": UNEVEN | MIXED,
    "lamb": UNEVEN | LAMB,
}
"""Nothing in them is random but augmentation: 20 steps or a few more each.

Nor is a gradient nothing but rounding, which AdamW would make as large as any other: queries and keys of attention over a
single place have such a one, so images are not tiny; so have biases of timm's batch norms that another one follows: there SGD.
"""


def run_few(out: Path, data: str, several: str, ranks: Ranks) -> dict[str, Any]:
    """What this rank has in the end, by case: those that say most in a few seconds."""
    case = "plain in parts"
    return {case: trained(out / f"{ranks.count}", data, CASES[case], ranks)} | evaluations(data, several, ranks)


def run_cases(out: Path, data: str, several: str, ranks: Ranks) -> dict[str, Any]:
    """What this rank has in the end, by case."""
    root = out / f"{ranks.count}"
    done: dict[str, Any] = {name: trained(root, data, settings, ranks) for name, settings in CASES.items()}
    done["several labels"] = trained(root, several, UNEVEN | {"epochs": 6}, ranks)
    done["hours"] = trained(root, data, STEADY | {"hours": 3e-4}, ranks)
    done["left"] = [str(left(root, data, steps, ranks).path) for steps in (7, 6)]  # in the middle of an epoch, and at an end
    done["random"] = trained(root, data, RANDOM, ranks)
    done["random, gone on"] = trained(root, data, RANDOM, ranks, run=left(root, data, 7, ranks))
    return done | evaluations(data, several, ranks)


def evaluations(data: str, several: str, ranks: Ranks) -> dict[str, Any]:
    """Of a class for each image, and of several labels."""
    return {"evaluated": evaluated(data, ranks), "several evaluated": evaluated(several, ranks)}


def run_slow_cases(out: Path, data: str, _: str, ranks: Ranks) -> dict[str, Any]:
    """The same, of what takes its time: workers, a teacher, half precision, a model of one's own."""
    root = out / f"{ranks.count}"
    teacher = trained(root, data, UNEVEN, ranks)["path"]
    learns = UNEVEN | {"teacher": teacher, "workers": 1, "crop": 0.5, "epochs": 2}
    return {
        "teacher": trained(root, data, learns, ranks),
        "half": trained(root, data, UNEVEN | {"precision": "bf16"}, ranks),
        "of one's own": trained(root, data, {k: v for k, v in UNEVEN.items() if k not in BUILT}, ranks, own=_own_model()),
    }


def run_compiled(out: Path, data: str, _: str, ranks: Ranks) -> dict[str, Any]:
    """The same, of a compiler, which takes its time for every size of a batch and every layer: there are few."""
    compiled = UNEVEN | {"compile": True, "batch": 48, "epochs": 2, "model": "identityformer_t6"}
    return {"compiled": trained(out / f"{ranks.count}", data, compiled, ranks)}


BUILT = ("changes", "drop_path")


def _own_model() -> MetaFormer:
    """One that has a parameter that nothing depends on."""
    torch.manual_seed(0)
    config = {"dims": (16, 16, 32, 32), "depths": (1, 1, 1, 1), "num_classes": 10, "in_chans": 1}
    model = create_model("poolformer_s12", **config)
    model.register_parameter("extra", torch.nn.Parameter(torch.ones(3)))
    return model


def fail(out: Path, data: str, _: str, ranks: Ranks) -> dict[str, Any]:
    """The last rank meets something that the others do not."""

    def stumble() -> None:
        raise ValueError("an image that nobody can read")

    with pytest.MonkeyPatch.context() as patch:
        if ranks.rank == ranks.count - 1:
            after_steps(patch, 2, stumble)
        return trained(out, data, UNEVEN, ranks)


WHICH = {"few": run_few, "cases": run_cases, "slow": run_slow_cases, "compiled": run_compiled, "fail": fail}


def trained(
    root: Path, data: str, settings: dict[str, Any], ranks: Ranks, run: Run | None = None, own: MetaFormer | None = None
) -> dict[str, Any]:
    """Trains to the end, a `run` that was left too; the weights that this rank has in memory, and what the run says."""
    recipe, found = resolve(own or settings.get("model", "caformer_t6"), settings | {"data": data}, quiet=True)
    fit = prepare(recipe, found, own, run, ranks=ranks)
    if run is None:
        run = ranks.told(create_run(fit.recipe, root, None) if ranks.first else None)
    assert run is not None
    with Display(None, 1, 0, quiet=True) as display:
        fit(run, restore(run, fit.state), display)
    return {
        "weights": fit.state.model.state_dict(),
        "average": fit.state.average.model.state_dict() if fit.state.average is not None else {},
        "metrics": timeless(run.metrics),
        "random": torch.get_rng_state(),
        "path": str(run.path),
    }


def left(root: Path, data: str, steps: int, ranks: Ranks) -> Run:
    """A run that a Ctrl-C of the last rank ended after so many steps."""
    before = {path.name for path in root.iterdir()}
    ranks.wait()
    with pytest.MonkeyPatch.context() as patch:
        if ranks.rank == ranks.count - 1:
            after_steps(patch, steps, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            trained(root, data, RANDOM, ranks)
    ranks.wait()
    (new,) = {path.name for path in root.iterdir()} - before
    ranks.wait()
    return Run(root / new)


def evaluated(data: str, ranks: Ranks) -> dict[str, Any]:
    """Logits and figures of weights drawn at random, on batches of which the last is small."""
    found = open_data(data, seed=0)
    torch.manual_seed(0)
    model = create_model("caformer_t6", num_classes=len(found.classes), in_chans=found.channels)
    loader = Loader(found.val, 9, Preprocess(16, found.mean, found.std), torch.device("cpu"), ranks=ranks)
    task = (Multilabel if found.multi else Classification)(found.classes)
    judged = task.evaluate(model, loader.epoch(), ranks)
    return {"logits": judged.logits, "labels": judged.labels, "summary": judged.summary()}


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """‖Δw‖ / ‖w‖ over all floating-point tensors."""
    both = [(one[key].double(), other[key].double()) for key in one if one[key].is_floating_point()]
    return float(sum((a - b).square().sum() for a, b in both) / sum(a.square().sum() for a, _ in both)) ** 0.5


def main() -> None:
    """As torchrun starts it."""
    which, out, data, several = sys.argv[1:]
    torch.set_num_threads(1)
    with together() as ranks:
        done = WHICH[which](Path(out), data, several, ranks)
        torch.save(done, Path(out) / f"{ranks.count}-{ranks.rank}.pt")
    with together() as ranks:  # as a second training in the same script does
        assert ranks.sum(1) == ranks.count


if __name__ == "__main__":
    main()
