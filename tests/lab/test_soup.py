"""A soup: the mean it is, what it is worth, when it is kept, and what cannot be averaged."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.tiny import QUICK, as_single, command, one_core, same, weights, write_several
from torch import Tensor

import metaformer
from metaformer import Run
from metaformer.data.sources import open_data
from metaformer.lab.soup import mean

pytestmark = pytest.mark.usefixtures("thread", "here")


def noise(value: Tensor, seed: int) -> Tensor:
    """Large enough that a model that it is added to knows nothing."""
    spread = 3 * value.std(correction=0).clamp(min=0.1)
    return spread * torch.randn(value.shape, generator=torch.Generator().manual_seed(seed))


def variant(run: Run, name: str, change: Callable[[str, Tensor], Tensor]) -> Path:
    """A run whose best weights are changed."""
    path = Path("runs") / name
    shutil.copytree(run.path, path)
    changed = {key: change(key, value) if value.is_floating_point() else value for key, value in weights(run.best).items()}
    save_file(changed, path / "best" / "model.safetensors")
    return path


def numbered(sign: float) -> Callable[[str, Tensor], Tensor]:
    """Adds or takes away the same noise, another for each value."""
    return lambda key, value: value + sign * noise(value, len(key) + value.numel())


@pytest.fixture
def pair(run: Run) -> tuple[Path, Path]:
    """Two runs that know nothing and whose mean is the run they were made from."""
    return variant(run, "plus", numbered(1.0)), variant(run, "minus", numbered(-1.0))


@pytest.fixture(scope="module")
def kept(fashion: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that kept the weights of three epochs."""
    settings = QUICK | {"epochs": 4, "keep": 3}
    with one_core():
        return metaformer.train("caformer_t6", data=fashion, root=tmp_path_factory.mktemp("kept"), quiet=True, **settings)


def top1(run: Run | Path, fashion: str) -> float:
    return metaformer.evaluate(run.path if isinstance(run, Run) else run, data=fashion).top1


def test_the_mean_by_value(pair: tuple[Path, Path], run: Run) -> None:
    folders = [path / "best" for path in pair]
    found, states = mean(folders), [weights(folder) for folder in folders]
    for key, value in found.items():
        assert torch.equal(value, ((states[0][key].double() + states[1][key].double()) / 2).float())
    assert same(mean(folders[:1]), states[0])
    original = weights(run.best)
    assert max((found[key] - original[key]).abs().max() for key in original) < 1e-5


def test_a_soup_that_is_better_is_written_and_every_verb_opens_it(pair: tuple[Path, Path], run: Run, fashion: str) -> None:
    made = metaformer.soup(*pair)
    assert made.folder == Path("runs/soup")
    assert [one.folder for one in made.ingredients] == [path / "best" for path in pair]
    assert [one.used for one in made.ingredients] == [True, True]
    assert made.score == pytest.approx(top1(run, fashion)) == pytest.approx(top1(made.folder, fashion))
    assert [one.score for one in made.ingredients] == pytest.approx([top1(path, fashion) for path in pair])
    assert (made.key, made.score > made.best.score + 20) == ("top1", True)
    assert (made.images, made.renewed) == (40, False)
    about = json.loads((made.folder / "model.json").read_text())
    assert (about["top1"], about["images"]) == (made.score, 40)
    assert about["soup"] == {"of": ["plus/best", "minus/best"], "greedy": False}
    assert same(weights(made.folder), mean([path / "best" for path in pair]))
    assert command("eval", made.folder, "--data", fashion)[0] == 0
    assert command("predict", made.folder, run.path / "predictions.png")[0] == 0
    again = metaformer.train("caformer_t6", data=fashion, weights=str(made.folder), quiet=True, **QUICK)
    assert f"starts from {made.folder}" in (again.path / "log.txt").read_text()


def test_a_soup_that_is_worse_is_told_and_not_written(run: Run, pair: tuple[Path, Path], fashion: str) -> None:
    good = variant(run, "good", lambda _, value: value)
    code, out, err = command("soup", good, pair[0])
    assert (code, err) == (1, "")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["weights", "top-1", "in", "the", "soup"]
    assert lines[1] == ["runs/good/best", f"{top1(run, fashion):.2f}", "%", "yes"]
    assert lines[3][:3] == ["soup", "of", "2"]
    assert "Not written: runs/good/best is better; --greedy leaves out what does no good, --force writes it" in out
    assert not Path("runs/soup").exists()
    code, out, err = command("soup", good, pair[0], "--force", "--out", "forced")
    assert (code, err) == (0, "")
    assert "Next: metaformer predict forced IMAGE..." in out
    assert json.loads(Path("forced/model.json").read_text())["top1"] < top1(run, fashion)


def test_greedy_takes_in_what_does_not_harm(run: Run, pair: tuple[Path, Path]) -> None:
    good, same_again = (variant(run, name, lambda _, value: value) for name in ("good", "same"))
    made = metaformer.soup(pair[0], good, same_again, pair[1], greedy=True)
    assert [one.used for one in made.ingredients] == [False, True, True, False]
    assert made.score == made.best.score
    assert made.folder is not None
    assert same(weights(made.folder), weights(run.best))
    assert json.loads((made.folder / "model.json").read_text())["soup"] == {
        "of": ["good/best", "same/best"],
        "greedy": True,
    }


def test_a_single_run_s_epochs(kept: Run, fashion: str) -> None:
    code, out, err = command("soup", kept.path, "--force")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()[1:4]] == [str(kept.path / "epochs" / f"0000{i}") for i in (2, 3, 4)]
    for line, record in zip(out.splitlines()[1:4], kept.metrics[1:], strict=True):
        assert float(line.split()[1]) == pytest.approx(record["top1"])
    assert same(weights(kept.path / "soup"), mean(kept.kept))
    assert top1(kept.path / "soup", fashion) == json.loads((kept.path / "soup/model.json").read_text())["top1"]
    shutil.rmtree(kept.path / "soup")


def test_statistics_are_taken_anew(fashion: str) -> None:
    changes = {**QUICK["changes"], "norm": "BatchNorm()"}
    run = metaformer.train("caformer_t6", data=fashion, quiet=True, **QUICK | {"changes": changes})
    spoilt, other = (
        variant(run, f"by{by}", lambda key, value, by=by: value + by if "running_mean" in key else value) for by in (50, 70)
    )
    plain = variant(run, "plain", lambda _, value: value)
    made, clean = (metaformer.soup(plain, one, out=f"of-{one.name}", force=True) for one in (spoilt, other))
    assert made.renewed
    assert "BatchNorm's statistics were taken anew" in str(made)
    assert same(weights(Path("of-by50")), weights(Path("of-by70")))  # whatever they were
    assert made.score == clean.score
    moved = [key for key, value in weights(Path("of-by50")).items() if not torch.equal(value, weights(run.best)[key])]
    assert moved
    assert {key.rpartition(".")[2] for key in moved} <= {"running_mean", "running_var", "num_batches_tracked"}
    hopeless = variant(run, "hopeless", numbered(1.0))
    alone = metaformer.soup(plain, hopeless, out="greedy", greedy=True)
    assert ([one.used for one in alone.ingredients], alone.renewed) == ([True, False], False)
    assert same(weights(Path("greedy")), weights(run.best))  # one model's own statistics are its best


def test_statistics_that_were_frozen_stay(fashion: str) -> None:
    """learn=head leaves the body and what its norms keep as they were: nothing is wrong with them."""
    changes = {**QUICK["changes"], "norm": "BatchNorm()"}
    run = metaformer.train("caformer_t6", data=fashion, quiet=True, **QUICK | {"changes": changes})
    settings = QUICK | {"changes": changes, "weights": str(run.path), "learn": "head", "freeze_norms": True, "epochs": 1}
    heads = [metaformer.train("caformer_t6", data=fashion, name=f"head{i}", quiet=True, seed=i, **settings) for i in (0, 1)]
    made = metaformer.soup(*(head.path for head in heads), force=True)
    assert not made.renewed
    cooked, before = weights(Path("runs/soup")), weights(run.best)
    kept = [key for key in cooked if "running_" in key]
    assert kept
    assert all(torch.equal(cooked[key], before[key]) for key in kept)
    assert same(cooked, mean([head.best for head in heads]))


def test_low_rank_updates_are_averaged_as_weights(fashion: str, run: Run) -> None:
    settings = QUICK | {"weights": str(run.path), "learn": "lora:2", "epochs": 1}
    learnt = [metaformer.train("caformer_t6", data=fashion, name=f"lora{i}", quiet=True, seed=i, **settings) for i in (0, 1)]
    states = [weights(one.best) for one in learnt]
    assert not same(*states)
    made = metaformer.soup(*(one.path for one in learnt), force=True)
    cooked = weights(Path("runs/soup"))
    assert cooked.keys() == weights(run.best).keys()
    assert same(cooked, mean([one.best for one in learnt]))
    assert made.score == pytest.approx(top1(Path("runs/soup"), fashion))


# --- several labels ---------------------------------------------------------------------------------------------------

SIDES = QUICK | {"image_size": 12, "keep": 2}


def test_runs_of_several_labels_are_judged_by_map(tmp_path: Path) -> None:
    data = write_several(tmp_path / "sides")
    run = metaformer.train("convformer_t6", data=data, name="sides", quiet=True, **SIDES)
    made = metaformer.soup(run.path, force=True)
    assert made.folder is not None
    assert (made.key, [one.score for one in made.ingredients]) == ("map", [line["map"] for line in run.metrics])
    assert str(made).split()[:2] == ["weights", "mAP"]
    told = json.loads((made.folder / "model.json").read_text())
    assert (told["task"], told["map"]) == ("multilabel", made.score)
    assert "top1" not in told
    assert made.score == metaformer.evaluate(made.folder, data=data).map
    single = edited(run, "single", "best/model.json", task="classification")
    with pytest.raises(ValueError, match=r"^of runs/single/best and runs/sides/best only one gives images several labels"):
        metaformer.soup(run.path, single)


def test_texts_with_bars_that_were_one_label_still_are(tmp_path: Path) -> None:
    data = as_single(write_several(tmp_path / "sides"))
    run = metaformer.train("convformer_t6", data=data, labels="single", quiet=True, **SIDES)
    assert len(open_data(data, labels="single").classes) > 3
    made = metaformer.soup(run.path, force=True)
    assert [one.score for one in made.ingredients] == [line["top1"] for line in run.metrics]


def test_too_little_memory_is_a_sentence(pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("metaformer.tasks.classification.Classification.evaluate", full)
    code, _, err = command("soup", *pair)
    assert (code, err) == (2, "metaformer: cpu has too little memory; --device cpu (device=) judges there\n")


# --- what cannot be averaged ------------------------------------------------------------------------------------------


def edited(run: Run, name: str, file: str, **changes: Any) -> Path:
    """A run in which a JSON file says something else."""
    path = variant(run, name, lambda _, value: value)
    about = json.loads((path / file).read_text())
    (path / file).write_text(json.dumps(about | changes))
    return path


def test_other_kinds_are_refused(run: Run, fashion: str) -> None:
    good = variant(run, "good", lambda _, value: value)
    settings = QUICK | {"epochs": 1, "changes": {**QUICK["changes"], "dims": "(8, 8, 16, 16)", "norm": "MLN()"}}
    other = metaformer.train("caformer_t6", data=fashion, name="other", quiet=True, **settings)
    with pytest.raises(
        ValueError, match=r"^runs/other/best is of another architecture than runs/good/best \(dims, norm\): only"
    ):
        metaformer.soup(good, other.path)
    classes = edited(run, "classes", "best/model.json", classes=list("abcdefghij"))
    with pytest.raises(ValueError, match=r"^runs/classes/best knows other classes than runs/good/best"):
        metaformer.soup(good, classes)
    about = json.loads((run.best / "model.json").read_text())
    fed = edited(run, "fed", "best/model.json", preprocess=about["preprocess"] | {"fit": "pad"})
    with pytest.raises(ValueError, match="is fed its images otherwise than"):
        metaformer.soup(good, fed)
    data = edited(run, "data", "recipe.json", data="digits")
    with pytest.raises(ValueError, match="runs/data learnt from digits, runs/good from fashion-mnist:"):
        metaformer.soup(good, data)
    assert not Path("runs/soup").exists()


def test_rates_of_dropping_may_differ(run: Run) -> None:
    about = json.loads((run.best / "model.json").read_text())
    other = edited(run, "other", "best/model.json", config=about["config"] | {"drop_path": 0.3, "head_dropout": 0.1})
    assert metaformer.soup(variant(run, "good", lambda _, value: value), other).folder == Path("runs/soup")


def test_images_that_one_learnt_from_judge_no_soup(run: Run) -> None:
    one, other = (variant(run, name, lambda _, value: value) for name in ("one", "other"))
    (one / "split.csv").write_text("path,part\na,train\nb,val\n")
    (other / "split.csv").write_text("path,part\na,val\nb,train\n")
    with pytest.raises(ValueError, match="hold out other images, as their seeds drew them: no image judges both"):
        metaformer.soup(one, other)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("soup RUN", "kept the weights of 0 epochs: a soup takes two or more; train with keep=5, or name several runs"),
        ("soup RUN RUN", "the same run is named twice"),
        ("soup RUN nothing", "no run 'nothing'"),
        ("soup RUN new", "new has no weights yet: go on with it, metaformer train new"),
        ("soup RUN RUN/best", "is not a run directory"),
    ],
)
def test_mistakes_are_sentences(run: Run, line: str, sentence: str) -> None:
    Path("new").mkdir()
    shutil.copy(run.path / "recipe.json", "new")
    code, out, err = command(*line.replace("RUN", str(run.path)).split())
    assert (code, out) == (2, "")
    assert sentence in err


def test_what_is_there_is_replaced_only_when_forced_and_only_if_a_model(pair: tuple[Path, Path]) -> None:
    made = metaformer.soup(*pair, out="mine")
    with pytest.raises(FileExistsError, match=r"mine exists: choose another --out \(out=\), or --force \(force=True\)"):
        metaformer.soup(*pair, out="mine")
    assert metaformer.soup(*pair, out="mine", force=True) == made
    with pytest.raises(FileExistsError, match="runs holds more than a model, so it is not replaced"):
        metaformer.soup(*pair, out="runs", force=True)
    assert pair[0].is_dir()
