"""The command line: every verb does its work; every mistake is one sentence and exit code 2."""

import csv
import json
import re
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from tests.tiny import QUICK, after_steps, command, pairs, same, timeless, weights

from metaformer import Run, __version__, list_models
from metaformer.data.sources import open_data
from metaformer.lab import jobs
from metaformer.lab.doctor import examine
from metaformer.lab.tables import columns, model_table, settings_table
from metaformer.runs import FILES

pytestmark = pytest.mark.usefixtures("thread", "here")


@pytest.fixture
def copy(run: Run, here: Path) -> Path:
    """A copy of the finished run, in `runs/tiny`."""
    shutil.copytree(run.path, here / "runs" / "tiny")
    return Path("runs/tiny")


@pytest.fixture(scope="module")
def images(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three images."""
    folder, val = tmp_path_factory.mktemp("images"), open_data(run.recipe.data).val
    for i in range(3):
        Image.fromarray(val.image(i)[0].numpy()).save(folder / f"{i}.png")
    return folder


# --- verbs ------------------------------------------------------------------------------------------------------------


def test_train_then_train_again_and_from_its_recipe(run: Run, fashion: str) -> None:
    code, out, err = command("train", "caformer_t6", f"data={fashion}", "name=mine", *pairs(QUICK))
    assert (code, err) == (0, "")
    mine = Run(Path("runs/mine"))
    assert same(weights(mine.last), weights(run.last))
    assert f"best top-1 {max(line['top1'] for line in mine.metrics):.2f} % on 40 held-out images" in out
    told = re.findall(r"^  (\S+) {2,}\S", out, re.MULTILINE)
    assert "Everything is in runs/mine:" in out
    assert (
        {*told}
        == {path.name for path in mine.path.iterdir()} & FILES.keys()
        >= {"recipe.json", "metrics.jsonl", "best", "last"}
    )

    before = {
        path: path.read_bytes() for path in mine.path.rglob("*") if path.suffix in (".json", ".jsonl", ".safetensors", ".pt")
    }
    code, out, err = command("train", "runs/mine/")  # with a slash, as a shell completes it
    assert (code, err) == (0, "")
    assert "runs/mine is finished: 2 of 2 epochs" in out
    assert before == {path: path.read_bytes() for path in before}

    code, _, err = command("train", "runs/mine/recipe.json", "root=elsewhere")
    assert (code, err) == (0, "")
    (again,) = Path("elsewhere").iterdir()
    assert again.name == "caformer_t6-fashion"
    assert same(weights(Run(again).last), weights(mine.last))
    assert timeless(Run(again).metrics) == timeless(mine.metrics)
    assert Run(again).recipe == mine.recipe


def test_ctrl_c_is_exit_code_130(run: Run, fashion: str, monkeypatch: pytest.MonkeyPatch) -> None:
    after_steps(monkeypatch, 2, lambda: signal.raise_signal(signal.SIGINT))
    code, out, err = command("train", "caformer_t6", f"data={fashion}", "name=mine", *pairs(QUICK))
    assert (code, err) == (130, "")
    assert out.endswith("stopped and saved; to go on: metaformer train runs/mine\n")
    assert not Run(Path("runs/mine")).finished
    code, out, err = command("train", "runs/mine")
    assert (code, err) == (0, "")
    assert "going on at epoch 1, step 3" in out
    assert same(weights(Path("runs/mine/last")), weights(run.last))


def test_eval(run: Run, copy: Path, fashion: str) -> None:
    code, text, err = command("eval", copy)
    assert (code, err) == (0, "")
    assert re.match(r"top-1 +\d\d\.\d\d %  \(", text)
    code, out, err = command("eval", copy, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["top1"] == pytest.approx(max(line["top1"] for line in run.metrics))
    assert json.loads(out)["images"] == 40
    assert command("eval", copy / "best", "--data", fashion, "--device", "cpu") == (0, text, "")


def test_probe(copy: Path, fashion: str) -> None:
    code, out, err = command("probe", copy, "k=3")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == ["probe", "linear", "k-NN"]
    code, told, err = command("probe", copy, "k=3", f"data={fashion}", "--json")
    assert (code, err) == (0, "")
    figures = json.loads(told)
    assert (figures["k"], figures["learnt"], figures["judged"], figures["features"]) == (3, 96, 40, 32)
    for line, name in zip(lines[1:], ("linear", "knn"), strict=True):
        low, high = figures[name]["interval"]
        assert f"  {figures[name]['top1']:.2f} %  {low:.2f} to {high:.2f}  " in line
    assert command("probe", copy / "best", f"data={fashion}", "k=3")[1].splitlines()[1:] == lines[1:]


def test_predict(copy: Path, images: Path) -> None:
    code, out, err = command("predict", copy, images)
    assert (code, err) == (0, "torch: nothing else was tried yet\n3 images, 0 unreadable\n")
    lines = out.splitlines()
    assert [line.split("  ")[0] for line in lines] == [str(images / f"{i}.png") for i in range(3)]
    assert all(re.fullmatch(r".+\.png  [\w/ -]+  +\d+\.\d%(  [\w/ -]+ \d+\.\d%){2}", line) for line in lines)
    code, out, err = command("predict", copy, images / "1.png", images / "0.png", "--json", "--top", "3")
    assert (code, err) == (0, "torch: nothing else was tried yet\n2 images, 0 unreadable\n")
    records = [json.loads(line) for line in out.splitlines()]
    assert [record["path"] for record in records] == [str(images / "1.png"), str(images / "0.png")]
    assert [len(record["top"]) for record in records] == [3, 3]
    assert re.search(rf"  {re.escape(records[0]['label'])} +{records[0]['probability']:.1%}  ", lines[1])


def test_predict_globs_into_files(copy: Path, images: Path) -> None:
    (images / "text.png").write_text("no image")
    code, out, _ = command("predict", copy, images / "[02].png", images / "t*", "--json", "--top", "99")
    records = [json.loads(line) for line in out.splitlines()]
    assert (code, [Path(record["path"]).name for record in records]) == (1, ["0.png", "2.png", "text.png"])
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        code, out, err = command("predict", copy, images / "[02].png", images / "t*", "--out", name, "--top", "99")
        assert (code, out) == (1, "")
        assert re.fullmatch(rf"torch: .*\n.*/text\.png: not an image .*\n3 images, 1 unreadable; written to {name}\n", err)
    (images / "text.png").unlink()
    assert [json.loads(line) for line in Path("a.jsonl").read_text().splitlines()] == records
    with Path("a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == [records[0]["label"], records[1]["label"], ""]
    assert float(rows[1]["probability_10"]) == records[1]["top"][9]["probability"]
    assert [row["error"] or "" for row in pq.read_table("a.parquet").to_pylist()] == ["", "", records[2]["error"]]
    code, out, err = command("predict", copy, images, "--out", "a.xlsx")
    assert (code, out) == (2, "")
    assert err == "metaformer: --out a.xlsx does not say a format by its suffix: .jsonl, .csv, .parquet\n"


@pytest.mark.parametrize("as_json", [True, False])
def test_predict_goes_on_past_what_it_cannot_read(copy: Path, images: Path, as_json: bool) -> None:
    Path("text.png").write_text("no image")
    options = ["--json"] if as_json else []
    code, out, err = command("predict", copy, "text.png", images / "0.png", "nothing.png", *options)
    assert code == 1
    reasons = err.splitlines()[1:]  # after what runs it
    assert [reason.split(":")[0] for reason in reasons] == ["text.png", "nothing.png", "3 images, 2 unreadable"]
    if as_json:
        records = [json.loads(line) for line in out.splitlines()]
        assert [f"{record['path']}: {record['error']}" for record in records if "error" in record] == reasons[:2]
    assert str(images / "0.png") in out


def test_runs_are_listed_and_compared(run: Run, copy: Path, here: Path) -> None:
    code, out, err = command("runs")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == ["run", "runs/tiny"]
    code, out, err = command("runs", "runs", "--json")
    (listed,) = json.loads(out)
    assert (listed["run"], listed["model"], listed["epochs"]) == ("runs/tiny", "caformer_t6", "2/2")
    shutil.copytree(copy, "runs/other")
    changed = json.loads((copy / "recipe.json").read_text()) | {"lr": 0.5}
    (Path("runs/other") / "recipe.json").write_text(json.dumps(changed))
    code, out, err = command("runs", "tiny", "runs/other", "--out", "both.png")
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert lines[:3] == [["setting", "runs/tiny", "runs/other"], ["lr", "0.005", "0.5"], []]
    assert out.endswith("\ntheir curves: both.png\n")
    assert Path("both.png").stat().st_size > 5000
    code, out, err = command("runs", "tiny", "other", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["settings"] == {"lr": [0.005, 0.5]}
    assert json.loads(out)["figures"]["best_score"] == 2 * [max(line["top1"] for line in run.metrics)]
    assert Path("compared.png").exists()


@pytest.mark.slow
def test_tune_finds_goes_on_and_says_what_to_type(fashion: str) -> None:
    fixed = [pair for pair in pairs(QUICK | {"epochs": 1}) if not pair.startswith("lr=")]
    words = ["tune", "caformer_t6", f"data={fashion}", *fixed, "lr=1e-4..1e-2", "mixup=0|0.2", "name=found", "--no-prune"]
    words += ["--trials"]
    code, out, err = command(*words, 1)
    assert (code, err) == (0, "")
    assert re.search(r"^trial 000  lr=\S+  mixup=\S+  top-1 \d+\.\d\d %, the best so far is", out, re.MULTILINE)
    assert "\nto train it again, or longer with more epochs=: metaformer train caformer_t6 data=" in out
    code, out, err = command(*words, 2, "--json", "--hours", "1")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert [trial["number"] for trial in told["trials"]] == [0, 1]
    code, out, err = command("tune", "runs/found", "--trials", "2")
    assert (code, err, "trial 000" in out) == (0, "", False)
    assert "2 finished" in out
    assert command("tune", "caformer_t6", "--hours", "0", "lr=1|2")[0] == 2


def test_weights() -> None:
    code, out, err = command("weights", "caformer_s18.in1k")
    assert (code, err) == (0, "")
    assert out.splitlines()[1].split()[:5] == ["caformer_s18", "in1k", "224", "1,000", "83.6"]


def test_models() -> None:
    code, out, err = command("models", "*_t6")
    assert (code, out, err) == (0, columns(model_table("*_t6"), right=(1, 2, 3)) + "\n", "")
    assert [line.split()[0] for line in out.splitlines()[1:]] == list_models("*_t6")


def test_settings_and_doctor() -> None:
    assert command("settings") == (0, columns(settings_table()) + "\n", "")
    assert command("settings", "devices") == (0, columns(settings_table("devices")) + "\n", "")
    code, out, err = command("doctor")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == list(examine())


def test_weights_are_listed_verified_and_converted(copy: Path) -> None:
    code, out, err = command("weights", "caformer_s18")
    assert (code, err, len(out.splitlines())) == (0, "", 6)
    code, out, err = command("convert", copy, "mine", "--to", "ours")
    assert (code, err) == (0, "")
    assert out == "read as ours; written as ours:\n  mine/model.safetensors\n  mine/model.json\n"
    assert same(weights(Path("mine")), weights(copy / "best"))
    code, _, err = command("convert", copy, "mine", "--to", "ours")
    assert (code, err) == (
        2,
        "metaformer: mine/model.safetensors exists: choose another name, or --force (force=True) to overwrite it\n",
    )
    code, out, err = command("weights", "verify", "mine/model.safetensors")
    assert (code, err) == (0, "")
    assert dict(line.split(maxsplit=1) for line in out.splitlines())["format"] == "ours"
    spoilt = {name: tensor * float("nan") for name, tensor in weights(Path("mine")).items()}
    torch.save(spoilt, "spoilt.pth")
    code, out, _ = command("weights", "verify", "spoilt.pth")
    assert (code, " NaN, 0 infinite" in out) == (1, True)
    code, _, err = command("weights", "verify")
    assert (code, err) == (2, "metaformer: verify what? metaformer weights verify FILE\n")


def test_version_and_help() -> None:
    assert command("--version") == (0, f"metaformer {__version__}\n", "")
    code, out, _ = command("--help")
    assert code == 0
    for verb in ("train", "eval", "probe", "predict", "export", "models", "weights", "settings", "doctor", "demo"):
        assert re.search(rf"\b{verb}\b", out)
        assert command(verb, "--help")[0] == 0


@pytest.mark.slow
def test_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    train = jobs.train

    def quick(*arguments: Any, **settings: Any) -> Run:
        return train(*arguments, **settings, **QUICK | {"batch": 512, "epochs": 1})

    monkeypatch.setattr(jobs, "train", quick)
    for name in ("demo", "demo-2"):
        code, out, err = command("demo")
        assert (code, err) == (0, "")
        assert f"$ metaformer eval runs/{name}\ntop-1 " in out
        assert f"$ metaformer predict runs/{name} runs/{name}/samples\n" in out
        assert len(re.findall(rf"^runs/{name}/samples/\d\d-is-\d\.png  \d \d+\.\d%", out, re.MULTILINE)) == 10
        assert f"Everything is in runs/{name}:" in out
        assert Run(Path("runs") / name).recipe.data == "digits"


# --- mistakes ---------------------------------------------------------------------------------------------------------

MISTAKES: list[tuple[str, str]] = [
    ("train caformr_t6", "no model 'caformr_t6', did you mean caformer_t6?"),
    ("train caformer_t6 epoch=3", "no setting 'epoch', did you mean epochs?"),
    ("train caformer_t6 epochs", "'epochs' is not key=value, such as epochs=5"),
    ("train caformer_t6 epochs=x", "epochs=x is not a whole number"),
    ("train caformer_t6 epochs=0", "epochs=0 is not at least 1"),
    ("train caformer_t6 lr=nan", "lr=nan is too large, or not a number at all"),
    ("train caformer_t6 lr=inf", "lr=inf is too large, or not a number at all"),
    ("train caformer_t6 seed=-1", "seed=-1 is not at least 0"),
    ("train caformer_t6 batch=99999999999999999999", "batch=99999999999999999999 is too large"),
    ("train caformer_t6 model=x", "no setting 'model'"),
    ("train caformer_t6 changes=x", "no setting 'changes'"),
    ("train caformer_t6 device=tpu", "device='tpu' is not one of auto, cpu, cuda, mps"),
    ("train caformer_t6 device=cpu:x", "device=cpu:x is not a device"),
    ("train caformer_t6 data=nothing", "nothing"),
    ("train caformer_t6 data=fashion-mnist:nothing", "nothing"),
    ("train caformer_t6 DATA model.nrm=MLN()", "a model has no 'nrm', did you mean norm?"),
    ("train caformer_t6 DATA model.norm=MNL()", "norm: unknown 'MNL', did you mean MLN?"),
    ("train caformer_t6 DATA model.num_classes=3", "model.num_classes follows from the data, 10 here: leave it out"),
    ("train caformer_t6 DATA model.norm=BatchNorm() batch=5 image_size=8", "the smallest part of a batch, 1 of 8×8 pixels"),
    ("train caformer_t6 DATA image_size=2 model.stem_stride=4", "the smallest part of a batch"),
    ("train caformer_t6 DATA name=../x", "name=../x is not the name of one folder; root= says where it goes"),
    ("train caformer_t6 DATA name=", "name= is not the name of one folder"),
    (
        "train caformer_t6 DATA name=tiny",
        "): choose another name=, or go on with it: metaformer train runs/tiny",
    ),
    ("train caformer_t6 DATA root=file.txt", "file.txt/caformer_t6"),
    ("train caformer_t6 DATA root=/proc/nothing", "/proc/nothing"),
    ("train caformer_t6 DATA name=" + "x" * 300, "File name too long"),
    ("train custom", "this run's model is code of your own"),
    ("train runs/tny", "no run 'runs/tny', did you mean runs/tiny?"),
    ("train caformer_t6 recipe=tiny", "no recipe 'tiny'; metaformer recipes lists all"),
    ("train caformer_t6 --epochs 3", "'--epochs' is not key=value, such as epochs=5, without dashes"),
    ("train runs/nothing", "no run 'runs/nothing'"),
    ("train runs", "runs is not a run directory: it has no recipe.json"),
    ("train nothing.json", "nothing.json: No such file or directory"),
    ("train file.json", "file.json is damaged"),
    ("train folder.json", "folder.json: Is a directory"),
    ("train runs/tiny epochs=3", "a run goes on with its own recipe: train runs/tiny without settings"),
    ("train runs/tiny name=other", "a run goes on with its own recipe"),
    ("train runs/tiny root=other", "a run goes on with its own recipe"),
    ("eval nothing", "no run 'nothing'"),
    ("eval runs", "runs holds no model: it has no model.json"),
    ("eval caformer_t6", "no weights are published for caformer_t6: train it, metaformer train caformer_t6, and name the run"),
    ("eval caformer_s18", "caformer_s18 is no run, so say what to judge it on"),
    ("eval runs/tiny --data nothing", "nothing"),
    ("eval runs/tiny --device tpu", "device=tpu is not to be had here"),
    ("probe nothing data=digits", "no run 'nothing'"),
    ("probe runs/tiny epochs=3", "epochs= is no setting of a probe: allowed are data, k, batch, seed, device"),
    ("probe runs/tiny k=x", "k=x is not a whole number"),
    ("probe runs/tiny k=0", "k=0 is not between 1 and 96, the training images of fashion-mnist:"),
    ("train caformer_t6 learn=last:5", "learn='last:5' is not one of all, head, last:N with N from 1 to 4, lora, lora:RANK"),
    ("predict nothing file.txt", "no run 'nothing'"),
    ("predict runs/tiny folder.json", "folder.json has no image in it"),
    ("weights caformr_s18", "no published weights match 'caformr_s18'; did you mean caformer_s18?"),
    ("models nothing*", "no model matches 'nothing*'; metaformer models lists all"),
    ("runs runs/tiny runs/tny", "no run 'runs/tny', did you mean runs/tiny?"),
    ("runs tiny runs/tiny", "two runs or more can be compared, each named once"),
    ("runs nothing", "nothing holds no run; metaformer train makes one"),
    ("tune caformer_t6 DATA", "nothing to search: give some settings a range or choices, such as lr=1e-4..1e-2"),
    ("tune caformer_t6 DATA lr=1e-2..1e-4", "lr=1e-2..1e-4 is the wrong way round: write lr=1e-4..1e-2"),
    ("tune caformer_t6 DATA lrr=1e-4..1e-2", "no setting 'lrr', did you mean lr?"),
    ("tune caformer_t6 DATA lr=1e-4..1e-2 lr=1|2", "lr= is given twice"),
    ("tune caformer_t6 DATA lr=1e-4..1e-2 lr=1", "lr= is given twice"),
    ("tune caformer_t6 DATA epochs=1..5", "epochs= cannot be searched: it must be the same in every trial"),
    ("tune caformer_t6 DATA lr=1|2 epoch=3", "no setting 'epoch', did you mean epochs?"),
    ("tune caformr_t6 DATA lr=1|2", "no model 'caformr_t6', did you mean caformer_t6?"),
    ("tune runs/tiny lr=1|2", "runs/tiny is no search: it has no tune.json. Name a model, such as caformer_t6"),
    ("tune caformer_t6 DATA lr=1|2 name=tiny", "runs/tiny exists and is not this search: choose another name="),
    ("train caformer_t6 DATA log=tensorbord", "log='tensorbord' is not one of tensorboard, wandb, mlflow"),
]


@pytest.mark.parametrize(("line", "sentence"), MISTAKES, ids=[line[:60] for line, _ in MISTAKES])
def test_a_mistake_is_one_sentence(copy: Path, fashion: str, line: str, sentence: str) -> None:
    Path("file.txt").touch()
    Path("file.json").write_text("{")
    Path("folder.json").mkdir()
    words = [f"data={fashion}" if word == "DATA" else word for word in line.split()]
    code, out, err = command(*words)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"metaformer: [^\n]+\n(  metaformer [^\n]+\n)?", err), err
    assert sentence in err
    assert sorted(path.name for path in Path().iterdir()) == ["file.json", "file.txt", "folder.json", "runs"]
    assert [path.name for path in Path("runs").iterdir()] == ["tiny"]


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("train caformr_t6 epochs=1", "train caformer_t6 epochs=1"),
        ("train caformer_t6 epoch=3 data=my_epoch", "train caformer_t6 epochs=3 data=my_epoch"),
        ("train caformer_t6 optimizer=adam", "train caformer_t6 optimizer=adamw"),
        ("train caformer_t6 model.nrm=MLN()", "train caformer_t6 'model.norm=MLN()'"),
        ("train caformer_t6 data=digitz", "train caformer_t6 data=digits"),
        ("eval runs/tny", "eval runs/tiny"),
        ("train caformer_t6 learn=lorra:4", "train caformer_t6 learn=lora:4"),
        ("predict caformr_s18 x.png", "predict caformer_s18 x.png"),
        ("eval runs/tiny --engine openvno", "eval runs/tiny --engine openvino"),
        ("train caformer_t6 --epochs 3 lr=1", "train caformer_t6 epochs=3 lr=1"),
        ("train caformer_t6 --name=a-b --save-minutes=1", "train caformer_t6 name=a-b save_minutes=1"),
        ("train caformer_t6 --epochs", "train caformer_t6 epochs=..."),
        ("settings epoch", "settings epochs"),
    ],
)
def test_a_slip_is_answered_by_the_command_that_was_meant(
    copy: Path, line: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["metaformer", *line.split()])
    code, _, err = command(*line.split())
    assert (code, err.splitlines()[1]) == (2, f"  metaformer {meant}")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("trian caformer_t6", "there is no command 'trian', did you mean train?\n  metaformer train caformer_t6"),
        ("data chekc digits", "there is no command 'chekc', did you mean check?\n  metaformer data check digits"),
        ("data shard digits", "data shard needs OUT: metaformer data shard PATH OUT"),
        ("xyz", "there is no command 'xyz': there are train, lr, eval, probe, predict, "),
        ("train", "train needs MODEL: metaformer train MODEL [KEY=VALUE]...\n"),
        ("predict runs/tiny", "predict needs PATH: metaformer predict MODEL PATH...\n"),
        ("convert in out", "convert needs --to: metaformer convert --help tells what it may be\n"),
        ("eval x --dta digits", "eval has no option '--dta', did you mean --data?\n  metaformer eval x --data digits\n"),
        ("eval x --dta=digits", "eval has no option '--dta', did you mean --data?\n  metaformer eval x --data=digits\n"),
        (
            "eval x --xyz",
            "eval has no option '--xyz': it takes --data, --corruptions, --sizes, --tta, --images, --groups, --real, --among, ",
        ),
        ("eval runs/tiny --data", "--data needs a value after it\n"),
        ("export runs/tiny onnx out more", "more is too much: metaformer export MODEL FORMAT [OUT]\n"),
        ("models a b", "b is too much: metaformer models [PATTERN]\n"),
        ("predict runs/tiny x.png --top 0", "--top: "),
        ("--nothing", "metaformer has no option '--nothing': it takes --version, --help\n"),
    ],
)
def test_a_mistyped_verb_or_option_is_explained(line: str, sentence: str) -> None:
    code, out, err = command(*line.split())
    assert (code, out) == (2, "")
    assert err.startswith(f"metaformer: {sentence}")
    assert re.fullmatch(r"metaformer: [^\n]+\n(  metaformer [^\n]+\n)?", err), err


@pytest.mark.parametrize("damage", ["recipe.json", "last/training.pt", "last/model.safetensors"])
@pytest.mark.parametrize("how", ["missing", "junk"])
def test_a_damaged_run_is_one_sentence(run: Run, copy: Path, damage: str, how: str) -> None:
    for file in (copy / damage, copy / damage.replace("last", "last.before")):  # so that there is nothing to fall back on
        file.unlink(missing_ok=True)
        if how == "junk":
            file.write_bytes(b"junk")
    code, _, err = command("train", copy)
    assert code == 2
    assert "Traceback" not in err
    assert re.fullmatch(r"metaformer: .+\n", err, re.DOTALL)
    assert damage.rpartition("/")[2] in err
    assert same(weights(copy / "best"), weights(run.best))
    assert len((copy / "metrics.jsonl").read_text().splitlines()) == 2


def test_divergence_is_one_sentence(fashion: str) -> None:
    code, _, err = command("train", "caformer_t6", f"data={fashion}", *pairs(QUICK | {"lr": 1e9, "clip": None}))
    assert code == 2
    assert re.fullmatch(
        r"metaformer: the loss or its gradient became .*; try a lower lr than 1e\+09 or nonfinite=rewind\n", err
    )


@pytest.mark.parametrize("name", ["été ☃", "with space", "-dash"])
def test_odd_names_work(fashion: str, name: str) -> None:
    code, out, err = command("train", "caformer_t6", f"data={fashion}", f"name={name}", *pairs(QUICK | {"epochs": 1}))
    assert (code, err) == (0, "")
    assert f"Everything is in runs/{name}:" in out
    assert command("eval", f"runs/{name}")[0] == 0
