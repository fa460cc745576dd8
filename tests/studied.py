"""Made-up results of a study, for what judges them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from metaformer.lab.study_results import FINISHED, Result


def result(row: str, seed: int, **changes: Any) -> Result:
    """A finished one, whose key is `row-seed`."""
    known: dict[str, Any] = {
        "top1": 50.0, "images": 400, "classes": 10, "parameters": 1_200_000, "frozen": 0, "macs": 15_000_000,
        "activation_flops": 400, "precision": "fp32", "peak": 300 * 2**20, "seconds": 90.0, "state": FINISHED,
        "curve": [{"epoch": 1, "train_loss": 2.0, "val_loss": 1.9, "top1": 40.0, "seconds": 45.0},
                  {"epoch": 2, "train_loss": 1.5, "val_loss": 1.4, "top1": 50.0 + seed, "seconds": 45.0}],
    }  # fmt: skip
    return Result(**{"key": f"{row}-{seed}", "study": "made", "row": row, "seed": seed, **known, **changes})


def rights_of(shares: Mapping[str, Sequence[float]], images: int, **changes: Any) -> tuple[list[Result], dict[str, Tensor]]:
    """Results of rows that call such parts of the images right, a number per seed, and which: each from another place on."""
    results, rights = [], {}
    for place, (row, parts) in enumerate(shares.items()):
        for seed, part in enumerate(parts):
            right = torch.zeros(images, dtype=torch.bool)
            right[: round(part * images)] = True
            right = right.roll(7 * place + 3 * seed)
            rights[f"{row}-{seed}"] = right
            results.append(result(row, seed, top1=100 * right.double().mean().item(), images=images, **changes))
    return results, rights
