"""`metaformer lr`: which learning rate to begin with, measured in a hundred steps, as a picture and as JSON."""

import json
from pathlib import Path
from typing import Any

from metaformer.core.device import keep_memory, memory_told
from metaformer.lab import plots
from metaformer.lab.jobs import resolve
from metaformer.own import ask
from metaformer.runs import is_run, write_text
from metaformer.train.display import say
from metaformer.train.range_test import Trace, range_test
from metaformer.train.train import prepare


def find_lr(model: str, settings: dict[str, Any], out: Path) -> Trace:
    """Measures the loss at rising learning rates with the settings of a run, and writes lr.json and lr.png into `out`.

    `model` and `settings` as `train` takes them; of a run, its recipe. Nothing else is written. Raises ValueError or OSError
    with a sentence.
    """
    ask(settings.get("changes", {}).values())
    recipe, data = resolve(f"{model}/recipe.json" if is_run(model) else model, settings, quiet=False)
    if recipe.smoke:
        raise ValueError("smoke=true would find the rate of another, shrunk model: leave it out")
    fit = prepare(recipe, data, None)
    for sentence in (*data.notes, *fit.notes):
        say(sentence, quiet=False)
    keep_memory()
    with memory_told(fit.train.device, f"accumulate={2 * fit.recipe.accumulate} learns the same in smaller parts"):
        trace = range_test(fit)
    found = {"steepest": trace.steepest, "tenth": trace.tenth, "lowest": trace.lowest}
    clear = {"clear": trace.clear, "fall": trace.fall, "noise": trace.noise}
    steps = [{"lr": lr, "loss": loss} for lr, loss in zip(trace.rates, trace.losses, strict=True)]
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "lr.json", json.dumps({**found, **clear, "recipe": fit.recipe.to_dict(), "steps": steps}, indent=2) + "\n")
    plots.learning_rates(trace.rates, trace.losses, trace.smooth, found, out / "lr.png")
    return trace


def found_text(trace: Trace, out: Path) -> str:
    """What was found, for a screen."""
    doubt = (
        f"NOT CLEAR: the loss falls by {trace.fall:.2g}, but varies by {trace.noise:.2g} from step to step, so these rates say "
        "little. Try a larger batch= or less augmentation, or keep the recipe's lr\n"
    )
    return "\n".join([
        *([] if trace.clear else [doubt]),
        f"lr={trace.steepest:.2g}  where the loss falls fastest: the rate to begin with",
        f"lr={trace.tenth:.2g}  a tenth of {trace.lowest:.2g}, where the loss is lowest: the careful choice",
        f"\nOver {len(trace.rates)} steps from lr={trace.rates[0]:.2g} to {trace.rates[-1]:.2g}; look at {out / 'lr.png'}",
    ])  # fmt: skip
