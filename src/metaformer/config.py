"""A run as data: the frozen Recipe, strict `key=value` overrides, JSON both ways. Standard library only."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from math import inf
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

SCHEMA = 1
"""Version of `recipe.json`."""
ABOUT = "metaformer"
"""The name under which a model's file says what it is, as JSON: classes, preprocessing, figures."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides how a run turns out. Flat, so that a key is one word and a table of recipes is a table."""

    # what
    model: str
    """A name of the zoo, `timm:<name>`, or "custom" for a model that was handed over built."""
    recipe: str = "small"
    """The row of metaformer recipes that gives what is not set; by default small or photos, as the images are."""
    weights: str | None = None
    """What training starts from: a tag of published weights (in1k, in21k), a file, a folder or a run; `none` for nothing."""
    changes: Mapping[str, str] = field(default_factory=dict)
    """Changed fields of the model's config, as text: `model.norm=BatchNorm()` on the command line."""
    data: str = "digits"
    """`digits`, `fashion-mnist`, `cifar10`, `hf:NAME`, `coco:PATH` and its like, or paths or addresses (docs/data.md)."""
    labels: str = "auto"
    """Whether an image has one label (single), any number of them (multi), or as the data looks (auto)."""
    image_size: int | None = None
    """Side in pixels that images are fitted to; by default what the data has, else what the model was made for."""
    start_size: int | None = None
    """Side in pixels in the first epoch, rising to image_size over two thirds of the run; `none` for image_size all along."""
    augment: str = "objects"
    """How images with objects or regions are shown, image_size a side: objects, regions, coco or ade20k (docs/dense.md)."""
    fit: str = "squash"
    """How an image becomes a square where it is not augmented: squash, crop or pad."""
    crop_fraction: float | None = None
    """With fit=crop: the short side becomes image_size / this before the centre is cut out; `none` cuts a square first."""
    normalise: str = "auto"
    """Mean and deviation of pixels: data, imagenet, or auto: those that weights= were learnt with, else the data's."""

    # what learns
    learn: str = "all"
    """all, head, last:N (the last N stages and the head), lora[:RANK]: low-rank updates and norms of the body, and the head."""
    freeze_norms: bool = False
    """Whether norms stay as they are, with the means and variances that some of them keep."""
    layer_decay: float = 1.0
    """The learning rate of each layer over that of the next one towards the head; 1 is one rate for all."""

    # how long
    epochs: int = 20
    patience: int | None = None
    """Epochs at image_size without a better top-1 on held-out images after which the run ends; `none` for all epochs."""
    hours: float | None = None
    """Time for training and judging: epochs= then follows from it, as measured in this run. `none` for no such plan."""
    batch: int | str = 64
    """Images per optimizer step, whatever they are spread over; auto: as memory holds, a power of two times accumulate."""
    accumulate: int = 1
    """Micro-batches that a batch is cut into, to save memory; the result is the same."""
    checkpointing: bool = False
    """Whether a backbone is computed again in the backward pass, which takes a third more time and far less memory."""
    keep: int = 0
    """How many of the last epochs' weights stay in the run, in epochs/, for metaformer soup to average."""
    save_minutes: float | None = 10.0
    """Minutes after which an epoch is saved in its middle, the most that a kill can cost; `none`: only at its end."""
    seed: int = 0
    smoke: bool = False
    """Shrinks everything to a run of seconds that proves the settings work, without hours=; nothing in it is a result."""

    # optimizer and learning rate
    optimizer: str = "adamw"
    """adamw, lamb or sgd (momentum 0.9, Nesterov)."""
    schedule: str = "cosine"
    """cosine (every step, after a warm-up), epochwise (once an epoch, warm-up within the cosine: the papers'), constant, steps
    (a tenth after 8 of 12 epochs, a hundredth after 11) or poly (power 0.9)."""
    lr: float = 2e-3
    warmup_epochs: float = 2.0
    """Where it is not set: what the row says, but at most a quarter of the epochs. Of an epochwise one whole epochs count."""
    warmup_lr: float = 1e-6
    min_lr: float = 1e-5
    weight_decay: float = 0.05
    """Not applied to biases, norms and other one-dimensional parameters, nor to low-rank updates."""
    clip: float | None = 1.0
    """Greatest global norm of the gradient; `none` for no limit."""
    ema: float | None = None
    """Decay of the moving average of the weights, which is then what is judged and kept; `none` for no average."""
    ema_warmup: bool = True
    """Whether the decay rises to its value from a tenth; false where weights= start well, as timm's average does."""
    nonfinite: str = "stop"
    """When the loss or its gradient is no number: stop, skip that step, or rewind to the last save with half the lr."""

    # regularisation and augmentation
    drop_path: float = 0.05
    head_dropout: float = 0.0
    label_smoothing: float = 0.1
    crop: float | None = None
    """Smallest part of the area that a random resized crop shows; `none` shows all."""
    pad: float = 0.125
    """Images move by up to this part of their side, in from a black border."""
    flip: float | None = None
    """Probability of a horizontal flip; by default 0.5 where a mirrored image keeps its meaning (all but digits), else 0."""
    randaugment: str | None = None
    """timm's string, such as rand-m9-mstd0.5-inc1."""
    erase: float = 0.0
    """Probability of random erasing."""
    mixup: float = 0.0
    """Alpha of mixup's beta distribution; 0 for none."""
    cutmix: float = 0.0
    """Alpha of CutMix's; where both are given, each batch takes one of the two."""

    # what the loss asks for, and which images are drawn
    class_weights: str = "none"
    """What an image counts in the loss: none, all the same; balanced, the more the rarer its class, 1 on average."""
    sampling: str = "shuffle"
    """What an epoch draws: shuffle, every image once; balanced, as many images, every class equally often, with replacement."""
    window: int | None = None
    """Images in shards over which an epoch is shuffled; `none` for all where the shards are here, 20,000 where they are not."""
    teacher: str | None = None
    """A model to learn from beside the labels: a run, a folder or file, a published name, timm:<name>, hf:USER/NAME."""
    distill: str = "soft"
    """What the teacher tells: soft, its probabilities (Hinton's distillation), or hard, the class that it calls (DeiT's)."""
    distill_weight: float = 0.5
    """The teacher's part of the loss; the rest is the labels'."""
    distill_temperature: float = 3.0
    """What both models' logits are divided by where distill=soft."""

    # where and how
    device: str = "auto"
    precision: str = "auto"
    """fp32, tf32 (on a GPU), bf16 or fp16 (autocast, with a scaler), or auto: bf16 on a GPU that has it, else fp32."""
    deterministic: bool = False
    """Only algorithms that give the same bits again on the same device; slower on a GPU."""
    compile: bool = False
    """Whether training runs through torch.compile."""
    workers: int | None = None
    """Processes that read images; by default none for images in memory, else by the number of cores."""
    log: str | None = None
    """Who is told beside metrics.jsonl, with commas between: tensorboard, wandb, mlflow; `none` for nobody."""

    def __post_init__(self) -> None:
        for key, kinds in KINDS.items():
            value = getattr(self, key)
            if type(value) not in kinds and not (type(value) is int and float in kinds):
                raise ValueError(f"{key}={value!r} is not {_wanted(key)}")
            low, high = LIMITS.get(key, (-inf, inf))
            if isinstance(value, (int, float)) and not abs(value) < 2**63:
                raise ValueError(f"{key}={value} is too large, or not a number at all")
            if isinstance(value, (int, float)) and not low <= value <= high:
                raise ValueError(f"{key}={value} is not {f'between {low} and {high}' if high < inf else f'at least {low}'}")
        if not isinstance(self.changes, Mapping) or not all(type(text) is str for text in self.changes.values()):
            raise ValueError(f"changes={self.changes!r} is not texts by name, such as {{'norm': 'BatchNorm()'}}")
        for key, allowed in CHOICES.items():
            value = getattr(self, key)
            if isinstance(value, str) and (value.partition(":")[0] if key == "device" else value) not in allowed:
                close = get_close_matches(value, allowed, n=1, cutoff=0.6)
                hint = f"; did you mean {close[0]}?" if close else ""
                wanted = _wanted(key) if int in KINDS[key] else f"one of {', '.join(allowed)}"
                raise ValueError(f"{key}={value!r} is not {wanted}{hint}")
        read_learn(self.learn)
        for word in self.trackers:
            if word not in TRACKERS or self.trackers.count(word) > 1:
                close = get_close_matches(word, TRACKERS, n=1, cutoff=0.6)
                hint = f"; did you mean {close[0]}?" if close and word not in TRACKERS else ""
                raise ValueError(f"log={word!r} is not one of {', '.join(TRACKERS)}, each once, with commas between{hint}")

    @property
    def trackers(self) -> tuple[str, ...]:
        """The names in `log`."""
        return () if self.log is None else tuple(self.log.split(","))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with the schema's version first."""
        return {"schema": SCHEMA} | asdict(self)

    def flat(self) -> dict[str, Any]:
        """The settings by name, as a command line has them: changed fields of the model are `model.<field>`."""
        settings = {key: getattr(self, key) for key in ("model", *KEYS)}
        return settings | {f"model.{key}": text for key, text in self.changes.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Recipe":
        """What `to_dict` wrote. Raises ValueError for another schema or an unknown key."""
        data = dict(data)
        if data.pop("schema", None) != SCHEMA:
            raise ValueError(f"this recipe is not of schema {SCHEMA}, the one this version reads and writes")
        if "model" not in data:
            raise ValueError("this recipe names no model")
        return revise(cls(model=data["model"]), data)


CHOICES = {
    "device": ("auto", "cpu", "cuda", "mps"),
    "precision": ("auto", "fp32", "tf32", "bf16", "fp16"),
    "normalise": ("auto", "data", "imagenet"),
    "schedule": ("cosine", "epochwise", "constant", "steps", "poly"),
    "augment": ("objects", "regions", "coco", "ade20k"),
    "nonfinite": ("stop", "skip", "rewind"),
    "optimizer": ("adamw", "lamb", "sgd"),
    "fit": ("squash", "crop", "pad"),
    "batch": ("auto",),
    "class_weights": ("none", "balanced"),
    "sampling": ("shuffle", "balanced"),
    "distill": ("soft", "hard"),
    "labels": ("auto", "single", "multi"),
}
TRACKERS = ("tensorboard", "wandb", "mlflow")
"""What `log=` may name."""
KINDS = {key: get_args(hint) or (hint,) for key, hint in get_type_hints(Recipe).items() if key != "changes"}
KEYS = tuple(key for key in KINDS if key != "model")
# fmt: off
LIMITS: dict[str, tuple[float, float]] = {
    "epochs": (1, inf), "patience": (1, inf), "hours": (1e-6, inf), "batch": (1, inf), "accumulate": (1, inf),
    "image_size": (1, 8192), "start_size": (1, 8192), "keep": (0, 1000), "seed": (0, inf),
    "save_minutes": (1e-6, inf),
    "lr": (0, inf), "warmup_epochs": (0, inf), "warmup_lr": (0, inf), "min_lr": (0, inf), "weight_decay": (0, inf),
    "clip": (1e-9, inf), "drop_path": (0, 0.99), "head_dropout": (0, 0.99), "label_smoothing": (0, 0.99),
    "layer_decay": (0.01, 1),
    "flip": (0, 1), "pad": (0, 1), "crop": (0.01, 1), "erase": (0, 1), "mixup": (0, inf), "cutmix": (0, inf),
    "ema": (0, 0.99999), "window": (1, inf), "workers": (0, 1024), "crop_fraction": (0.1, 1),
    "distill_weight": (0, 1), "distill_temperature": (0.01, inf),
}
# fmt: on


RANK = 8
"""Of low-rank updates, where learn=lora does not say it."""


def read_learn(learn: str) -> tuple[str, int]:
    """What learns and how much of it, ("last", 2) say: stages of last, the rank of lora, 0 of the others. Raises ValueError."""
    kind, colon, text = learn.partition(":")
    if learn in ("all", "head", "lora"):
        return learn, RANK if learn == "lora" else 0
    number = int(text) if re.fullmatch(r"[1-9][0-9]{0,3}", text) else 0
    if not number or not (kind == "lora" or (kind == "last" and number <= 4)):
        close = get_close_matches(kind, ("all", "head", "lora"), n=1, cutoff=0.6)
        hint = f"; did you mean {close[0]}{colon}{text}?" if close and learn != f"{close[0]}{colon}{text}" else ""
        raise ValueError(f"learn={learn!r} is not one of all, head, last:N with N from 1 to 4, lora, lora:RANK{hint}")
    return kind, number


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ValueError that names the file where there is none."""
    return parse_json(path.read_bytes(), path)


def parse_json(text: str | bytes, path: Path) -> dict[str, Any]:
    """The object in the text of a file. Raises ValueError that names the file where there is none."""
    try:
        data = json.loads(text if isinstance(text, str) else text.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # not JSON, not text, or brackets in brackets
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path} is damaged: it holds no names with values")
    return data


def check_key(key: str, more: tuple[str, ...] = ()) -> None:
    """Raises ValueError that names the nearest right key."""
    if key not in KEYS + more:
        close = get_close_matches(key, KEYS + more, n=1, cutoff=0.6)
        hint = f", did you mean {close[0]}?" if close else f"; allowed: {', '.join(KEYS + more)}, model.<field>"
        if key == "model":
            hint = ": the model is a word of its own before the settings, and model.<field>= changes its config"
        raise ValueError(f"no setting {key!r}{hint}")


def parse(pairs: Iterable[str], more: tuple[str, ...] = ()) -> dict[str, Any]:
    """Typed settings from `key=value` texts; `model.key=value` changes the model's config; `more` are further keys, of texts.

    Raises ValueError that says what is wrong and what is allowed.
    """
    settings: dict[str, Any] = {}
    changes: dict[str, str] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or key.startswith("-"):
            raise ValueError(f"{pair!r} is not key=value, such as epochs=5, without dashes")
        if key in settings or key.removeprefix("model.") in changes:
            raise ValueError(f"{key}= is given twice")
        if key.startswith("model."):
            changes[key.removeprefix("model.")] = text
        else:
            check_key(key, more)
            settings[key] = text if key in more else _parse(key, text)
    return settings | ({"changes": changes} if changes else {})


def revise(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """The recipe with settings replaced. Raises ValueError for an unknown key or a wrong value."""
    for key in settings:
        check_key(key, ("model", "changes"))
    return replace(recipe, **settings)


def _wanted(key: str) -> str:
    text = " or ".join(CHOICES[key]) if int in KINDS[key] and key in CHOICES else "a text"
    words = {int: "a whole number", float: "a number", str: text, bool: "true or false", NoneType: "none"}
    return " or ".join(words[kind] for kind in KINDS[key])


def _parse(key: str, text: str) -> Any:
    """The value that a command line's text stands for. Raises ValueError that says what is allowed."""
    kinds = KINDS[key]
    if NoneType in kinds and text.lower() == "none":
        return None
    if bool in kinds and text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float, str):
        if kind in kinds:
            try:
                return kind(text)
            except ValueError:
                continue
    raise ValueError(f"{key}={text} is not {_wanted(key)}")
