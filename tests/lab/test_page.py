"""The report's page: well formed, self-contained, escaped, true to the figures, and no wider than a phone."""

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from metaformer.config import Recipe
from metaformer.core.architecture import MetaFormerConfig
from metaformer.core.mixers import Pooling
from metaformer.core.model import MetaFormer
from metaformer.data.dataset import Data
from metaformer.data.preprocess import Preprocess
from metaformer.data.splits import Images
from metaformer.infer.predictor import Predictor
from metaformer.lab.page import Judged, duration, large, page, percent
from metaformer.runs import Run
from metaformer.tasks.classification import Evaluation
from metaformer.weights.pretrained import save_pretrained

SECTIONS = ("figures", "training", "confusion", "classes", "roc", "calibration", "mistakes", "attention", "use", "recipe")
CHROMIUM = shutil.which("chromium")


def images(n: int, classes: int, channels: int, side: int) -> Images:
    """Noise with labels that go round, so that all classes have images if there are enough."""
    generator = torch.Generator().manual_seed(n + classes)
    pixels = torch.randint(256, (n, channels, side, side), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.arange(n) % classes)


def logits(labels: Tensor, classes: int, knows: float) -> Tensor:
    generator = torch.Generator().manual_seed(classes)
    made = torch.randn(len(labels), classes, generator=generator)
    made[torch.arange(len(labels)), labels] += knows
    return made


def judged(
    folder: Path, *, classes: int = 10, n: int = 200, channels: int = 3, side: int = 20, knows: float = 2.5, epochs: int = 3
) -> Judged:
    """A run of a tiny model whose answers were made up."""
    run = Run(folder / "runs" / "a run")
    run.path.mkdir(parents=True, exist_ok=True)
    recipe = Recipe(model="caformer_t6", data="somewhere:/data/birds & <bees>", epochs=epochs)
    (run.path / "recipe.json").write_text(json.dumps(recipe.to_dict()))
    lines = [
        {"epoch": i + 1, "train_loss": 2 / (i + 1), "val_loss": 1.5 / (i + 1), "top1": (60.0, 71.5, 70.0)[i % 3],
         "lr": 1e-3 / (i + 1), "seconds": 30.0, "images_per_second": 50.0}
        for i in range(epochs)
    ]  # fmt: skip
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    names = (r'<b>&"x"', "it's {{ braces }}", *(f"class {i}" for i in range(2, classes)))[:classes]
    torch.manual_seed(0)
    config = MetaFormerConfig(depths=(1,) * 4, dims=(8,) * 4, mixers=Pooling(), num_classes=classes, in_chans=channels)
    preprocess = Preprocess(32, (0.5,) * channels, (0.25,) * channels)
    about = {"classes": list(names), "preprocess": preprocess.to_dict()}
    save_pretrained(MetaFormer(config), run.path / "best", about)
    val = images(n, classes, channels, side)
    data = Data(images(3 * n, classes, channels, side), val, names, channels, side, False)
    evaluation = Evaluation(logits(val.labels, classes, knows), val.labels, names)
    return Judged(run, data, Predictor(run.path, device="cpu"), evaluation, evaluation.summary())


def test_epochs_are_those_that_the_hours_left_time_for(tmp_path: Path) -> None:
    told = judged(tmp_path, epochs=3)
    recipe = replace(told.run.recipe, epochs=1, hours=1.0)
    (told.run.path / "recipe.json").write_text(json.dumps(recipe.to_dict()))
    (told.run.path / "last").mkdir()
    (told.run.path / "last" / "model.json").write_text(json.dumps({"epoch": 3, "planned": 2.4}))
    text = page(told)
    assert "Judged are the weights of epoch 2 of 3." in text
    assert "so the figures flatter the model a little" in text


VOID = {"meta", "img", "br"}


class Reader(HTMLParser):
    """Tags that must balance, their attributes, and the text by section."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.sections: dict[str, str] = {}
        self.section = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, attrs)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self.section = dict(attrs)["id"] or ""

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag
        if tag == "section":
            self.section = ""

    def handle_data(self, data: str) -> None:
        self.sections[self.section] = self.sections.get(self.section, "") + data


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    return judged(tmp_path_factory.mktemp("ten"))


@pytest.fixture(scope="module")
def text(made: Judged) -> str:
    return page(made)


def test_all_sections_are_there_and_can_be_reached(text: str) -> None:
    reader = read(text)
    assert tuple(value for tag, name, value in reader.attributes if (tag, name) == ("section", "id")) == SECTIONS
    assert [value for tag, name, value in reader.attributes if (tag, name) == ("a", "href")] == [f"#{s}" for s in SECTIONS]
    ids = [value for _, name, value in reader.attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_nothing_comes_from_elsewhere(text: str) -> None:
    for tag, name, value in read(text).attributes:
        assert name not in {"srcset", "action", "data", "poster"}, (tag, name)
        assert not name.startswith("on"), (tag, name)
        if name == "src":
            assert value.startswith("data:image/"), value[:40]
        if name in {"href", "xlink:href"}:
            assert value.startswith("#"), value
    assert not re.search(r"https?:|(?<![:\w])//\w|@import|url\(", re.sub(r"data:image/\w+;base64,[\w+/=]+", "", text))
    assert not re.search(r"<(script|link|iframe|object|embed)\s", text)


def test_names_are_escaped(text: str) -> None:
    assert '<b>&"' not in text
    sections = read(text).sections
    for section in ("confusion", "classes", "roc", "mistakes", "attention"):
        assert '<b>&"x"' in sections[section], section
    assert "it's {{ braces }}" in sections["classes"]
    assert "somewhere:/data/birds & <bees>" in sections["training"]


def test_figures_are_those_of_the_evaluation(made: Judged, text: str) -> None:
    sections, found = {key: " ".join(value.split()) for key, value in read(text).sections.items()}, made.summary
    assert f"{found['top1']:.1f} %" in sections["figures"]
    assert f"{found['top1_interval'][0]:.1f} to {found['top1_interval'][1]:.1f}" in sections["figures"]
    assert f"{found['top5']:.1f} %" in sections["figures"]
    for key, digits in (("macro_f1", 3), ("macro_auc", 4), ("loss", 3), ("brier", 3)):
        assert f"{found[key]:.{digits}f}" in sections["figures"]
    assert f"{100 * found['ece']:.1f} %" in sections["figures"]
    for name, row in found["per_class"].items():
        figures = f"{name}{row['precision']:.3f}{row['recall']:.3f}{row['f1']:.3f}{row['auc']:.4f}{row['support']}60"
        assert figures in sections["classes"]
    heat = found["temperature"]
    assert f"{100 * heat['ece_before']:.1f} %{100 * heat['ece_after']:.1f} %" in sections["calibration"]
    assert f"at T = {heat['temperature']:.2f}" in sections["calibration"]
    counts = made.evaluation.confusion()
    worst = counts.clone().fill_diagonal_(0)
    i, j = divmod(int(worst.argmax()), 10)
    names = made.evaluation.classes
    assert f"{names[i]} {names[j]} {worst[i, j]}"[:5] in sections["confusion"]
    assert f"{counts[2, 2]} of {names[2]} called {names[2]}" in text
    mistake = made.evaluation.confidence[~made.evaluation.right].max().item()
    assert percent(mistake, 0).replace("\xa0", " ") in sections["mistakes"]


def test_says_that_the_epoch_was_chosen_on_the_same_images(tmp_path: Path, text: str) -> None:
    assert "Epoch 2 was kept because its top-1 on these same held-out images was the highest" in text
    assert "was kept because" not in page(judged(tmp_path, epochs=1))  # nothing was chosen


def test_says_how_to_repeat_and_use_it(made: Judged, text: str) -> None:
    said = read(text).sections["use"]
    assert f"metaformer train '{made.run.path}/recipe.json'" in said
    assert f"metaformer predict '{made.run.path}' IMAGE..." in said
    assert f'metaformer.Predictor("{made.run.path}")' in said


def test_a_model_of_the_users_own_must_be_given_again(made: Judged, tmp_path: Path) -> None:
    run = Run(tmp_path / "own")
    shutil.copytree(made.run.path, run.path)
    (run.path / "recipe.json").write_text(json.dumps(Recipe(model="custom").to_dict()))
    said = read(page(replace(made, run=run))).sections["use"]
    assert "metaformer train" not in said
    assert "metaformer.train(model, ...)" in said
    assert 'own", model=model)' in said


def test_unreadable_images_are_counted(made: Judged, tmp_path: Path) -> None:
    assert "Unreadablenone" in read(page(made)).sections["training"]
    run = Run(tmp_path / "bad")
    shutil.copytree(made.run.path, run.path)
    (run.path / "bad_images.csv").write_text('path,reason\na.jpg,"cut\nshort"\nb.jpg,empty\n')
    assert "2 left out, listed in bad_images.csv" in page(replace(made, run=run))


def test_the_day_is_that_of_the_log(made: Judged, tmp_path: Path) -> None:
    run = Run(tmp_path / "dated")
    shutil.copytree(made.run.path, run.path)
    (run.path / "log.txt").write_text("2026-11-21 10:00:00 caformer_t6\n")
    assert "· 2026-11-21" in page(replace(made, run=run))


def test_same_run_same_page(made: Judged, text: str) -> None:
    again = Judged(made.run, made.data, Predictor(made.run.path, device="cpu"), made.evaluation, made.summary)
    assert page(again) == text


def test_the_model_is_left_as_it_was(made: Judged) -> None:
    before = {key: value.clone() for key, value in made.predictor.model.state_dict().items()}
    page(made)
    assert all(torch.equal(before[key], value) for key, value in made.predictor.model.state_dict().items())
    assert all(parameter.grad is None for parameter in made.predictor.model.parameters())
    assert not made.predictor.model.training


EDGES: dict[str, dict[str, Any]] = {
    "two classes": {"classes": 2, "n": 40},
    "four images": {"classes": 3, "n": 4},
    "one image": {"classes": 2, "n": 1},
    "no mistakes": {"classes": 4, "n": 40, "knows": 100.0},
    "only mistakes": {"classes": 4, "n": 40, "knows": -100.0},
    "grey": {"channels": 1},
    "photographs": {"classes": 3, "n": 12, "side": 300},
    "one epoch": {"epochs": 1},
    "three hundred epochs": {"epochs": 300},
    "a hundred classes": {"classes": 100, "n": 500},
}


@pytest.mark.parametrize("case", EDGES)
def test_edges(case: str, tmp_path: Path) -> None:
    made = judged(tmp_path, **EDGES[case])
    text = page(made)
    sections = read(text).sections
    assert "nan" not in " ".join(sections.values()).lower().split()
    assert "None" not in " ".join(sections.values()).split()
    assert (f"Only {made.summary['images']} held-out image" in sections["figures"]) == (made.summary["images"] < 100)
    assert ("every held-out image is called what it is" in sections["mistakes"]) == (made.summary["top1"] == 100)
    assert ("Top-5" in sections["figures"]) == (len(made.evaluation.classes) > 5)
    assert "for " in sections["attention"]
    assert len(text) < 3e6


def test_a_thousand_classes_fit(tmp_path: Path) -> None:
    made = judged(tmp_path, classes=1000, n=2000, side=96, knows=4.0)
    text = page(made)
    assert read(text).sections["classes"].count("class ") >= 998
    assert "ten classes with the smallest area" in text
    assert len(text.encode()) < 10e6


def test_words() -> None:
    assert [large(value) for value in (12, 1234, 1_578_970, 3.9e9)] == ["12", "1.23 k", "1.58 M", "3.9 G"]
    assert [duration(value) for value in (4.4, 59.7, 75, 7322)] == ["4 s", "1 min 0 s", "1 min 15 s", "2 h 2 min"]
    assert (percent(None), percent(0.1234), percent(1, 0)) == ("–", "12.3\xa0%", "100\xa0%")


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
@pytest.mark.parametrize("case", ["a hundred classes", "two classes", "photographs"])
def test_no_wider_than_a_phone_and_sortable(case: str, tmp_path: Path) -> None:
    """In a frame of 390 pixels: nothing to scroll sideways; a click on a column's name sorts by it, another one turns it."""
    made = judged(tmp_path, **EDGES[case])
    script = """
      const frame = document.querySelector("iframe"), report = frame.contentDocument;
      const recalls = () => [...report.querySelectorAll(".sortable tbody tr")].map(row => row.cells[2].textContent).join(" ");
      const button = report.querySelectorAll(".sortable th button")[2], found = {wide: report.documentElement.scrollWidth};
      button.click(); found.down = recalls(); button.click(); found.up = recalls();
      found.errors = frame.contentWindow.errors || 0;
      document.body.textContent = "FOUND" + JSON.stringify(found) + "END";
    """
    frame = f'<iframe width="390" height="844" style="border:0" srcdoc="{html.escape(page(made))}"></iframe>'
    wrapper = tmp_path / "wrapper.html"
    wrapper.write_text(f"<!DOCTYPE html><meta charset=utf-8><body>{frame}<script>onload = () => {{{script}}}</script>")
    quiet = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}"]  # fmt: skip
    command = [CHROMIUM or "", "--headless", "--no-sandbox", *quiet, "--dump-dom", wrapper.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    found = json.loads(html.unescape(done.stdout.split("FOUND")[1].split("END")[0]))
    recalls = sorted(row["recall"] for row in made.summary["per_class"].values())
    assert found["wide"] <= 390
    assert found["up"].split() == [f"{value:.3f}" for value in recalls]
    assert found["down"].split() == [f"{value:.3f}" for value in reversed(recalls)]
