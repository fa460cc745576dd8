"""A teacher has its part of what is learnt: opened from anywhere, shown the very same pixels, and no hindrance to going on."""

import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import QUICK, after_steps, begin, one_core, same, timeless, weights, write_several

import metaformer
from metaformer import MetaFormer, create_model
from metaformer.config import Recipe, read_json
from metaformer.data.dataset import Data
from metaformer.data.preprocess import Preprocess
from metaformer.data.sources import open_data
from metaformer.runs import Run, open_run
from metaformer.tasks.classification import Classification, Distillation
from metaformer.tasks.multilabel import Multilabel
from metaformer.train import task as task_module
from metaformer.train.task import Teacher, open_teacher
from metaformer.train.train import go_on, prepare
from metaformer.weights.peers import Peer, PeerConfig
from metaformer.weights.pretrained import save_file

pytestmark = pytest.mark.usefixtures("thread")

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(fashion: str) -> Data:
    return open_data(fashion)


def network(**changes: Any) -> MetaFormer:
    torch.manual_seed(7)
    settings = {"num_classes": 10, "in_chans": 1, "dims": (8, 8, 16, 16), "depths": (1, 1, 1, 1), "norm": "BatchNorm()"}
    return create_model("poolformerv2_t6", **(settings | changes))


def about(data: Data, **told: Any) -> dict[str, Any]:
    fed = {"size": 8, "mean": [0.25], "std": [0.5], "fit": "squash"}
    return {"classes": list(data.classes), "preprocess": fed} | told


@pytest.fixture(scope="module")
def teacher(data: Data, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a model whose pixels are normalised in its own way."""
    folder = tmp_path_factory.mktemp("teacher")
    metaformer.save_pretrained(network(), folder, about(data))
    return str(folder)


def quick(fashion: str, **settings: Any) -> Recipe:
    return Recipe(**{"model": "caformer_t6", "data": fashion, **QUICK, **settings})


def asked(source: str, data: Data, preprocess: Preprocess) -> torch.Tensor:
    """What a teacher says of the images that judge, as a student is fed them."""
    return open_teacher(source, data, preprocess, CPU)[0](preprocess(data.val.pixels))


# --- where it comes from, and what it is shown ------------------------------------------------------------------------


def test_it_sees_the_students_pixels_normalised_as_its_own(data: Data, teacher: str) -> None:
    expected = network().eval()(Preprocess(8, (0.25,), (0.5,))(data.val.pixels))
    found = asked(teacher, data, Preprocess(8, data.mean, data.std))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not found.requires_grad
    elsewhere = asked(teacher, data, Preprocess(8, (0.25,), (0.5,)))
    assert torch.equal(elsewhere, expected)  # nothing is changed where both are normalised alike


def test_it_comes_from_a_run_a_folder_or_a_file(run: Run, data: Data, tmp_path: Path) -> None:
    preprocess = Preprocess(8, data.mean, data.std)
    model = metaformer.from_pretrained(run.best).eval()
    save_file(model, tmp_path / "one.safetensors", read_json(run.best / "model.json"))
    for source in (run.path, run.best, tmp_path / "one.safetensors"):
        assert torch.equal(asked(str(source), data, preprocess), model(preprocess(data.val.pixels)))


def test_it_may_be_timms(data: Data, tmp_path: Path) -> None:
    peer = Peer(PeerConfig(name="test_resnet", num_classes=10, in_chans=1, image_size=32))
    metaformer.save_pretrained(peer, tmp_path, about(data))
    preprocess = Preprocess(32, (0.25,), (0.5,))
    assert torch.equal(asked(str(tmp_path), data, preprocess), peer.eval()(preprocess(data.val.pixels)))


@pytest.mark.parametrize(
    ("source", "opener"),
    [("timm:resnet18", "create_published_peer"), ("hf:me/mine", "fetch_pretrained"), ("caformer_s18.in1k", "create_published")],
)
def test_published_names_are_asked_for(data: Data, monkeypatch: pytest.MonkeyPatch, source: str, opener: str) -> None:
    def found(name: str) -> Any:
        raise OSError(f"asked for {name}")

    monkeypatch.setattr(task_module, opener, found)
    with pytest.raises(OSError, match=f"asked for {source.removeprefix('timm:')}"):
        open_teacher(source, data, Preprocess(8, data.mean, data.std), CPU)


def test_wordnets_numbers_are_names_too(data: Data, tmp_path: Path) -> None:
    known = about(data, classes=[f"name {i}" for i in range(10)], synsets=list(data.classes))
    metaformer.save_pretrained(network(), tmp_path, known)
    assert asked(str(tmp_path), data, Preprocess(8, data.mean, data.std)).shape == (40, 10)


# --- what is learnt ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(fashion: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    with one_core():
        return begin(quick(fashion, drop_path=0.2), tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def distilled(plain: Run, teacher: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    with one_core():
        return begin(replace(plain.recipe, teacher=teacher), tmp_path_factory.mktemp("distilled"))


def test_a_teacher_changes_what_is_learnt_and_nothing_else(plain: Run, distilled: Run, teacher: str, tmp_path: Path) -> None:
    assert not same(weights(distilled.last), weights(plain.last))
    silent = begin(replace(plain.recipe, teacher=teacher, distill_weight=0.0), tmp_path)
    assert same(weights(silent.last), weights(plain.last))  # to the bit: opening a teacher draws nothing
    assert timeless(silent.metrics) == timeless(plain.metrics)


@pytest.mark.parametrize(("key", "value"), [("distill", "hard"), ("distill_weight", 0.9), ("distill_temperature", 1.0)])
def test_every_setting_of_it_counts(distilled: Run, tmp_path: Path, key: str, value: Any) -> None:
    assert getattr(distilled.recipe, key) != value
    assert not same(weights(begin(replace(distilled.recipe, **{key: value}), tmp_path).last), weights(distilled.last))


def test_settings_of_the_loss_reach_the_task(fashion: str, data: Data, teacher: str) -> None:
    recipe = quick(fashion, teacher=teacher, distill_weight=0.3, distill_temperature=2.0, label_smoothing=0.2)
    task = prepare(recipe, data, None).task
    assert isinstance(task, Distillation)
    assert (task.weight, task.temperature, task.label_smoothing, task.class_weights) == (0.3, 2.0, 0.2, None)
    hard = prepare(replace(recipe, distill="hard", class_weights="balanced"), data, None).task
    assert isinstance(hard, Distillation)
    assert hard.temperature is None
    assert hard.class_weights is not None


def test_the_teacher_stays_as_it_is(fashion: str, data: Data, teacher: str) -> None:
    fit = prepare(quick(fashion, teacher=teacher), data, None)
    assert isinstance(fit.task, Distillation)
    assert isinstance(fit.task.teacher, Teacher)
    model = fit.task.teacher.model
    before = {key: value.clone() for key, value in model.state_dict().items()}  # statistics of BatchNorm too
    for batch in fit.train.epoch():
        fit.step(batch, 1e-2)
    assert same(model.state_dict(), before)
    assert not model.training
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())


def test_the_teacher_computes_in_the_runs_precision(fashion: str, data: Data, teacher: str) -> None:
    fit = prepare(quick(fashion, teacher=teacher, precision="bf16", image_size=16), data, None)
    assert isinstance(fit.task, Distillation)
    kinds: set[torch.dtype] = set()
    assert isinstance(fit.task.teacher, Teacher)
    convolution = next(m for m in fit.task.teacher.model.modules() if isinstance(m, torch.nn.Conv2d))
    convolution.register_forward_hook(lambda _, __, out: kinds.add(out.dtype))
    fit.step(next(iter(fit.train.epoch())), 1e-3)
    assert kinds == {torch.bfloat16}


def test_it_is_said(distilled: Run, fashion: str, data: Data, teacher: str) -> None:
    assert f"learns from the labels and from {teacher}" in (distilled.path / "log.txt").read_text()
    assert distilled.recipe.teacher == teacher
    notes = prepare(quick(fashion, teacher=teacher, image_size=9), data, None).notes
    assert notes[1:] == ("the teacher learnt from images of 8 pixels and is shown 9 here",)


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("distill", ["soft", "hard"])
def test_a_distilled_run_goes_on_to_the_same_bits(
    fashion: str, teacher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, distill: str
) -> None:
    drawing = {"drop_path": 0.2, "head_dropout": 0.2, "erase": 0.3, "mixup": 0.2, "cutmix": 0.5, "ema": 0.9, "accumulate": 2}
    rare = {"class_weights": "balanced", "sampling": "balanced"}
    recipe = quick(fashion, teacher=teacher, distill=distill, **drawing, **rare)
    whole = begin(recipe, tmp_path / "whole")
    with monkeypatch.context() as patch:
        after_steps(patch, steps, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            begin(recipe, tmp_path / "part")
    torch.manual_seed(999)
    part = go_on(open_run(tmp_path / "part" / "run"), open_data(fashion), None, quiet=True)
    assert timeless(part.metrics) == timeless(whole.metrics)
    for one, other in ((part.last, whole.last), (part.best, whole.best)):
        assert same(weights(one), weights(other))


@pytest.mark.parametrize("other", [False, True])
def test_a_run_goes_on_with_its_own_teacher_alone(
    fashion: str, data: Data, teacher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: bool
) -> None:
    source = shutil.copytree(teacher, tmp_path / "teacher")
    with monkeypatch.context() as patch:
        after_steps(patch, 1, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            begin(quick(fashion, teacher=str(source)), tmp_path)
    if not other:
        assert go_on(open_run(tmp_path / "run"), data, None, quiet=True).finished
        return
    changed = network()
    with torch.no_grad():
        next(changed.parameters())[0] += 1
    metaformer.save_pretrained(changed, source, about(data))
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=rf"^teacher={source} is not the one that {tmp_path / 'run'} began with: its weights"):
        go_on(open_run(tmp_path / "run"), data, None, quiet=True)
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


def test_a_run_of_before_goes_on_with_the_teacher_that_is_there(
    fashion: str, data: Data, teacher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        after_steps(patch, 1, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            begin(quick(fashion, teacher=teacher), tmp_path)
    (tmp_path / "run" / "teacher.json").unlink()
    assert go_on(open_run(tmp_path / "run"), data, None, quiet=True).finished
    assert (tmp_path / "run" / "teacher.json").is_file()


# --- several labels ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_several(tmp_path_factory.mktemp("sides"))


def test_what_images_have_decides_the_task(fashion: str, data: Data, sides: str) -> None:
    fits = prepare(quick(fashion), data, None), prepare(quick(sides, label_smoothing=0.2), open_data(sides), None)
    assert [type(fit.task) for fit in fits] == [Classification, Multilabel]
    assert [fit.about["task"] for fit in fits] == ["classification", "multilabel"]
    assert isinstance(fits[1].task, Multilabel)
    assert (fits[1].task.classes, fits[1].task.label_smoothing) == (("left", "right", "top"), 0.2)


@pytest.mark.parametrize(
    "settings",
    [
        {"teacher": "runs/x"}, {"class_weights": "balanced"}, {"sampling": "balanced"},
        {"distill": "hard"}, {"distill_weight": 0.9}, {"distill_temperature": 1.0},
    ],
    ids=str,
)  # fmt: skip
def test_what_needs_one_label_is_refused(sides: str, settings: dict[str, Any]) -> None:
    ((key, value),) = settings.items()
    with pytest.raises(ValueError, match=f"^{key}={value} is for images of one label"):
        prepare(quick(sides, **settings), open_data(sides), None)


def test_a_teacher_of_several_labels_is_refused(fashion: str, data: Data, tmp_path: Path) -> None:
    metaformer.save_pretrained(network(), tmp_path, about(data, task="multilabel"))
    with pytest.raises(ValueError, match="is no classifier of one label for each image, as the student is to be"):
        prepare(quick(fashion, teacher=str(tmp_path)), data, None)


@pytest.mark.parametrize("steps", [1, 4])
def test_a_run_of_several_labels_goes_on_to_the_same_bits(
    sides: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    drawing = {"drop_path": 0.2, "erase": 0.3, "mixup": 0.2, "cutmix": 0.5, "ema": 0.9, "accumulate": 2}
    whole = begin(quick(sides, **drawing), tmp_path / "whole")
    with monkeypatch.context() as patch:
        after_steps(patch, steps, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            begin(quick(sides, **drawing), tmp_path / "part")
    torch.manual_seed(999)
    part = go_on(open_run(tmp_path / "part" / "run"), open_data(sides), None, quiet=True)
    assert timeless(part.metrics) == timeless(whole.metrics)
    assert same(weights(part.last), weights(whole.last))
    assert same(weights(part.best), weights(whole.best))


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"distill": "hard"}, r"^distill=hard has nobody to learn from: give teacher= too, or leave it out$"),
        ({"distill_weight": 0.9}, r"^distill_weight=0\.9 has nobody to learn from"),
        ({"distill_temperature": 1.0}, r"^distill_temperature=1\.0 has nobody to learn from"),
        ({"teacher": "runs/nothing"}, r"^no run 'runs/nothing'"),
        ({"teacher": "poolformerv2_t6"}, "no weights are published for poolformerv2_t6"),
        (
            {"teacher": "timm:resnt18"},
            r"timm publishes no weights of ImageNet-1K for 'timm:resnt18', did you mean timm:resnet18",
        ),
    ],
)
def test_a_teacher_that_cannot_be_had(fashion: str, tmp_path: Path, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises((ValueError, OSError), match=sentence):
        begin(quick(fashion, **settings), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "told", "sentence"),
    [
        ({"num_classes": 3}, {"classes": ["a", "b", "c"]}, r"knows other classes than this data, class 0 is 'a' and "),
        ({}, {"classes": None}, "knows other classes than this data, 0 and 10: it must have the same in the same order"),
        ({}, {"preprocess": None}, "does not say how its pixels are normalised"),
        ({"in_chans": 3}, {"preprocess": {"size": 8, "mean": [0.5] * 3, "std": [0.5] * 3, "fit": "squash"}},
         "takes 3 channels, this data has 1"),
        ({"num_classes": 4}, {}, r"answers an image with \(4,\), not with a number for each class"),
    ],
)  # fmt: skip
def test_a_teacher_that_does_not_suit_the_data(
    fashion: str, data: Data, tmp_path: Path, changes: dict[str, Any], told: dict[str, Any], sentence: str
) -> None:
    known = {key: value for key, value in about(data, **told).items() if value is not None}
    metaformer.save_pretrained(network(**changes), tmp_path / "other", known)
    with pytest.raises(ValueError, match=f"^teacher={tmp_path / 'other'} .*{sentence}"):
        begin(quick(fashion, teacher=str(tmp_path / "other")), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_a_teacher_that_cannot_see_such_small_images(fashion: str, data: Data, tmp_path: Path) -> None:
    metaformer.save_pretrained(network(stem_stride=4), tmp_path, about(data))
    with pytest.raises(ValueError, match=r"cannot be shown images of 2 pixels: .* H and W at least 3"):
        prepare(quick(fashion, teacher=str(tmp_path), image_size=2), data, None)


def of_one_size(data: Data, folder: Path, size: int) -> str:
    """A teacher that takes images of that many pixels and no others."""
    peer = Peer(PeerConfig(name="deit_tiny_patch16_224", num_classes=10, in_chans=1, image_size=size))
    fed = {"size": size, "mean": [0.25], "std": [0.5], "fit": "squash"}
    metaformer.save_pretrained(peer, folder, about(data, preprocess=fed))
    return str(folder)


def test_a_teacher_of_one_size_and_images_that_grow(fashion: str, data: Data, tmp_path: Path) -> None:
    source, growing = of_one_size(data, tmp_path / "deit", 32), {"image_size": 32, "start_size": 16, "epochs": 3}
    with pytest.raises(ValueError, match=rf"^teacher={source} cannot be shown images of 16 pixels: "):
        begin(quick(fashion, teacher=source, **growing), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["deit"]


def test_a_teacher_sees_images_grow(fashion: str, teacher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, ask = [], task_module.Teacher.__call__

    def asked(self: task_module.Teacher, images: torch.Tensor) -> torch.Tensor:
        seen.append(images.shape[2])
        return ask(self, images)

    monkeypatch.setattr(task_module.Teacher, "__call__", asked)
    growing = {"image_size": 64, "start_size": 32, "epochs": 3, "batch": 96}
    run = begin(quick(fashion, teacher=teacher, **growing), tmp_path)
    assert seen[:2] == [32, 64]  # tried before anything is made
    assert seen[2:] == [line["image_size"] for line in run.metrics]
    assert (seen[2], seen[-1]) == (32, 64)


def test_a_smoke_test_with_a_teacher_of_one_size(fashion: str, data: Data, tmp_path: Path) -> None:
    """Shrunk to the usual 32 pixels the teacher would not do."""
    settings = {
        "teacher": of_one_size(data, tmp_path / "deit", 48),
        "image_size": 48,
        "epochs": 1,
        "batch": "auto",
        "hours": 0.5,
    }
    run = metaformer.train("caformer_t6", data=fashion, smoke=True, root=tmp_path, quiet=True, **settings)
    assert (run.recipe.image_size, run.recipe.teacher) == (48, settings["teacher"])
    assert "on a few images; batch=8 and no hours= whatever was said; NO FIGURE" in (run.path / "log.txt").read_text()


def test_the_same_classes_in_another_order_are_other_classes(fashion: str, data: Data, tmp_path: Path) -> None:
    turned = [*data.classes[:8], data.classes[9], data.classes[8]]
    metaformer.save_pretrained(network(), tmp_path / "other", about(data, classes=turned))
    with pytest.raises(ValueError, match=f"class 8 is '{data.classes[9]}' and '{data.classes[8]}'"):
        prepare(quick(fashion, teacher=str(tmp_path / "other")), data, None)
