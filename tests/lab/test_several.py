"""A run whose images have several labels, from a CSV to its page, its answers and its exported file."""

import csv
import json
import re
import shutil
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import QUICK, as_single, command, one_core, write_several

import metaformer
from metaformer import Predictor, Run, evaluate
from metaformer.data.sources import open_data
from metaformer.infer.quantize import quantize
from metaformer.lab import several
from metaformer.lab.report import report
from metaformer.lab.tables import evaluation_text, run_table
from metaformer.tasks.multilabel import MultilabelEvaluation
from metaformer.weights.hub import model_card

pytestmark = pytest.mark.usefixtures("thread")


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_several(tmp_path_factory.mktemp("sides"))


SETTINGS: dict[str, Any] = QUICK | {"image_size": 12, "epochs": 6, "pad": 0.0, "flip": 0.0, "drop_path": 0.0}


@pytest.fixture(scope="module")
def run(sides: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that has learnt something."""
    with one_core():
        return metaformer.train(
            "convformer_t6", data=sides, name="sides", root=tmp_path_factory.mktemp("runs"), quiet=True, **SETTINGS
        )


@pytest.fixture(scope="module")
def judged(run: Run) -> MultilabelEvaluation:
    with one_core():
        found = evaluate(run.path)
    assert isinstance(found, MultilabelEvaluation)
    return found


def test_it_learns_and_the_best_is_that_of_the_highest_map(run: Run, judged: MultilabelEvaluation) -> None:
    values = [line["map"] for line in run.metrics]
    assert all("top1" not in line for line in run.metrics)
    assert judged.map == pytest.approx(max(values))
    assert judged.map > 80  # chance is 40
    said = json.loads((run.best / "model.json").read_text())
    assert (said["task"], said["classes"]) == ("multilabel", ["left", "right", "top"])
    assert (said["map"], said["epoch"]) == (max(values), values.index(max(values)) + 1)
    log = (run.path / "log.txt").read_text()
    assert f"best mAP {max(values):.2f} % on 40 held-out images" in log
    assert re.search(rf"epoch +1/6 .* mAP +{values[0]:.2f} %", log)
    assert "have several labels, between |; labels=single" not in log  # that is told before the run begins


def test_labels_as_single_make_another_model(sides: str, tmp_path: Path) -> None:
    data = open_data(sides, labels="multi")
    assert data.multi
    with pytest.raises(ValueError, match="has no label"):
        metaformer.train("convformer_t6", data=sides, labels="single", root=tmp_path, quiet=True, **SETTINGS)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def single(sides: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run to which a text with bars is one label."""
    data, root = as_single(sides), tmp_path_factory.mktemp("single")
    with one_core():
        return metaformer.train("convformer_t6", data=data, labels="single", root=root, quiet=True, **SETTINGS | {"epochs": 1})


def test_labels_as_single_are_learnt_as_such(single: Run) -> None:
    model = metaformer.from_pretrained(single.path)
    assert model.config.num_classes == len(open_data(single.recipe.data, labels="single").classes) > 3
    assert not Predictor(single.path).several
    assert [line.keys() & {"top1", "map"} for line in single.metrics] == [{"top1"}]
    assert evaluate(single.path).top1 == pytest.approx(single.metrics[0]["top1"])


@pytest.mark.skipif(find_spec("nncf") is None, reason="needs metaformer[fast]")
def test_labels_as_single_are_quantized_as_such(single: Run, tmp_path: Path) -> None:
    done = quantize(single.path, out=tmp_path / "q.xml", weight_only=True)
    assert (done.accuracy.images, done.accuracy.fp32_top1) == (40, pytest.approx(single.metrics[0]["top1"]))


def test_answers_are_all_labels_over_a_half_or_the_most_probable(run: Run, sides: str, judged: MultilabelEvaluation) -> None:
    data = open_data(sides)
    files = [data.val.name(i) for i in range(len(data.val))]
    answers = Predictor(run.path)(files, top=1)
    assert max(len(answer.top) for answer in answers) > 1
    for answer, row in zip(answers, judged.probabilities, strict=True):
        given = {judged.classes[k]: row[k].item() for k in range(3) if row[k] > 0.5}
        best = int(row.argmax())
        expected = given or {judged.classes[best]: row[best].item()}
        assert dict(answer.top) == pytest.approx(expected, abs=1e-4)
        assert answer.label == judged.classes[best]


def test_predict_and_eval_on_the_command_line(run: Run, sides: str, judged: MultilabelEvaluation, tmp_path: Path) -> None:
    data = open_data(sides)
    i = int(judged.called.sum(1).argmax())
    given = [judged.classes[k] for k in judged.probabilities[i].argsort(descending=True).tolist() if judged.called[i, k]]
    assert len(given) > 1
    code, out, _ = command("predict", run.path, data.val.name(i))
    assert code == 0
    assert re.findall(r"(left|right|top)\s+[\d.]+%", out) == given
    code, out, _ = command("predict", run.path, data.val.name(i), "--json")
    assert [row["label"] for row in json.loads(out)["top"]] == given
    assert command("predict", run.path, data.val.name(i), "--out", tmp_path / "a.csv")[0] == 0
    with (tmp_path / "a.csv").open() as lines:
        (row,) = csv.DictReader(lines)
    assert [row[key] for key in ("label", "label_2", "label_3") if row[key]] == given
    code, out, _ = command("eval", run.path)
    assert (code, out) == (0, evaluation_text(judged.summary()) + "\n")
    assert out.startswith(f"mAP               {judged.map:.2f} % on 40 images")
    code, out, _ = command("eval", run.path, "--json", "--data", sides)
    assert json.loads(out)["map"] == pytest.approx(judged.map)


def test_eval_names_the_class_that_is_found_worst_first(judged: MultilabelEvaluation) -> None:
    lines = evaluation_text(judged.summary()).splitlines()
    assert lines[-4].split() == ["class", "AP", "precision", "recall", "F1", "AUC", "images"]
    values = [float(line.split()[1]) for line in lines[-3:]]
    assert values == sorted(values)


def test_the_table_of_runs_says_what_it_is_judged_by(run: Run) -> None:
    best = max(line["map"] for line in run.metrics)
    assert run_table(run.path.parent)[1][-1] == f"mAP {best:.2f} %"


# --- the page ---------------------------------------------------------------------------------------------------------


class Reader(HTMLParser):
    """Sections, links within the page, and whether every tag that is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids |= {given["id"]} if given.get("id") else set()
        self.links += [given["href"]] if given.get("href") else []
        if tag not in ("meta", "link", "img", "br", "input", "path", "circle", "rect", "line", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            assert self.open.pop() == tag


def test_the_page_shows_what_several_labels_have(run: Run, judged: MultilabelEvaluation) -> None:
    text = (run.path / "report.html").read_text()
    page = Reader(text)
    assert page.open == []
    assert {"figures", "training", "classes", "mistakes", "use", "recipe"} <= page.ids
    assert not {"confusion", "roc", "calibration", "attention"} & page.ids
    assert {link.removeprefix("#") for link in page.links} <= page.ids
    assert f"<b>{judged.map:.1f}\u00a0%</b>" in text
    assert f"{int(judged.right.sum())} of 40 held-out images have all their labels right" in re.sub(r"\s+", " ", text)
    for name, row in judged.summary()["per_class"].items():
        assert re.search(rf"<tr><td>{name}</td><td[^>]*>{row['ap']:.3f}</td>", text)
    learnt = open_data(run.recipe.data).train.labels.sum(0).tolist()
    assert re.search(rf"<td>{learnt[0]}</td></tr>", text)
    assert "its mAP on these same held-out images" in re.sub(r"\s+", " ", text)
    assert json.loads((run.path / "evaluation.json").read_text()) == judged.summary()
    assert sorted(path.name for path in run.path.glob("*.png")) == ["curves.png", "predictions.png"]


def test_a_report_can_be_written_again(run: Run, tmp_path: Path, judged: MultilabelEvaluation) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    (tmp_path / "run" / "report.html").unlink()
    assert report(Run(tmp_path / "run")).summary() == judged.summary()
    assert (tmp_path / "run" / "report.html").is_file()


def test_the_surest_mistakes_come_first() -> None:
    probabilities = torch.tensor([[0.9, 0.2, 0.4], [0.99, 0.3, 0.1], [0.2, 0.7, 0.6], [0.1, 0.2, 0.05]], dtype=torch.float64)
    labels = torch.tensor([[1, 0, 0], [0, 0, 1], [0, 0, 1], [0, 1, 0]], dtype=torch.uint8)
    made = MultilabelEvaluation(probabilities.logit(), labels, ("a", "b", "c"))
    assert several.worth_seeing(made, 4).tolist() == [1, 3, 0]  # half of four are mistakes
    assert several.worth_seeing(made, 8).tolist() == [1, 3, 2, 0]
    index = torch.tensor([1, 2, 3])
    assert several.truth(made, index) == ["c", "c", "b"]
    called = several.called(made, index)
    assert [name for name, _ in called] == ["a", "b, c", "nothing"]
    assert [value for _, value in called] == pytest.approx([0.7, 0.6, 0.8])


# --- elsewhere --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["safetensors", pytest.param("torch-export", marks=pytest.mark.slow), "onnx"])
def test_an_exported_file_answers_alike(
    run: Run, sides: str, judged: MultilabelEvaluation, tmp_path: Path, format: str
) -> None:
    if format == "onnx":
        pytest.importorskip("onnxruntime", reason="needs metaformer[fast], which need not be installed")
    done = metaformer.export(run.path, format, tmp_path)
    found = evaluate(done.file, data=sides)
    assert isinstance(found, MultilabelEvaluation)
    torch.testing.assert_close(found.probabilities, judged.probabilities, rtol=0, atol=1e-3)
    files = [open_data(sides).val.name(i) for i in range(8)]
    for one, other in zip(Predictor(done.file)(files), Predictor(run.path)(files), strict=True):
        assert dict(one.top) == pytest.approx(dict(other.top), abs=1e-3)


@pytest.mark.skipif(find_spec("nncf") is None, reason="needs metaformer[fast]")
def test_quantizing_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gives an image several labels, and quantizing is measured by top-1: export it"):
        quantize(run.path, out=tmp_path / "q.xml")
    assert list(tmp_path.iterdir()) == []


def test_the_model_card_has_its_figures(run: Run, judged: MultilabelEvaluation) -> None:
    card = model_card(run.path, "user/sides")
    assert f"| mAP | {judged.map:.2f} % |" in card
    assert f"| micro F1 at 0.5 | {judged.summary()['micro_f1']:.4f} |" in card
    assert "top-1" not in card


def test_an_unknown_task_is_refused(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.best, tmp_path / "other")
    file = tmp_path / "other" / "model.json"
    file.write_text(file.read_text().replace('"multilabel"', '"detection"'))
    with pytest.raises(ValueError, match="is a model for 'detection'; this version predicts classification and multilabel"):
        Predictor(tmp_path / "other")
