"""All that a run needs to go on exactly where it was: copied at a step, written, checked, brought back."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from metaformer.config import Recipe, read_json
from metaformer.core.lora import is_updated
from metaformer.core.ranks import ALONE, Ranks
from metaformer.data.batch import number
from metaformer.runs import Run, replace_folder
from metaformer.train.optim import Average
from metaformer.train.sink import Sink
from metaformer.weights.files import read_file
from metaformer.weights.pretrained import Kept, copied_state, fill, packed, told_text

SCHEMA = 1
"""Version of `checkpoint.json`, which says what the files of a checkpoint must be."""


@dataclass
class Progress:
    """Where training is: `step` steps of epoch `epoch` (both from 0) are done."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    norm_sum: float = 0.0
    """Of the gradient's norm in each step times the count that it learnt from."""
    count: int = 0
    """What the loss is divided by: images, or their pixels."""
    images: int = 0
    """Learnt from in this epoch."""
    seconds: float = 0.0
    side: int = 0
    """Side in pixels of the images that this epoch learns from; 0 before its first step."""
    best: float = -1.0
    """Highest score so far, in percent: top-1, say."""
    stale: int = 0
    """Epochs since the one of the highest score, but those of images that are still to grow."""
    stopped: bool = False
    """Whether patience= has ended the run."""
    planned: float = 0.0
    """How many epochs hours= leaves time for, the last one perhaps a part; 0 where nothing was planned."""
    spent: float = 0.0
    """Seconds that hours= counts; also those of steps that were gone back from."""
    stepping: float = 0.0
    """Of these, in steps but the very first ones."""
    work: float = 0.0
    """How many such steps, each counted by its part of the pixels of image_size."""
    judging: float = 0.0
    """Of `spent`, at the ends of epochs."""
    rewinds: int = 0
    """How often the run went back, each time to go on with half the learning rate."""

    def next_epoch(self) -> None:
        """Moves on to the start of the next epoch."""
        self.epoch, self.step, self.seconds, self.side = self.epoch + 1, 0, 0.0, 0
        self.loss_sum, self.norm_sum, self.count, self.images = 0.0, 0.0, 0, 0

    def become(self, other: "Progress") -> None:
        """Takes over another's figures."""
        for field in fields(self):
            setattr(self, field.name, getattr(other, field.name))


@dataclass(frozen=True)
class State:
    """What learns."""

    model: Kept
    optimizer: torch.optim.Optimizer
    average: Average[Any] | None = None
    scaler: torch.amp.GradScaler | None = None
    """Of losses in half precision."""
    ranks: Ranks = ALONE
    """The processes that learn it together."""


@dataclass(frozen=True)
class Snapshot:
    """A moment of training, copied to the processor: it stays as it is while training goes on.

    Of several ranks, whose weights are equal, the first one has it.
    """

    weights: dict[str, Tensor]
    about: str
    """What is written beside the weights."""
    kept: dict[str, Any]
    """What else it takes to go on."""


def snapshot(state: State, progress: Progress, about: Mapping[str, Any]) -> Snapshot | None:
    """The moment between two steps, with the random numbers of all ranks; None but for the first of them."""
    random, *others = state.ranks.gathered(_random(state))
    if not state.ranks.first:
        return None
    where = {"epoch": progress.epoch, "step": progress.step}
    length = ({"planned": progress.planned} if progress.planned else {}) | ({"stopped": True} if progress.stopped else {})
    kept = {
        "optimizer": state.optimizer.state_dict(),
        "average": None if state.average is None else state.average.model.state_dict(),
        "scaler": None if state.scaler is None else state.scaler.state_dict(),
        "apart": state.model.state_dict() if is_updated(state.model) else None,  # weights and their low-rank updates
        "progress": asdict(progress),
        "random": random,
        "others": others,
    }
    return Snapshot(copied_state(state.model), told_text(state.model, {**about, **where, **length}), _copied(kept))


def _copied(value: Any) -> Any:
    """The same with tensors of its own, on the processor."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return type(value)(map(_copied, value)) if isinstance(value, (list, tuple)) else value


def write(run: Run, moment: Snapshot, recipe: Mapping[str, Any]) -> None:
    """Writes `last/`, which is the old one or the new one at every moment; the old one becomes `last.before/`.

    `recipe` is what the run is trained by. Raises OSError where the disk fails, and both are then as they were.
    """

    def fill_new(folder: Path) -> None:
        files = {
            "training.pt": _written(folder / "training.pt", lambda sink: _save_kept(moment.kept, sink)),
            "model.safetensors": _written(folder / "model.safetensors", lambda sink: sink.write(packed(moment.weights))),
            "model.json": _written(folder / "model.json", lambda sink: sink.write(moment.about.encode())),
        }
        processes = 1 + len(moment.kept["others"])
        told = {"schema": SCHEMA, "sha256": files, "recipe": recipe, "processes": processes}
        text = json.dumps(told, indent=2) + "\n"
        (folder / "checkpoint.json").write_text(text, encoding="utf-8")

    replace_folder(run.path / "last", fill_new, keep=True)


def _written(path: Path, write: Callable[[Sink], object]) -> str:
    """Has a file written; its SHA-256."""
    with Sink(path) as sink:
        write(sink)
    return sink.sum.hexdigest()


def _save_kept(kept: dict[str, Any], sink: Sink) -> None:
    """Writes what torch.load reads. The sink's sum stands for those that torch would make of each tensor."""
    sums = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(kept, cast(IO[bytes], sink))
    except RuntimeError:
        if sink.error is None:
            raise
        raise sink.error from None
    finally:
        torch.serialization.set_crc32_options(sums)


def _digest(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None. Of one by a version without checkpoint.json nothing is known.

    Raises ValueError for a checkpoint of another version.
    """
    file = folder / "checkpoint.json"
    if not file.exists():
        return None
    try:
        told = read_json(file)
    except ValueError as error:
        return str(error)
    if told.get("schema") != SCHEMA:
        raise ValueError(f"{folder} is a checkpoint of schema {told.get('schema')}; this version goes on from {SCHEMA}")
    for name, digest in told["sha256"].items():
        if not (folder / name).is_file():
            return f"{folder / name} is missing"
        if _digest(folder / name) != digest:
            return f"{folder / name} is not what was written"
    return None


def trained_by(folder: Path) -> Recipe | None:
    """The recipe by which a checkpoint came to be, where it says so."""
    file = folder / "checkpoint.json"
    return Recipe.from_dict(read_json(file)["recipe"]) if file.exists() else None


def restore(run: Run, state: State) -> Progress:
    """Fills what learns and the random generators from `last/`; a fresh start if nothing was saved yet.

    Raises ValueError where other processes than now were in the middle of an epoch.
    """
    if not run.last.is_dir():
        if not state.ranks.first:
            torch.manual_seed(number(torch.initial_seed(), 0, "rank", state.ranks.rank))
        return Progress()
    kept = read_file(run.last / "training.pt")
    _check_same_learns(run, kept, state)
    random = _random_of(run, kept, state.ranks)
    if kept.get("apart") is None:
        fill(state.model, run.last)
    else:
        state.model.load_state_dict(kept["apart"])
    state.optimizer.load_state_dict(kept["optimizer"])
    if state.average is not None:
        state.average.model.load_state_dict(kept["average"])
    if state.scaler is not None:
        state.scaler.load_state_dict(kept["scaler"])
    torch.set_rng_state(random["cpu"])
    device = _device(state)
    if device.type == "cuda" and "cuda" in random:
        torch.cuda.set_rng_state(random["cuda"], device)
    if device.type == "mps" and "mps" in random:
        torch.mps.set_rng_state(random["mps"])
    return Progress(**kept["progress"])


def _check_same_learns(run: Run, kept: dict[str, Any], state: State) -> None:
    """Raises ValueError where other parameters learnt than do now, as with learn=lora in earlier versions."""
    then, now = ([len(group["params"]) for group in groups] for groups in (
        kept["optimizer"]["param_groups"], state.optimizer.param_groups
    ))  # fmt: skip
    apart = kept.get("apart")
    names = state.model.state_dict().keys() if is_updated(state.model) else None
    if then != now or (None if apart is None else apart.keys()) != names:
        raise ValueError(
            f"{run.path} was begun by another version, in which learn={run.recipe.learn} let other parameters learn: it cannot "
            f"go on; to begin again: metaformer train {run.path}/recipe.json"
        )


def _random_of(run: Run, kept: dict[str, Any], ranks: Ranks) -> dict[str, Tensor]:
    """The generators' states of this rank; new ones of a new rank.

    There may be one at an epoch's end, and where torchrun goes on with the machines that are left.
    """
    saved, progress = [kept["random"], *kept.get("others", [])], kept["progress"]
    if len(saved) != ranks.count and progress["step"] and not ranks.again:
        raise _other_processes(run, len(saved))
    if ranks.rank < len(saved):
        return saved[ranks.rank]
    fresh = torch.Generator().manual_seed(number(torch.initial_seed(), progress["epoch"], "rank", ranks.rank))
    torch.manual_seed(fresh.initial_seed())  # of a GPU's generator too
    return {"cpu": fresh.get_state()}


def check_processes(run: Run, count: int) -> None:
    """Raises ValueError where the newest save is for another number of processes than `count`, and tells so in its JSON."""
    about, file = run.last / "model.json", run.last / "checkpoint.json"
    if not (about.is_file() and file.is_file()):
        return
    saved = read_json(file).get("processes", count)
    if saved != count and read_json(about).get("step"):
        raise _other_processes(run, saved)


def _other_processes(run: Run, saved: int) -> ValueError:
    one = saved == 1
    return ValueError(
        f"{run.path} was saved in the middle of an epoch by {'one process' if one else f'{saved} processes'}, and its random "
        f"numbers are {'its own' if one else 'theirs'}; with another number of them it goes on only from an epoch's end. "
        f"Go on with as many: metaformer train {run.path}{'' if one else f' devices={saved}'}"
    )


def _random(state: State) -> dict[str, Tensor]:
    """The state of the generators that training draws from: the processor's and the model's device's."""
    device, kept = _device(state), {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        kept["cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        kept["mps"] = torch.mps.get_rng_state()
    return kept


def _device(state: State) -> torch.device:
    return next(state.model.parameters()).device
