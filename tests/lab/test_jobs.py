"""`metaformer.train`: what it takes, what it refuses, what it leaves."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import QUICK, command, same, timeless, weights

import metaformer
from metaformer import Run
from metaformer.config import Recipe, revise
from metaformer.core import ranks as core_ranks
from metaformer.core.ranks import ALONE
from metaformer.lab import jobs
from metaformer.recipes import RECIPES, SMALL
from metaformer.weights.pretrained import read_pretrained

pytestmark = pytest.mark.usefixtures("thread")


def test_a_run_directory_holds_all_that_is_promised(run: Run) -> None:
    promised = {"recipe.json", "metrics.jsonl", "last", "best", "curves.png", "confusion.png", "predictions.png", "log.txt"}
    assert promised <= {path.name for path in run.path.iterdir()}
    assert list(run.path.rglob("*.tmp")) == []
    assert all(path.stat().st_size > 5000 for path in run.path.glob("*.png"))
    assert run.finished
    assert run.recipe.epochs == len(run.metrics) == 2


def test_ctrl_c_in_the_report_says_how_to_have_it(
    fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "report", stopped)
        with pytest.raises(KeyboardInterrupt):
            metaformer.train("caformer_t6", data=fashion, name="run", root=tmp_path, **QUICK)
    assert f"to write it: metaformer train {tmp_path / 'run'}" in capsys.readouterr().out
    assert not (tmp_path / "run" / "report.html").exists()
    assert (metaformer.train(tmp_path / "run", quiet=True).path / "report.html").exists()


@pytest.mark.parametrize("why", ["a crash", "a node that came or went"])
def test_what_torchrun_starts_again_goes_on(
    fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], why: str
) -> None:
    """The run is found by its name, after a crash by the count of restarts, otherwise by the job's id."""
    monkeypatch.setattr(core_ranks, "started_together", lambda: False)  # there is no torchrun to join
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none" if why == "a crash" else "job 7")
    arguments = {"data": fashion, "name": "run", "root": tmp_path, **QUICK, "epochs": 1}
    first = metaformer.train("caformer_t6", quiet=True, **arguments)
    kept = (first.path / "metrics.jsonl").read_text()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1" if why == "a crash" else "0")
    assert metaformer.train("caformer_t6", **arguments) == first
    assert capsys.readouterr().out.startswith(f"{first.path} is finished: 1 of 1 epochs\n")
    assert (first.path / "metrics.jsonl").read_text() == kept
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none" if why == "a crash" else "job 8")
    with pytest.raises(FileExistsError, match="choose another name="):
        metaformer.train("caformer_t6", quiet=True, **arguments)


def test_what_torchrun_may_start_again_needs_a_name(fashion: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    with pytest.raises(ValueError, match="--max-restarts starts this command again: give the run a name="):
        metaformer.train("caformer_t6", data=fashion, quiet=True, **QUICK)


def test_recipe_json_repeats_the_run(run: Run, tmp_path: Path) -> None:
    again = metaformer.train(run.path / "recipe.json", root=tmp_path, quiet=True)
    assert again.recipe == run.recipe
    assert timeless(again.metrics) == timeless(run.metrics)
    assert same(weights(again.last), weights(run.last))
    assert same(weights(again.best), weights(run.best))
    assert (again.path / "confusion.png").read_bytes() == (run.path / "confusion.png").read_bytes()


def test_recipe_json_with_a_change(run: Run, tmp_path: Path) -> None:
    changed = metaformer.train(run.path / "recipe.json", name="changed", root=tmp_path, quiet=True, seed=5, epochs=1)
    assert changed.recipe == revise(run.recipe, {"seed": 5, "epochs": 1})
    assert not same(weights(changed.last), weights(run.last))


def test_a_finished_run_says_so_and_stays(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    (tmp_path / "run" / "curves.png").unlink()
    names = ("recipe.json", "metrics.jsonl", "model.json", "model.safetensors", "training.pt")
    kept = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.name in names}
    assert len(kept) == 10
    for arguments in ({"model": tmp_path / "run"}, {"model": read_pretrained(run.best)[0], "resume": tmp_path / "run"}):
        assert metaformer.train(**arguments) == Run(tmp_path / "run")
        said = capsys.readouterr().out
        assert said.startswith(f"{tmp_path / 'run'} is finished: 2 of 2 epochs\nto train longer, in a new run that starts from")
    assert (tmp_path / "run" / "curves.png").exists()
    assert {path: path.read_bytes() for path in kept} == kept
    words = said.rpartition(": metaformer ")[2].split()
    assert command(*words, f"root={tmp_path}", "epochs=1")[0] == 0  # what was said does it
    assert f"starts from {tmp_path / 'run'}" in (tmp_path / "NEW" / "log.txt").read_text()


@pytest.mark.parametrize("settings", [{"epochs": 3}, {"name": "x"}, {"root": "elsewhere"}], ids=str)
def test_a_run_goes_on_as_it_is(run: Run, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"a run goes on with its own recipe: train .* without settings, or start a new run"):
        metaformer.train(run.path, **settings)


@pytest.mark.parametrize(
    ("settings", "error", "sentence"),
    [
        ({"epoch": 3}, ValueError, r"no setting 'epoch', did you mean epochs\?"),
        ({"epochs": "3"}, ValueError, "epochs='3' is not a whole number"),
        ({"data": 3}, ValueError, "data=3 is not a text"),
        ({"changes": {"norm": metaformer.BatchNorm()}}, ValueError, "is not texts by name, such as {'norm': 'BatchNorm"),
        ({"resume": "nothing"}, FileNotFoundError, "no run 'nothing'"),
    ],
)
def test_mistakes_come_before_data_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    monkeypatch.setattr(jobs, "open_data", lambda *_, **__: pytest.fail("data was opened"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=sentence):
        metaformer.train("caformer_t6", **settings)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("model", ["nothing/here", ".", Path("nothing/else")], ids=str)
def test_a_path_that_is_no_run(model: str | Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no run '|is not a run directory: it has no recipe\.json"):
        metaformer.train(model)


def test_no_settings_is_the_small_recipe_on_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(jobs, "report", lambda *_: None)
    monkeypatch.setattr(
        jobs, "start", lambda recipe, data, model, **place: asked.append((recipe, len(data.train), model, place))
    )
    metaformer.train("caformer_t6")
    assert asked == [(SMALL, 1437, None, {"name": None, "root": "runs", "quiet": False, "ranks": ALONE})]


@pytest.mark.parametrize(
    ("settings", "name", "warmup"),
    [({}, "small", 2.0), ({"epochs": 3}, "small", 0.75), ({"epochs": 3, "warmup_epochs": 2.0}, "small", 2.0),
     ({"recipe": "photos"}, "photos", 5.0), ({"recipe": "photos", "epochs": 8}, "photos", 2.0)],
)  # fmt: skip
def test_the_recipe_s_row_and_its_warm_up(
    settings: dict[str, Any], name: str, warmup: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Recipe] = []
    monkeypatch.setattr(jobs, "report", lambda *_: None)
    monkeypatch.setattr(jobs, "start", lambda recipe, *_, **__: asked.append(recipe))
    metaformer.train("caformer_t6", **settings)
    expected = replace(RECIPES[name], warmup_epochs=warmup)
    assert asked == [replace(expected, epochs=settings.get("epochs", expected.epochs))]


def test_timm_s_models_train_here_too(fashion: str, tmp_path: Path) -> None:
    settings = {key: value for key, value in QUICK.items() if key != "changes"} | {"epochs": 1, "image_size": 32}
    run = metaformer.train("timm:test_resnet", data=fashion, root=tmp_path, quiet=True, **settings)
    judged = metaformer.evaluate(run.path)
    assert judged.top1 == pytest.approx(run.metrics[0]["top1"])


def test_a_recipe_json_takes_no_other_row(run: Run) -> None:
    with pytest.raises(ValueError, match=r"recipe\.json sets everything itself: leave recipe=photos out"):
        metaformer.train(str(run.path / "recipe.json"), recipe="photos")
