"""`judge`: models on the same held-out images: every figure with its interval, side by side, and what else may be asked."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metaformer.data.beside import read_groups, read_real
from metaformer.data.corrupt import SEVERITIES, read_corruptions
from metaformer.data.preprocess import LARGEST
from metaformer.data.splits import Encoded, Images, subset
from metaformer.infer import evaluate
from metaformer.infer.about import is_dense_source
from metaformer.infer.engines import Options
from metaformer.infer.predictor import Predictor
from metaformer.infer.ways import Answers, Way, ask, read_tta
from metaformer.lab.dense_judge import told_dense
from metaformer.lab.judge_figures import corrupted, difference, figures, of_groups, of_real, shown
from metaformer.lab.judge_page import page
from metaformer.runs import write_text
from metaformer.tasks.bootstrap import Bootstrap, Drawn
from metaformer.tasks.classification import Evaluation
from metaformer.weights.imagenet import SUBSETS, real_labels

AMONG = ("auto", "all", *SUBSETS)


@dataclass(frozen=True)
class Asked:
    """What else is to be measured, beside the figures of all images as they are."""

    corruptions: str = ""
    """all, or names or kinds (noise, blur, weather, digital) with commas: made worse at five severities (`data.corrupt`)."""
    sizes: str = ""
    """Sides in pixels, with commas, that images are shown with instead of the model's own."""
    tta: str = ""
    """flip, crops, or both with a comma: the logits of all that is shown of an image averaged."""
    images: int | None = None
    """How many images those three are measured on, spread over all; None for all."""
    groups: str | Path | None = None
    """A CSV with the columns image and group."""
    real: str | Path | None = None
    """ReaL's labels of ImageNet's validation set: its real.json, or auto for the copy inside timm."""
    among: str = "auto"
    """The classes that an answer is one of: all; imagenet-a or imagenet-r, their 200; auto: as the images' classes say."""
    times: int = 1000
    """Bootstrap resamples."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.among not in AMONG:
            raise ValueError(f"among={self.among!r} is not one of {', '.join(AMONG)}")
        for name in ("images", "times"):
            value = getattr(self, name)
            if value is not None and value < 2:
                raise ValueError(f"{name}={value} is not at least 2")

    @property
    def ways(self) -> dict[str, Way]:
        """The ways in which images are shown, by name. Raises ValueError with a sentence where there are no such ways."""
        found = {"tta": read_tta(self.tta)} if self.tta else {}
        found |= {f"size {side}": Way(size=side) for side in _sides(self.sizes)}
        names = read_corruptions(self.corruptions) if self.corruptions else ()
        return found | {f"{name} {severity}": Way(name, severity) for name in names for severity in SEVERITIES}


def _sides(text: str) -> list[int]:
    words = text.replace(" ", "").split(",") if text else []
    if not all(word.isdecimal() and 0 < int(word) <= LARGEST for word in words):
        raise ValueError(f"sizes={text} is not sides in pixels from 1 to {LARGEST}, such as 160,192,224")
    return [int(word) for word in words]


@dataclass(frozen=True)
class Judgement:
    """What was measured, JSON-ready, and where its page lies."""

    told: dict[str, Any]
    page: Path | None

    def to_dict(self) -> dict[str, Any]:
        """What the page is made from; of a single model, its figures are not in a list of one but beside the others."""
        models = self.told.get("models", [])
        if len(models) != 1:
            return self.told
        return {key: value for key, value in self.told.items() if key != "models"} | models[0]


def judge(
    *sources: str | Path,
    data: str | None = None,
    asked: Asked | None = None,
    out: str | Path | None = None,
    batch: int = 64,
    device: str = "auto",
    engine: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    streams: int | None = None,
) -> Judgement:
    """Judges one model or several on the same held-out images; with `out`, a folder, as eval.html and eval.json there.

    Sources, `data` and the rest as in `evaluate`; where `data` is not given, that of the first run. Every later model is also
    compared with the first on the same images. Of a model that gives an image several labels the summary alone is told. Of
    models that find objects or regions it is the figures without intervals, with speed and memory, and no page; of objects a
    results file is written too; tta is flip, scales, or both. Raises ValueError with a sentence if the models' classes are
    not the same, or if one learnt from images that judge.
    """
    asked = asked or Asked()
    if any(is_dense_source(source) for source in sources):
        _check_dense(sources, asked, streams)
        told = told_dense(
            sources, data, tta=asked.tta, out=out, device=device, precision=precision, engine=engine, threads=threads
        )
        return Judgement(told, None)
    ways = asked.ways
    if len({str(source) for source in sources}) < max(1, len(sources)):
        raise ValueError(f"models are judged once each, at least one; given: {', '.join(map(str, sources)) or 'none'}")
    how = Options(device, precision, threads, streams)
    predictors = [evaluate.open_predictor(sources[0], data, engine, how)]
    named, split = evaluate.open_own(predictors[0], sources[0], data)
    if predictors[0].several and len(sources) == 1 and asked == Asked() and out is None:
        return Judgement(evaluate.evaluate_split(predictors[0], split, batch=batch).summary(), None)
    predictors += [evaluate.open_predictor(source, named, engine, how) for source in sources[1:]]
    evaluate.check_same(sources, predictors, named)
    split, among = evaluate.among_which(predictors[0], split, asked.among)
    found = [evaluate.evaluate_split(predictor, split, batch=batch, among=among) for predictor in predictors]
    same = Same([str(source) for source in sources], predictors, split, among, [e for e in found if isinstance(e, Evaluation)])
    told: dict[str, Any] = {"data": named, "images": len(split), "classes": len(same.evaluations[0].classes)}
    told |= {"restricted": among is not None}
    told |= _figures(same, asked)
    if ways:
        told["shown"] = _shown(same, asked, ways, batch)
    return Judgement(told, None if out is None else _written(told, Path(out)))


def _check_dense(sources: Sequence[str | Path], asked: Asked, streams: int | None) -> None:
    """Raises ValueError for what is measured, or chosen, of classifiers alone."""
    for source in sources:
        if not is_dense_source(source):
            raise ValueError(f"{source} does not find objects or regions, as another of these models does: judge it alone")
    usual = asdict(Asked())
    for name, value in [*asdict(asked).items(), ("streams", streams)]:
        if value != usual.get(name) and name != "tta":
            raise ValueError(f"{name}={value} is for classifiers, and {sources[0]} finds objects or regions: leave it out")


@dataclass(frozen=True, eq=False)
class Same:
    """Models, the images that judge them all, the classes that answers are one of, and the answers."""

    names: list[str]
    predictors: list[Predictor]
    split: Images | Encoded
    among: Tensor | None
    evaluations: list[Evaluation]


def _figures(same: Same, asked: Asked) -> dict[str, Any]:
    """What follows from the answers to the images as they are, of each model and of each beside the first."""
    boot = Bootstrap(len(same.split), asked.times, asked.seed)
    groups = None if asked.groups is None else read_groups(Path(asked.groups), same.split)
    real = None if asked.real is None else _real(same, asked.real)
    models: list[dict[str, Any]] = []
    drawn: list[Drawn] = []
    for name, predictor, evaluation in zip(same.names, same.predictors, same.evaluations, strict=True):
        drawn.append(boot.figures(evaluation.logits, evaluation.labels))
        told = {"name": name, "engine": predictor.engine.name, "pixels": predictor.preprocess.size}
        told |= figures(evaluation, drawn[-1], boot)
        told |= {} if groups is None else {"groups": of_groups(evaluation, groups, boot)}
        told |= {} if real is None else {"real": of_real(evaluation, real, boot)}
        models.append(told)
    each = [*zip(same.evaluations, models, drawn, strict=True)]
    pairs = [{"first": same.names[0], "second": own[1]["name"], **difference(each[0], own)} for own in each[1:]]
    return {"bootstrap": {"times": asked.times, "seed": asked.seed, "level": 0.95}, "models": models, "pairs": pairs}


def _real(same: Same, file: str | Path) -> list[tuple[int, ...]]:
    if same.among is not None or len(same.evaluations[0].classes) != 1000:
        raise ValueError("ReaL's labels are of ImageNet's 1000 classes, and these answers are not one of those")
    return read_real(real_labels() if str(file) == "auto" else Path(file), same.split, 1000)


def _shown(same: Same, asked: Asked, ways: dict[str, Way], batch: int) -> dict[str, Any]:
    """What the models answer to some of the images, or to all, when these are shown in other ways."""
    count = len(same.split) if asked.images is None else min(asked.images, len(same.split))
    keep = torch.linspace(0, len(same.split) - 1, count, dtype=torch.float64).round().long()
    given = ask(same.predictors, subset(same.split, keep), [*ways.values()], among=same.among, samples=keep, batch=batch)
    boot = Bootstrap(count, asked.times, asked.seed)
    told: dict[str, Any] = {"images": count, "seed": asked.seed, "models": []}
    baseline: dict[str, Answers] | None = None
    for m, (name, evaluation) in enumerate(zip(same.names, same.evaluations, strict=True)):
        answers = {"plain": Answers.of(evaluation.logits[keep], evaluation.labels[keep])}
        answers |= {way: row[m] for way, row in zip(ways, given, strict=True)}
        few = {way: own for way, own in answers.items() if way == "plain" or ways[way].corruption is None}
        own = {"name": name, "ways": shown(few, boot)}
        worse = {way: own for way, own in answers.items() if way not in few}
        if worse:
            own["corruptions"] = corrupted(answers["plain"], worse, baseline, boot)
            baseline = baseline or answers
        told["models"].append(own)
    return told


def _written(told: dict[str, Any], folder: Path) -> Path:
    """The page, with its figures as JSON beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "eval.html"
    write_text(file.with_suffix(".json"), json.dumps(told, indent=1, allow_nan=False) + "\n")
    write_text(file, page(told))
    return file
