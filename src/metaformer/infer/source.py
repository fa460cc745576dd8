"""Where a model comes from: a run, a folder, a .safetensors file, Hugging Face, or a published name."""

from copy import deepcopy
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from metaformer.core.device import choose_device
from metaformer.runs import is_run, no_run, open_run
from metaformer.weights.catalogue import Published, find
from metaformer.weights.create import create_published
from metaformer.weights.hub import HUB, fetch_pretrained
from metaformer.weights.pretrained import Model, read_pretrained
from metaformer.zoo import ZOO


def open_source(source: str | Path, model: Model | None = None, device: str = "auto") -> tuple[Model, dict[str, Any]]:
    """The model on its device, in evaluation mode, and what is to know of it. A `model` that is given is copied and filled.

    Raises ValueError or OSError with a sentence.
    """
    where = choose_device(device)
    found = find_source(source)
    made, about = read_pretrained(found, deepcopy(model)) if isinstance(found, Path) else create_published(str(source))
    return made.eval().to(where), about


def find_source(source: str | Path) -> Path | Published:
    """Where the weights of a run or folder lie, or which published ones a name stands for; nothing but `hf:` is fetched."""
    if is_run(source):
        best = open_run(source).best
        if not best.is_dir():
            raise ValueError(f"{source} has no weights yet: go on with it, metaformer train {source}")
        return best
    name, _, tag = str(source).partition(".")
    if not Path(source).exists() and name in ZOO:
        return find(name, tag or True)
    if str(source).startswith(HUB):
        return fetch_pretrained(str(source))
    if not Path(source).exists():
        close = get_close_matches(name, ZOO, n=1, cutoff=0.8)
        raise FileNotFoundError(f"no run or model '{name}', did you mean {close[0]}?") if close else no_run(source)
    return Path(source)
