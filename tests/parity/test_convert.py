"""Files that we write compute the same in timm and transformers, and files that these write compute the same here."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from tests.fill import filled, filled_model
from timm.models import load_checkpoint
from torch import Tensor, nn
from transformers import PoolFormerForImageClassification

from metaformer import MetaFormer, create_model, load_weights
from metaformer.weights.convert import convert
from metaformer.weights.pretrained import read_pretrained, save_pretrained

pytestmark = pytest.mark.usefixtures("thread")

POOLFORMER = ["poolformer_s12", pytest.param("poolformer_m36", marks=pytest.mark.slow)]
V2 = [
    "poolformerv2_s12",
    *[pytest.param(name, marks=pytest.mark.slow) for name in ("convformer_s18", "caformer_s18", "caformer_m36")],
]


def image() -> Tensor:
    return torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(0))


def assert_close(a: Tensor, b: Tensor) -> None:
    assert a.shape == b.shape
    assert (a - b).abs().max() <= 1e-5 * b.abs().mean()


def saved(name: str, folder) -> MetaFormer:
    model = filled_model(name)
    save_pretrained(model, folder)
    return model


def published_eps(other: nn.Module) -> nn.Module:
    """timm's MLP head has a norm of eps 1e-6, the published one 1e-5."""
    if hasattr(other.head.fc, "norm"):
        other.head.fc.norm.eps = 1e-5
    return other.eval()


def in_timm(name: str, folder) -> tuple[MetaFormer, nn.Module]:
    """A model of ours, and timm's own that has read what we wrote of it."""
    model, other = saved(name, folder / "ours"), timm.create_model(name)
    load_checkpoint(other, str(convert(folder / "ours", folder / "timm.safetensors", to="timm").files[0]), strict=True)
    return model, other.eval()


@pytest.mark.parametrize("name", V2)
def test_our_file_in_timm_and_timms_here(name, tmp_path):
    model, other = in_timm(name, tmp_path)
    with torch.no_grad():
        assert_close(model(image()), published_eps(other)(image()))

    other = timm.create_model(name)
    other.load_state_dict(filled(other.state_dict()))
    save_file({key: tensor.contiguous() for key, tensor in other.state_dict().items()}, tmp_path / f"{name}.safetensors")
    convert(tmp_path / f"{name}.safetensors", tmp_path / "back", to="ours")
    with torch.no_grad():
        expected = published_eps(other)(image())
        assert_close(read_pretrained(tmp_path / "back")[0].eval()(image()), expected)
        assert_close(load_weights(create_model(name), tmp_path / f"{name}.safetensors").eval()(image()), expected)


@pytest.mark.parametrize("name", POOLFORMER)
def test_our_poolformer_in_timm_gives_the_same_maps(name, tmp_path):
    """Its head pools before its norm: other logits by design."""
    model, other = in_timm(name, tmp_path)
    with torch.no_grad():
        theirs = other.forward_intermediates(image(), intermediates_only=True)
        for ours, expected in zip(model.features(image()), theirs, strict=True):
            assert_close(ours, expected)


@pytest.mark.parametrize("name", POOLFORMER)
@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_our_folder_in_transformers_and_its_folder_here(name, weights, tmp_path):
    model = saved(name, tmp_path / "ours")
    out = tmp_path / "theirs"
    convert(tmp_path / "ours", out / weights, to="transformers")
    other, info = PoolFormerForImageClassification.from_pretrained(out, output_loading_info=True)
    assert not any(info.values())
    assert other.config.id2label[850] == "teddy"
    with torch.no_grad():
        assert_close(model(image()), other.eval()(image()).logits)

    other.load_state_dict(filled(other.state_dict()))
    other.save_pretrained(tmp_path / name)
    convert(tmp_path / name, tmp_path / "back", to="ours")
    with torch.no_grad():
        expected = other(image()).logits
        assert_close(read_pretrained(tmp_path / "back")[0].eval()(image()), expected)
        assert_close(load_weights(create_model(name), tmp_path / name).eval()(image()), expected)


def test_transformers_shards_are_read(tmp_path):
    model = saved("poolformer_s12", tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "theirs", to="transformers")
    other = PoolFormerForImageClassification.from_pretrained(tmp_path / "theirs")
    other.save_pretrained(tmp_path / "shards", max_shard_size="10MB")
    assert (tmp_path / "shards" / "model.safetensors.index.json").is_file()
    again = load_weights(create_model("poolformer_s12"), tmp_path / "shards")
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True))
