"""Judging models on the same images: figures, intervals, comparisons, other ways of showing, and what cannot be compared."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tests.lab.test_page import CHROMIUM, read
from tests.tiny import command, write_fashion, write_several

import metaformer
from metaformer import Run
from metaformer.core.architecture import MetaFormerConfig
from metaformer.core.mixers import Pooling
from metaformer.core.model import MetaFormer
from metaformer.data.corrupt import CORRUPTIONS
from metaformer.data.preprocess import Preprocess
from metaformer.infer.ways import Answers
from metaformer.lab.judge import Asked, judge
from metaformer.lab.judge_figures import corrupted
from metaformer.lab.judge_page import page, short
from metaformer.lab.judge_text import judged_text, markdown_tables
from metaformer.tasks.bootstrap import Bootstrap
from metaformer.weights.imagenet import class_names, real_labels, subset, synsets
from metaformer.weights.pretrained import save_pretrained

pytestmark = pytest.mark.usefixtures("thread")

QUICK = 50
"""Resamples, for speed."""
ALL = Asked(corruptions="fog,contrast", sizes="8,12", tta="flip,crops", images=20, times=QUICK)


@pytest.fixture(scope="module")
def worse(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with noise on its weights, beside the run."""
    folder = tmp_path_factory.mktemp("worse") / "worse"
    shutil.copytree(run.path, folder)
    file = folder / "best" / "model.safetensors"
    draw = torch.Generator().manual_seed(0)
    save_file({k: v + 0.2 * torch.randn(v.shape, generator=draw) for k, v in load_file(file).items()}, file, {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def told(run: Run, worse: Path) -> dict[str, Any]:
    """Both, with everything asked."""
    return judge(run.path, worse, asked=ALL).told


def test_one_model_is_told_as_evaluate_does(run: Run, tmp_path: Path) -> None:
    found = judge(run.path, asked=Asked(times=QUICK), out=tmp_path / "judged")
    summary, told = metaformer.evaluate(run.path).summary(), found.to_dict()
    for name, value in summary.items():
        if name not in ("temperature", "per_class"):
            assert told[name] == pytest.approx(value), name
    for name in ("top1", "loss", "brier", "ece", "macro_f1", "macro_auc", "aurc", "eaurc", "accuracy_at_80"):
        low, high = told["intervals"][name]
        assert low < high
        assert low - 0.2 * abs(low) <= told[name] <= high + 0.2 * abs(high), name
    assert told["temperature"]["intervals"]["nll_after"][0] < told["temperature"]["nll_after"]
    assert set(told["intervals"]["per_class"]) == set(told["per_class"])
    assert told["risk_coverage"][-1] == (1.0, pytest.approx(1 - told["top1"] / 100))
    assert sum(b["images"] for b in told["reliability"]) == told["images"] == 40
    assert found.page == tmp_path / "judged" / "eval.html"
    assert json.loads((tmp_path / "judged" / "eval.json").read_text())["models"][0]["top1"] == told["top1"]
    assert judge(run.path, asked=Asked(times=QUICK)).told == found.told  # the seed decides
    assert judge(run.path, asked=Asked(times=QUICK, seed=1)).told != found.told


def test_two_models_are_compared_on_the_same_images(run: Run, worse: Path, told: dict[str, Any]) -> None:
    one, other = metaformer.evaluate(run.path), metaformer.evaluate(worse, data=run.recipe.data)
    (pair,) = told["pairs"]
    counts = [int(((one.right == a) & (other.right == b)).sum()) for a, b in ((1, 1), (1, 0), (0, 1), (0, 0))]
    names = ("both", "only_first", "only_second", "neither")
    assert [pair["mcnemar"][name] for name in names] == counts
    assert (pair["first"], pair["second"]) == (str(run.path), str(worse))
    for name, gap in pair["differences"].items():
        assert gap["value"] == pytest.approx(told["models"][1][name] - told["models"][0][name])
    low, high = pair["differences"]["top1"]["interval"]
    assert low <= pair["differences"]["top1"]["value"] <= high


def test_images_shown_in_other_ways(run: Run, told: dict[str, Any]) -> None:
    first = told["shown"]["models"][0]
    assert list(first["ways"]) == ["plain", "tta", "size 8", "size 12"]
    assert told["shown"]["images"] == first["ways"]["tta"]["images"] == 20
    assert first["ways"]["size 8"]["top1"] == first["ways"]["plain"]["top1"]  # 8 is the model's own
    assert first["ways"]["size 8"]["gain_interval"] == (0.0, 0.0)
    assert first["ways"]["size 12"]["gain"] == pytest.approx(first["ways"]["size 12"]["top1"] - first["ways"]["plain"]["top1"])
    keep = torch.linspace(0, 39, 20, dtype=torch.float64).round().long()
    right = metaformer.evaluate(run.path).right[keep]
    assert first["ways"]["plain"]["top1"] == pytest.approx(100 * right.double().mean().item())


def test_errors_under_corruption(told: dict[str, Any]) -> None:
    first, second = (model["corruptions"] for model in told["shown"]["models"])
    assert list(first["each"]) == ["fog", "contrast"]
    assert "mce" not in first  # it is the baseline
    ratios = [sum(second["each"][name]["errors"]) / sum(first["each"][name]["errors"]) for name in first["each"]]
    assert second["mce"]["value"] == pytest.approx(100 * sum(ratios) / 2)
    for model in (first, second):
        means = [sum(row["errors"]) / 5 for row in model["each"].values()]
        assert [row["mean"] for row in model["each"].values()] == pytest.approx(means)
        assert model["mean_error"]["value"] == pytest.approx(sum(means) / 2)
        assert len(model["each"]["fog"]["intervals"]) == 5


def test_the_first_model_is_the_baseline_of_all(run: Run, worse: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(run.path, again)
    told = judge(run.path, worse, again, asked=Asked(corruptions="fog", images=20, times=QUICK)).told
    second, third = (model["corruptions"]["mce"] for model in told["shown"]["models"][1:])
    assert third == {"value": pytest.approx(100), "interval": pytest.approx((100, 100))}
    assert second["value"] > 100
    assert [pair["first"] for pair in told["pairs"]] == [str(run.path)] * 2
    assert set(told["pairs"][1]["mcnemar"].values()) >= {0, 1.0}  # no image that only one gets right


def made_up(seed: int, part: float, names: list[str]) -> dict[str, Answers]:
    """Answers of which a part is wrong, more where images are worse."""
    draw = torch.Generator().manual_seed(seed)
    found = {}
    for place, name in enumerate(["plain", *(f"{name} {severity}" for name in names for severity in range(1, 6))]):
        right = torch.rand(400, generator=draw) > part * (1 + (place % 6) / 5)
        found[name] = Answers(right, torch.rand(400, generator=draw), torch.rand(400, generator=draw))
    return found


def test_mean_corruption_errors_by_their_definition() -> None:
    """Hendrycks and Dietterich 2019, section 4.2, in loops."""
    names = list(CORRUPTIONS)
    one, base = made_up(0, 0.4, names), made_up(1, 0.3, names)
    told = corrupted(one["plain"], {k: v for k, v in one.items() if k != "plain"}, base, Bootstrap(400, times=QUICK))

    def error(answers: dict[str, Answers], key: str) -> float:
        return 100 * sum(not value for value in answers[key].right.tolist()) / 400

    absolute, relative = [], []
    for name in names:
        keys = [f"{name} {severity}" for severity in range(1, 6)]
        absolute.append(sum(error(one, key) for key in keys) / sum(error(base, key) for key in keys))
        above = [sum(error(own, key) - error(own, "plain") for key in keys) for own in (one, base)]
        relative.append(above[0] / above[1])
    assert told["mce"]["value"] == pytest.approx(100 * sum(absolute) / 15)
    assert told["mce"]["interval"][0] < told["mce"]["value"] < told["mce"]["interval"][1]
    assert told["relative_mce"]["value"] == pytest.approx(100 * sum(relative) / 15)
    same = corrupted(base["plain"], {k: v for k, v in base.items() if k != "plain"}, base, Bootstrap(400, times=QUICK))
    assert same["mce"] == {"value": pytest.approx(100), "interval": pytest.approx((100, 100))}


def test_groups(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "groups.csv"
    file.write_text("image,group\n" + "".join(f"image {i},{'even' if i % 2 == 0 else 'odd'}\n" for i in range(39)))
    found = judge(run.path, asked=Asked(groups=file, times=QUICK)).to_dict()["groups"]
    right = metaformer.evaluate(run.path).right
    parts = {"even": right[:39:2], "odd": right[1:39:2]}
    assert {name: (own["images"], own["top1"]) for name, own in found["each"].items()} == {
        name: (len(own), pytest.approx(100 * own.double().mean().item())) for name, own in parts.items()
    }
    assert found["without"] == 1
    assert found["worst"] == min(parts, key=lambda name: parts[name].double().mean().item())


# --- ImageNet's test sets ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that knows ImageNet's classes."""
    folder = tmp_path_factory.mktemp("imagenet") / "model"
    torch.manual_seed(0)
    model = MetaFormer(MetaFormerConfig(depths=(1,) * 4, dims=(8,) * 4, mixers=Pooling(), num_classes=1000))
    preprocess = Preprocess(32, (0.5,) * 3, (0.25,) * 3).to_dict()
    save_pretrained(model, folder, {"classes": class_names(1000), "synsets": synsets(1000), "preprocess": preprocess})
    return folder


def folders(root: Path, names: list[str]) -> str:
    """An image in each class folder."""
    for place, name in enumerate(names):
        (root / name).mkdir(parents=True)
        Image.new("RGB", (32, 32), (place % 256, 90, 200)).save(root / name / f"ILSVRC2012_val_{place + 1:08d}.png")
    return str(root)


@pytest.mark.parametrize("name", ["imagenet-a", "imagenet-r"])
def test_200_classes_are_recognised_and_answers_are_among_them(imagenet: Path, tmp_path: Path, name: str) -> None:
    places = subset(name)
    assert len(places) == 200
    data = folders(tmp_path / "data", [synsets(1000)[place] for place in places])
    found = judge(imagenet, data=data, asked=Asked(times=QUICK)).told
    logits = metaformer.evaluate(imagenet, data=data).logits
    right = logits[:, list(places)].argmax(1) == torch.arange(200)
    assert found["models"][0]["top1"] == pytest.approx(100 * right.double().mean().item())
    assert (found["classes"], found["restricted"]) == (200, True)
    every = judge(imagenet, data=data, asked=Asked(times=QUICK, among="all")).told
    assert (every["classes"], every["restricted"]) == (1000, False)
    with pytest.raises(ValueError, match=r"among=imagenet-[ar]: the model's classes are not"):
        judge(imagenet, data=data, asked=Asked(times=QUICK, among={"imagenet-a": "imagenet-r"}.get(name, "imagenet-a")))


def test_numbered_folders_are_those_of_imagenet_v2(imagenet: Path, tmp_path: Path) -> None:
    data = folders(tmp_path / "data", ["10", "2", "999"])
    assert metaformer.evaluate(imagenet, data=data).labels.tolist() == [10, 2, 999]


def test_real_labels_of_the_validation_set(imagenet: Path, tmp_path: Path) -> None:
    """The first three images of the set: none, two and two labels. Folders come in the order of the classes."""
    rows = json.loads(real_labels().read_text())
    assert len(rows) == 50_000
    data = folders(tmp_path / "data", [synsets(1000)[place] for place in (0, 230, 970)])
    called = metaformer.evaluate(imagenet, data=data).predicted.tolist()
    found = judge(imagenet, data=data, asked=Asked(real="auto", times=QUICK)).to_dict()["real"]
    hits = [answer in labels for answer, labels in zip(called, rows, strict=False) if labels]
    assert (found["images"], found["left_out"]) == (2, 1)
    assert found["top1"] == pytest.approx(100 * sum(hits) / 2)
    own = tmp_path / "own.json"
    own.write_text(json.dumps([[called[0]], [(called[1] + 1) % 1000], [called[2], 5]]))
    found = judge(imagenet, data=data, asked=Asked(real=own, times=QUICK)).to_dict()["real"]
    assert found["top1"] == pytest.approx(200 / 3)


# --- what is told -----------------------------------------------------------------------------------------------------


def test_tables_say_the_figures(told: dict[str, Any]) -> None:
    text, document = judged_text(told), markdown_tables(told)
    first, second = told["models"]
    for told_text in (text, document):
        for value in (f"{first['top1']:.2f} (", f"{second['loss']:.3f} (", f"{100 * first['ece']:.2f} ("):
            assert value in told_text
        assert "McNemar's exact p" in told_text
        assert "fog" in told_text
        assert "size 12" in told_text
    assert f"| figure | {' | '.join(short([first['name'], second['name']]))} |" in document
    assert len({line.count("|") for line in document.split("\n\n")[0].splitlines()}) == 1


def test_names_lose_the_folders_that_they_share() -> None:
    assert short(["runs/a", "runs/b"]) == ["a", "b"]
    assert short(["runs/a/best", "runs/b/best"]) == ["a/best", "b/best"]
    assert short(["caformer_s18", "runs/a"]) == ["caformer_s18", "runs/a"]
    assert short(["runs/a"]) == ["runs/a"]


SECTIONS = ["figures", "paired", "calibration", "selective", "corruptions", "ways", "classes", "how"]


def test_the_page_holds_what_was_told(told: dict[str, Any]) -> None:
    text = page(told)
    reader = read(text)
    assert [value for tag, name, value in reader.attributes if (tag, name) == ("section", "id")] == SECTIONS
    links = [value for tag, name, value in reader.attributes if (tag, name) == ("a", "href")]
    assert links == [f"#{section}" for section in SECTIONS]
    assert not re.search(r"(src|href)=\"(?!#)", text)
    assert page(json.loads(json.dumps(told))) == text  # from eval.json alone
    for model in told["models"]:
        assert f"{model['top1']:.2f}" in reader.sections["figures"]
    pair = told["pairs"][0]
    assert f"{pair['differences']['loss']['value']:+.3f}".replace("-", "−") in reader.sections["paired"]
    assert f"{pair['mcnemar']['p']:.2g}" in reader.sections["paired"]
    assert f"{told['shown']['models'][1]['corruptions']['mce']['value']:.1f}" in reader.sections["corruptions"]


def test_a_page_of_one_model_has_no_comparison(run: Run) -> None:
    one = judge(run.path, asked=Asked(corruptions="fog", times=QUICK, images=10)).told
    one["data"] = "<b>&"
    reader = read(page(one))
    assert "paired" not in reader.sections
    assert "ways" not in reader.sections
    assert f"{one['shown']['models'][0]['corruptions']['each']['fog']['errors'][4]:.1f}" in reader.sections["corruptions"]
    assert "<b>&" in reader.sections[""]


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
def test_the_page_is_no_wider_than_a_phone(told: dict[str, Any], tmp_path: Path) -> None:
    frame = f'<iframe width="390" height="844" style="border:0" srcdoc="{html.escape(page(told))}"></iframe>'
    script = "document.title = document.querySelector('iframe').contentDocument.documentElement.scrollWidth"
    wrapper = tmp_path / "wrapper.html"
    wrapper.write_text(f"<!DOCTYPE html><meta charset=utf-8><body>{frame}<script>onload = () => {{{script}}}</script>")
    quiet = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync",
             "--disable-component-update", f"--user-data-dir={tmp_path / 'profile'}"]  # fmt: skip
    shell = [CHROMIUM or "", "--headless", "--no-sandbox", *quiet, "--dump-dom", wrapper.as_uri()]
    done = subprocess.run(shell, capture_output=True, text=True, check=True, timeout=120)
    width = re.search(r"<title>(\d+)</title>", done.stdout)
    assert width is not None
    assert int(width[1]) <= 390


def test_the_command(run: Run, worse: Path, here: Path) -> None:
    code, out, err = command("eval", run.path, worse, "--corruptions", "contrast", "--images", 10, "--out", "judged")
    assert (code, err) == (0, "")
    assert out.startswith("95 % of bootstrap resamples\nfigure")
    assert out.endswith("\nThe page: judged/eval.html\n")
    assert sorted(path.name for path in (here / "judged").iterdir()) == ["eval.html", "eval.json"]
    code, out, err = command("eval", run.path, worse, "--sizes", "8", "--tta", "flip", "--json")
    assert (code, err) == (0, "")
    assert [list(model["ways"]) for model in json.loads(out)["shown"]["models"]] == [["plain", "tta", "size 8"]] * 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--corruptions", "fgo"], "no corruption 'fgo', did you mean fog?"),
        (["--sizes", "8,x"], "sizes=8,x is not sides in pixels from 1 to 16384, such as 160,192,224"),
        (["--tta", "flop"], "tta='flop' is not one of flip; crops; flip,crops"),
        (["--among", "imagenet"], "among='imagenet' is not one of auto, all, imagenet-a, imagenet-r"),
        (["--among", "imagenet-a"], "among=imagenet-a: the model"),
        (["--real", "auto"], "ReaL's labels are of ImageNet's 1000 classes"),
        (["--groups", "nothing.csv"], "nothing.csv: No such file or directory"),
    ],
)
def test_a_mistake_is_one_sentence(run: Run, here: Path, words: list[str], sentence: str) -> None:
    code, out, err = command("eval", run.path, *words)
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.count("\n") <= 2


def test_what_cannot_be_compared_is_said(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="models are judged once each, at least one; given: none"):
        judge()
    with pytest.raises(ValueError, match="models are judged once each"):
        judge(run.path, run.path)
    other = tmp_path / "other"
    shutil.copytree(run.path, other)
    about = json.loads((other / "best" / "model.json").read_text())
    (other / "best" / "model.json").write_text(json.dumps(about | {"classes": about["classes"][::-1]}))
    with pytest.raises(ValueError, match=r"other and .* do not know the same classes of the same kind of images"):
        judge(run.path, other)
    drawn = tmp_path / "drawn"
    shutil.copytree(run.path, drawn)
    (drawn / "split.csv").write_text("path,part\na.png,val\n")
    with pytest.raises(ValueError, match=r"drawn and .* learnt from different parts of fashion-mnist:"):
        judge(run.path, drawn)


def test_a_model_of_several_labels_is_judged_alone(tmp_path: Path) -> None:
    data = write_several(tmp_path / "several")
    settings = {"image_size": 12, "epochs": 1, "batch": 32, "changes": {"dims": "(8, 8, 8, 8)", "depths": "(1, 1, 1, 1)"}}
    run = metaformer.train("caformer_t6", data=data, name="sides", root=tmp_path, quiet=True, **settings)
    assert judge(run.path).told == metaformer.evaluate(run.path).summary()
    assert "mAP" in judged_text(judge(run.path).told)
    with pytest.raises(ValueError, match="gives an image several labels"):
        judge(run.path, asked=Asked(tta="flip"))


def test_other_images_judge_all(run: Run, worse: Path, tmp_path: Path) -> None:
    data = write_fashion(tmp_path / "more", val=30)
    found = judge(run.path, worse, data=data, asked=Asked(times=QUICK)).told
    assert (found["data"], found["images"]) == (data, 30)
