"""Figure 1 of both papers: their models with published top-1, counted costs, and speeds where they were measured here."""

import json
from dataclasses import asdict
from pathlib import Path

import torch

from metaformer.core.count import count
from metaformer.core.device import choose_device, choose_precision
from metaformer.core.model import MetaFormer
from metaformer.lab.published_plot import PublishedModel, figure_one
from metaformer.lab.study_speed import Speeds, in_turns, known_speeds, machine, threads
from metaformer.runs import write_text
from metaformer.zoo import TOP1, ZOO

SIZE = 224
FAMILIES = {
    "poolformer": "PoolFormer", "identityformer": "IdentityFormer", "randformer": "RandFormer",
    "poolformerv2": "PoolFormerV2", "convformer": "ConvFormer", "caformer": "CAFormer", "metaformer": "hybrids",
}  # fmt: skip
OTHERS = (PublishedModel("ConvNeXt-L", "others", 198, 34.4, 84.3), PublishedModel("ResMLP-B24", "others", 116, 23.0, 81.0))
"""As the papers give them."""
LEVELS = {
    "RSB-ResNet-18": 70.6, "RSB-ResNet-34": 75.5, "RSB-ResNet-50": 79.8, "RSB-ResNet-101": 81.3, "Swin-B": 83.5,
    "CoAtNet-2": 84.1,
}  # fmt: skip
"""Top-1 as the papers give it, of models whose cost is not told there."""


def published_models(rates: dict[str, float]) -> list[PublishedModel]:
    """Every model of the papers with a published top-1; `rates` in images/s by name."""
    found = list[PublishedModel]()
    for name, (top1, _) in TOP1.items():
        with torch.device("meta"):
            costs = count(MetaFormer(ZOO[name]), SIZE)
        family, _, size = name.partition("_")
        told = {"id_s12": "identity", "ppaa_s12_224": "pool, pool, attention ×2"}.get(size, size)
        found.append(PublishedModel(told, FAMILIES[family], costs.parameters / 1e6, costs.macs / 1e9, top1, rates.get(name)))
    return [*found, *OTHERS]


def measure_published(folder: Path, *, device: str = "auto", batch: int = 8, rounds: int = 3, anew: bool = False) -> Speeds:
    """Images/s of every such model, kept in speeds.json in the folder; measured again on another machine, or with `anew`."""
    chosen = choose_device(device)
    precision = choose_precision("auto", chosen)
    where = "GPU" if chosen.type == "cuda" else threads()
    how = f"forward, eager, batch {batch} at {SIZE}, {str(precision).removeprefix('torch.')}, {where}, {machine()}"
    known = None if anew else known_speeds(folder)
    if known is not None and known.how == how:
        return known
    makers = {name: (lambda name=name: MetaFormer(ZOO[name])) for name in TOP1}
    rates = in_turns(makers, dict.fromkeys(makers, SIZE), 3, batch=batch, device=chosen, precision=precision, rounds=rounds)
    made = Speeds(rates, {name: name for name in rates}, how, machine())
    write_text(folder / "speeds.json", json.dumps(asdict(made), indent=1) + "\n")
    return made


def draw_figure_one(folder: Path, speeds: Speeds | None) -> Path:
    """Writes figure1.png and figure1.pdf; returns the first."""
    folder.mkdir(parents=True, exist_ok=True)
    rates = {} if speeds is None else speeds.medians
    figure_one(published_models(rates), LEVELS, folder / "figure1", how="" if speeds is None else speeds.how)
    return folder / "figure1.png"
