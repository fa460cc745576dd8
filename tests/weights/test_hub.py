"""To and from Hugging Face, played by a server on this machine and spoken to by the real client."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from tests.hub import LARGE, Hub
from tests.tiny import same

import metaformer
from metaformer import Predictor, Run, create_model, from_pretrained, push_to_hub, save_pretrained
from metaformer.weights import fetch
from metaformer.weights.hub import model_card


@pytest.fixture(autouse=True)
def plain_uploads(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Xet, whose server is not played here."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.utils._runtime.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")


def tiny(**changes: Any) -> metaformer.MetaFormer:
    torch.manual_seed(0)
    return create_model("poolformerv2_t6", dims=(8, 8, 8, 8), depths=(1, 1, 1, 1), num_classes=3, **changes)


def test_a_folder_and_back(tmp_path: Path) -> None:
    model = tiny()
    save_pretrained(model, tmp_path / "saved", {"note": "é"})
    assert json.loads((tmp_path / "saved" / "model.json").read_text())["note"] == "é"
    again = from_pretrained(tmp_path / "saved")
    assert again.config == model.config
    assert same(again.state_dict(), model.state_dict())
    with pytest.raises(ValueError, match="about may not have 'config': the file says that itself"):
        save_pretrained(model, tmp_path / "saved", {"config": 1})


def test_a_run(run: Run) -> None:
    assert same(from_pretrained(run.path).state_dict(), from_pretrained(run.path / "best").state_dict())


def test_a_model_of_one_s_own_mixers(tmp_path: Path) -> None:
    model = tiny(mixers=lambda dim: torch.nn.Conv2d(dim, dim, 1))
    save_pretrained(model, tmp_path / "saved")
    with pytest.raises(ValueError, match="is code of your own"):
        from_pretrained(tmp_path / "saved")
    other = tiny(mixers=lambda dim: torch.nn.Conv2d(dim, dim, 1)).apply(
        lambda m: torch.nn.init.zeros_(m.weight) if isinstance(m, torch.nn.Conv2d) else None
    )
    assert same(from_pretrained(tmp_path / "saved", other).state_dict(), model.state_dict())


def test_a_run_is_pushed_and_fetched(hub: Hub, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert push_to_hub(run.path, "user/mine", licence="mit") == f"{hub.address}/user/mine"
    assert hub.repos == {"user/mine"}
    assert [commit["summary"] for commit in hub.commits] == ["Upload model"]
    assert len(hub.uploaded) >= 1
    pushed = {name.removeprefix("user/mine/") for name in hub.files}
    assert pushed == {
        "README.md", "model.json", "model.safetensors", "recipe.json", "evaluation.json",
        "curves.png", "confusion.png", "predictions.png",
    }  # fmt: skip
    assert len(hub.files["user/mine/model.safetensors"]) >= LARGE
    assert same(from_pretrained("user/mine").state_dict(), from_pretrained(run.path).state_dict())
    assert capsys.readouterr() == ("", "")
    image = torch.full((1, 28, 28), 200, dtype=torch.uint8)
    assert Predictor("hf:user/mine")([image])[0].top == Predictor(run.path)([image])[0].top
    assert {token for path, token in hub.tokens if "/api/" in path or "HEAD" in path} == {"Bearer hf_secret"}


def test_the_card_tells_what_the_run_says(hub: Hub, run: Run) -> None:
    card = ModelCard(model_card(run.path, "user/mine", "mit"))
    figures = json.loads((run.path / "evaluation.json").read_text())
    assert card.data.license == "mit"
    assert card.data.library_name == "metaformer"
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value) == ("accuracy", round(figures["top1"], 2))
    assert result.dataset_name == "fashion-mnist"  # and not where it lies
    text = card.text
    assert "# mine" in text
    assert "A caformer_t6 trained with [metaformer](https://pypi.org/project/metaformer/) on `fashion-mnist`" in text
    assert ": 10 classes, 8 × 8 pixels." in text
    assert f"| top-1 | {figures['top1']:.2f} % |" in text
    assert f"On {figures['images']} held-out images" in text
    assert "| lr | 0.005 |" in text
    assert "![predictions.png](predictions.png)" in text
    assert "T-shirt/top, Trouser" in text
    assert 'Predictor("hf:user/mine")' in text
    assert "None" not in text
    assert "{{" not in text


@pytest.mark.parametrize(
    ("teacher", "told"), [("/home/me/runs/wise", "wise"), ("timm:resnet18", "timm:resnet18"), ("hf:me/wise", "hf:me/wise")]
)
def test_where_the_teacher_lies_is_nobodys_business(run: Run, tmp_path: Path, teacher: str, told: str) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    file = tmp_path / "run" / "recipe.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"teacher": teacher}))
    card = model_card(tmp_path / "run", "user/mine")
    assert f"| teacher | {told} |" in card
    assert "/home/me" not in card


def test_no_path_of_this_machine_is_told(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    recipe = json.loads((run.path / "recipe.json").read_text())
    here = {"weights": "/home/me/secret/base", "teacher": "/home/me/secret/large"}
    (tmp_path / "run" / "recipe.json").write_text(json.dumps(recipe | here))
    card = model_card(tmp_path / "run", "user/mine")
    assert "| weights | base |" in card
    assert "| teacher | large |" in card
    assert "secret" not in card
    (tmp_path / "run" / "recipe.json").write_text(json.dumps(recipe | {"weights": "in21k"}))
    assert "| weights | in21k |" in model_card(tmp_path / "run", "user/mine")


def test_a_saved_folder_is_pushed_too(hub: Hub, tmp_path: Path) -> None:
    save_pretrained(tiny(), tmp_path)
    push_to_hub(tmp_path, "user/plain", message="First", private=True)
    assert set(hub.files) == {f"user/plain/{n}" for n in ("README.md", "model.json", "model.safetensors")}
    assert hub.commits[0]["summary"] == "First"
    assert [asked.get("private", asked.get("visibility")) for asked in hub.created] in ([True], ["private"])
    card = hub.files["user/plain/README.md"].decode()
    assert "An image classifier, made with" in card
    for absent in ("license", "model-index", "## Figures", "## Recipe", "## Classes"):
        assert absent not in card


def test_weights_of_one_commit_go_together(hub: Hub, run: Run) -> None:
    push_to_hub(run.path, "user/mine")
    from_pretrained("user/mine")
    kept = sorted(p for p in fetch.cache_folder().rglob("*") if p.is_file() and p.suffix != ".lock")
    assert [p.name for p in kept] == ["model.json", "model.safetensors"]
    assert len({p.parent for p in kept}) == 1


def test_without_a_network(hub: Hub, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAFORMER_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match=r"^model.json of user/mine is not on this machine, and METAFORMER_OFFLINE"):
        from_pretrained("user/mine")
    monkeypatch.delenv("METAFORMER_OFFLINE")
    push_to_hub(run.path, "user/mine")
    from_pretrained("user/mine")
    asked = len(hub.asked)
    monkeypatch.setenv("METAFORMER_OFFLINE", "1")
    from_pretrained("hf:user/mine")
    assert len(hub.asked) == asked


def test_what_cannot_be_opened(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no model: it has no model.json with model.safetensors"):
        from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"^no folder a/b/c; a repository of Hugging Face is USER/NAME$"):
        from_pretrained("a/b/c")
    with pytest.raises(FileNotFoundError, match=r"^Hugging Face has no file user/none/model.json$"):
        from_pretrained("user/none")


@pytest.mark.parametrize(
    ("plan", "kind", "said"),
    [
        (["401"] * 200, OSError, "hf auth login"),
        (
            ["403"] * 200,
            PermissionError,
            "^user/mine: the server says 403 Forbidden: log in with hf auth login, or check HF_TOKEN$",
        ),
        (
            ["429"] * 200,
            ConnectionError,
            "^cannot push to user/mine: the server says 429 Too Many Requests, 5 times",
        ),
    ],
)
def test_a_push_that_is_refused(
    hub: Hub, run: Run, monkeypatch: pytest.MonkeyPatch, plan: list[str], kind: type[Exception], said: str
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.heads = plan
    with pytest.raises(kind, match=said) as caught:
        push_to_hub(run.path, "user/mine")
    assert "\n" not in str(caught.value)
    assert hub.commits == []


def test_nothing_to_push(hub: Hub, tmp_path: Path, run: Run) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run.path, copy, ignore=shutil.ignore_patterns("best", "last"))
    with pytest.raises(FileNotFoundError, match="holds no model"):
        push_to_hub(copy, "user/mine")
    assert hub.asked == []
