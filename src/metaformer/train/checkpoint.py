"""All that a run needs to go on exactly where it was."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from metaformer.core.model import MetaFormer
from metaformer.runs import Run, replace_folder
from metaformer.weights.load import load_weights, read_file
from metaformer.weights.pretrained import save_pretrained


@dataclass
class Progress:
    """Where training is: `step` steps of epoch `epoch` (both from 0) are done."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    count: int = 0
    seconds: float = 0.0
    best: float = -1.0
    """Highest top-1 so far."""

    def next_epoch(self) -> None:
        """Moves on to the start of the next epoch."""
        self.epoch, self.step, self.loss_sum, self.count, self.seconds = self.epoch + 1, 0, 0.0, 0, 0.0


def save(run: Run, model: MetaFormer, optimizer: torch.optim.Optimizer, progress: Progress, about: dict[str, Any]) -> None:
    """Writes `last/`, which is the old one or the new one at every moment."""

    def write(folder: Path) -> None:
        save_pretrained(model, folder, **about)
        devices = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            devices["cuda"] = torch.cuda.get_rng_state()
        state = {"optimizer": optimizer.state_dict(), "progress": asdict(progress), "random": devices}
        torch.save(state, folder / "training.pt")

    replace_folder(run.path / "last", write)


def restore(run: Run, model: MetaFormer, optimizer: torch.optim.Optimizer) -> Progress:
    """Fills model, optimizer and random generators from `last/`; a fresh start if nothing was saved yet."""
    if not run.last.is_dir():
        return Progress()
    state = read_file(run.last / "training.pt")
    load_weights(model, run.last / "model.safetensors")
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"]["cpu"])
    if "cuda" in state["random"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["random"]["cuda"])
    return Progress(**state["progress"])
