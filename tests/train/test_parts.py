"""Which part of a model learns, and that nothing else does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import CHANGES, QUICK, begin, one_core, same, weights
from torch import nn

import metaformer
from metaformer import MetaFormer, MetaFormerConfig, Pooling, Predictor, create_model
from metaformer.config import Recipe
from metaformer.core.lora import is_updated
from metaformer.data.sources import open_data
from metaformer.runs import Run
from metaformer.train.parts import choose_parts, training_mode
from metaformer.train.train import prepare
from metaformer.weights.peers import Peer, PeerConfig

pytestmark = pytest.mark.usefixtures("thread")

NORMED = {"changes": {**CHANGES, "norm": "BatchNorm()"}}


def quick(fashion: str, **settings: Any) -> Recipe:
    return Recipe(**{"model": "caformer_t6", "data": fashion, **QUICK, **settings})


def small(name: str = "caformer_t6", **changes: Any) -> MetaFormer:
    torch.manual_seed(0)
    return create_model(name, num_classes=3, dims=(8, 8, 16, 16), depths=(1, 1, 2, 1), **changes)


def peer(name: str = "test_resnet") -> Peer:
    return Peer(PeerConfig(name=name, num_classes=3, in_chans=3, image_size=160))


def learning(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


# --- who learns -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("learn", "parts"),
    [
        ("all", ("",)),
        ("head", ("head.",)),
        ("last:1", ("stages.3.", "head.")),
        ("last:2", ("stages.2.", "stages.3.", "head.")),
        ("last:4", ("",)),
    ],
)
def test_stages_and_head(learn: str, parts: tuple[str, ...]) -> None:
    model = small()
    names = {name for name, _ in model.named_parameters()}
    said = choose_parts(model, Recipe(model="x", learn=learn))
    assert learning(model) == {name for name in names if name.startswith(parts)}
    assert {name for name, _ in model.named_parameters()} == names
    total, left = (sum(p.numel() for p in model.parameters() if p.requires_grad or every) for every in (True, False))
    sentence = f"learn={learn}: {left:,} parameters learn, {left / total:.2%} of the model's {total:,}"
    assert said == (() if learn == "all" else (sentence,))


def test_updates_and_head() -> None:
    model = small()
    own = {name: p.numel() for name, p in model.named_parameters()}
    head = {name for name in own if name.startswith("head.")}
    maps = {name: m.weight for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.groups == 1}
    assert len(maps) == 4 * 5 + 4  # two of the mixer and two of the MLP in each block; the stem and what makes maps smaller
    vectors = {name for name, p in model.named_parameters() if p.ndim < 2 and p.requires_grad}
    assert {"stages.0.embed.norm.weight", "stages.0.embed.conv.bias", "stages.3.blocks.0.mlp.branch.act.scale"} < vectors - head
    kernels = {f"stages.{i}.blocks.0.mixer.branch.dw.weight" for i in (0, 1)}
    wholly = head | vectors | kernels
    (said,) = choose_parts(model, Recipe(model="x", learn="lora:3"))
    updates = {f"{name}.parametrizations.weight.0.{part}" for name in maps for part in ("up", "down")}
    assert learning(model) == updates | wholly
    sizes = sum(min(3, len(weight)) * (len(weight) + weight[0].numel()) for weight in maps.values())
    count = sizes + sum(own[name] for name in wholly)
    total = sum(own.values())  # the updates are no part of the model
    assert said == f"learn=lora:3: {count:,} parameters learn, {count / total:.2%} of the model's {total:,}"
    assert not is_updated(model.head)


def test_updates_and_frozen_norms() -> None:
    model = small(norm="MLN(bias=True)")
    choose_parts(model, Recipe(model="x", learn="lora:3", freeze_norms=True))
    still = {name for name, p in model.named_parameters() if p.ndim < 2} - learning(model)
    assert still == {name for name, _ in model.named_parameters() if ".norm." in name}


def test_what_never_learns_does_not_begin_to() -> None:
    model = small("randformer_t6")
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert len(frozen) == 3
    choose_parts(model, Recipe(model="x", learn="last:4"))
    assert {name for name, p in model.named_parameters() if not p.requires_grad} == frozen


@pytest.mark.parametrize("norm", ["LayerNorm()", "MLN(bias=True)", "BatchNorm()"])
def test_frozen_norms(norm: str) -> None:
    model = small(norm=norm)
    choose_parts(model, Recipe(model="x", freeze_norms=True))
    still = {name for name, _ in model.named_parameters()} - learning(model)
    assert still == {name for name, _ in model.named_parameters() if ".norm." in name}
    assert {"head.norm.weight", "head.classifier.norm.bias", "stages.0.embed.norm.weight"} < still


def test_the_head_of_frozen_norms() -> None:
    model = small()
    (said,) = choose_parts(model, Recipe(model="x", learn="head", freeze_norms=True))
    assert learning(model) == {f"head.classifier.{fc}.{what}" for fc in ("fc1", "fc") for what in ("weight", "bias")}
    assert said.startswith("learn=head, norms frozen: ")


def test_a_model_of_fewer_stages() -> None:
    model = MetaFormer(MetaFormerConfig(depths=(1, 1), dims=(8, 8), mixers=Pooling(), scales=metaformer.Scale()))
    choose_parts(model, Recipe(model="x", learn="last:2"))
    assert learning(model) == {name for name, _ in model.named_parameters()}
    with pytest.raises(ValueError, match=r"^learn=last:3 is for models of more stages: this one has 2$"):
        choose_parts(model, Recipe(model="x", learn="last:3"))


# --- timm's -----------------------------------------------------------------------------------------------------------


def test_a_peers_head_is_what_timm_calls_its_classifier() -> None:
    model = peer()
    choose_parts(model, Recipe(model="x", learn="head"))
    assert learning(model) == {"model.fc.weight", "model.fc.bias"}


def test_a_peer_takes_updates() -> None:
    model = peer("test_vit")
    vectors = {name for name, p in model.named_parameters() if p.ndim < 2 and p.requires_grad}
    assert {"model.norm.weight", "model.blocks.0.attn.qkv.bias"} < vectors
    choose_parts(model, Recipe(model="x", learn="lora:1"))
    assert {name for name in learning(model) if "parametrizations" not in name} == {"model.head.weight", *vectors}
    assert any("attn.qkv.parametrizations" in name for name in learning(model))
    assert model(torch.zeros(1, 3, 160, 160)).shape == (1, 3)


def test_a_peer_has_no_stages() -> None:
    with pytest.raises(
        ValueError, match=r"^learn=last:1 is for our models: test_resnet is timm's, and takes head, lora or all$"
    ):
        choose_parts(peer(), Recipe(model="x", learn="last:1"))


# --- means and variances ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "moving"),
    [
        ({}, {"0", "1", "2", "3"}),
        ({"learn": "head"}, set()),
        ({"learn": "last:2"}, {"2", "3"}),
        ({"learn": "lora"}, set()),
        ({"freeze_norms": True}, set()),
        ({"learn": "last:2", "freeze_norms": True}, set()),
    ],
)
def test_frozen_norms_keep_their_means(settings: dict[str, Any], moving: set[str]) -> None:
    model, recipe = small(norm="BatchNorm()"), Recipe(model="x", **settings)
    choose_parts(model, recipe)
    assert training_mode(model.eval(), recipe) is model
    assert all(module.training for module in model.modules() if not isinstance(module, nn.BatchNorm2d))
    model(torch.randn(4, 3, 32, 32))
    state = model.state_dict()
    counted = {name.split(".")[1] for name in state if name.endswith("num_batches_tracked") and state[name]}
    assert counted == moving


# --- in a run ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["LayerNorm()", "BatchNorm()"])
def base(request: pytest.FixtureRequest, fashion: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """What fine-tuning starts from."""
    with one_core():
        changes = {**CHANGES, "norm": request.param}
        return begin(quick(fashion, epochs=1, changes=changes), tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize(
    ("settings", "still"),
    [
        ({"learn": "head"}, lambda key: key.startswith("stages.")),
        ({"learn": "last:2"}, lambda key: key.startswith(("stages.0.", "stages.1."))),
        ({"learn": "lora:2"}, lambda key: key.endswith((".running_mean", ".running_var", ".num_batches_tracked"))),
        ({"freeze_norms": True}, lambda key: ".norm." in key),
    ],
)
def test_what_does_not_learn_stays_to_the_bit(base: Run, tmp_path: Path, settings: dict[str, Any], still: Any) -> None:
    changed = {"changes": base.recipe.changes, "weights": str(base.path), "weight_decay": 0.5}
    run = begin(quick(base.recipe.data, **changed, **settings), tmp_path)
    before, after = weights(base.best), weights(run.last)
    kept = {key for key in before if torch.equal(before[key], after[key])}
    assert before.keys() == after.keys()
    assert kept == {key for key in before if still(key)}
    assert Predictor(run.path).classes == Predictor(base.path).classes  # plain models, both
    log = (run.path / "log.txt").read_text()
    assert f"learn={run.recipe.learn}" in log
    assert "drawn at random" not in log


def test_a_body_of_no_weights_is_said(fashion: str, tmp_path: Path) -> None:
    run = begin(quick(fashion, learn="head", epochs=1), tmp_path)
    sentence = "learn=head leaves the rest as it was drawn at random: weights= says what to start from"
    assert sentence in (run.path / "log.txt").read_text()


def test_one_image_is_enough_for_frozen_norms(fashion: str) -> None:
    """Nothing is averaged over a batch of one, of one place."""
    settings = NORMED | {"batch": 19}
    with pytest.raises(ValueError, match="the smallest part of a batch, 1 of 8×8 pixels"):
        prepare(quick(fashion, **settings), open_data(fashion), None)
    prepare(quick(fashion, learn="head", **settings), open_data(fashion), None)


def test_a_model_that_was_handed_over_stays_free(fashion: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_model("caformer_t6", num_classes=10, in_chans=1, dims=(16, 16, 32, 32), depths=(1, 1, 1, 1))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    settings = {key: value for key, value in QUICK.items() if key not in ("changes", "drop_path")}
    run = metaformer.train(model, data=fashion, root=tmp_path, quiet=True, learn="lora:2", **settings)
    assert learning(model) == {name for name, _ in model.named_parameters()}
    assert not is_updated(model)
    assert same(model.state_dict(), weights(run.best))  # as ever: it has the best weights
    assert not same(model.state_dict(), before)
    assert metaformer.evaluate(run.path).top1 == pytest.approx(max(line["top1"] for line in run.metrics))
