"""Our models in timm's hands: its factory, its feature extraction, its parameter groups, its checkpoints; and smp's."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.data import create_transform, resolve_model_data_config
from timm.models import get_pretrained_cfg
from timm.models import group_parameters as grouped
from timm.optim import create_optimizer_v2
from timm.optim import param_groups_layer_decay as layer_decay
from timm.utils import CheckpointSaver
from torch import nn

import metaformer
from metaformer import create_model
from metaformer.weights.catalogue import ROWS
from metaformer.weights.formats import to_format
from metaformer.weights.timm_models import TimmMetaFormer, to_ours
from metaformer.zoo import ZOO

NAMES = metaformer.timm.register()
SMP = importlib.util.find_spec("segmentation_models_pytorch")
T6 = ("mf_identityformer_t6", "mf_randformer_t6", "mf_poolformerv2_t6", "mf_convformer_t6", "mf_caformer_t6")


def made(name: str = "mf_caformer_t6", **options: Any) -> Any:
    torch.manual_seed(0)
    return timm.create_model(name, **options)


def image(size: int = 32, channels: int = 3) -> torch.Tensor:
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(0))


def test_every_model_is_there_and_timm_keeps_its_own() -> None:
    assert [f"mf_{name}" for name in ZOO] == NAMES
    assert set(NAMES) <= set(timm.list_models())
    assert timm.models.model_entrypoint("caformer_s18").__module__ == "timm.models.metaformer"
    before = timm.list_models()
    assert metaformer.timm.register() == NAMES  # warnings are errors
    assert timm.list_models() == before


def test_what_timm_is_told_of_the_weights() -> None:
    tags = {(row.model, row.tag): row for row in reversed(ROWS)}
    assert set(timm.list_models("mf_*", pretrained=True)) == {f"mf_{model}.{tag}" for model, tag in tags}
    for (model, tag), row in tags.items():
        cfg = get_pretrained_cfg(f"mf_{model}.{tag}")
        assert cfg is not None
        assert (cfg.input_size, cfg.crop_pct, cfg.num_classes) == ((3, row.size, row.size), row.crop_fraction, row.num_classes)
        assert cfg.license == "apache-2.0"
        place = f"{cfg.hf_hub_id}/{cfg.hf_hub_filename}" if row.on_hub else cfg.url
        assert place == f"{row.where}/{row.file}"
    default = get_pretrained_cfg("mf_caformer_s18")
    assert default is not None
    assert default.tag == "in1k"


@pytest.mark.parametrize("name", T6)
def test_the_same_model_by_either_hand(name: str) -> None:
    theirs, ours = made(name, num_classes=7).eval(), create_model(name.removeprefix("mf_"), num_classes=7)
    ours.load_state_dict(theirs.state_dict())
    x = image()
    assert torch.equal(theirs(x), ours.eval()(x))
    assert torch.equal(theirs.forward_head(theirs.forward_features(x)), theirs(x))
    assert (theirs.num_classes, theirs.num_features, theirs.head_hidden_size, theirs.in_chans) == (7, 192, 192, 3)


def test_options_in_timm_s_words() -> None:
    model = made(num_classes=3, in_chans=1, drop_rate=0.3, drop_path_rate=0.2)
    config = model.config
    assert (config.num_classes, config.in_chans, config.head_dropout, config.drop_path) == (3, 1, 0.3, 0.2)
    with pytest.raises(TypeError, match="nonsense"):
        made(nonsense=1)
    with pytest.raises(ValueError, match=r'^global_pool=\'max\': these models have "avg", and "" where num_classes=0$'):
        made(global_pool="max")


def test_logits_before_and_after() -> None:
    model = made(num_classes=5).eval()
    x = image()
    features = model.forward_features(x)
    assert features.shape == (2, 192, 2, 2)
    before = model.forward_head(features, pre_logits=True)
    assert before.shape == (2, 192)
    assert torch.equal(model.head.classifier(before), model(x))
    bare = made(num_classes=0).eval()
    bare.load_state_dict(model.state_dict(), strict=False)
    assert torch.equal(bare(x), before)
    unpooled = made(num_classes=0, global_pool="").eval()
    assert unpooled(x).shape == (2, 192, 2, 2)


@pytest.mark.parametrize("name", ["mf_caformer_t6", "mf_poolformerv2_t6"])
def test_another_classifier(name: str) -> None:
    model = made(name).eval()
    last = model.get_classifier()
    assert isinstance(last, nn.Linear)
    assert last.out_features == 1000
    x = image()
    pooled = model.forward_head(model.forward_features(x), pre_logits=True)
    model.reset_classifier(4)
    assert model.get_classifier().out_features == model.num_classes == model.config.num_classes == 4
    assert model(x).shape == (2, 4)
    model.reset_classifier(0)
    assert isinstance(model.get_classifier(), nn.Identity)
    assert torch.equal(model(x), pooled)
    model.reset_classifier(0, "")
    assert model(x).shape == (2, 192, 2, 2)
    model.double().reset_classifier(3, "avg")
    assert model(x.double()).shape == (2, 3)
    assert not model.head.classifier.training


# --- maps -------------------------------------------------------------------------------------------------------------


def test_intermediates() -> None:
    model = made().eval()
    x = image()
    maps = model.features(x)
    last, all_maps = model.forward_intermediates(x)
    assert torch.equal(last, maps[-1])
    assert all(torch.equal(one, other) for one, other in zip(all_maps, maps, strict=True))
    some = model.forward_intermediates(x, indices=[0, -1], intermediates_only=True)
    assert [tuple(m.shape) for m in some] == [(2, 32, 16, 16), (2, 192, 2, 2)]
    assert len(model.forward_intermediates(x, indices=2, intermediates_only=True)) == 2
    normed = model.forward_intermediates(x, norm=True, intermediates_only=True)
    assert torch.equal(normed[-1], model.head.norm(maps[-1]))
    assert torch.equal(normed[0], maps[0])
    early, (second,) = model.forward_intermediates(x, indices=[1], stop_early=True)
    assert torch.equal(early, maps[1])
    assert torch.equal(second, maps[1])
    with pytest.raises(ValueError, match="output_fmt='NHWC': maps are NCHW"):
        model.forward_intermediates(x, output_fmt="NHWC")


@pytest.mark.parametrize("name", T6)
@pytest.mark.parametrize("indices", [None, (0, 1, 2, 3), (1, 3), (0, 2), (-2,)])
def test_features_only(name: str, indices: tuple[int, ...] | None) -> None:
    whole = made(name).eval()
    options = {} if indices is None else {"out_indices": indices}
    model = made(name, features_only=True, **options).eval()
    x = image()
    wanted = [whole.features(x)[i] for i in indices or range(4)]
    given = model(x)
    assert all(torch.equal(one, other) for one, other in zip(given, wanted, strict=True))
    assert model.feature_info.channels() == [m.shape[1] for m in wanted]
    assert model.feature_info.reduction() == [32 // m.shape[2] for m in wanted]


def test_features_only_keeps_no_more_than_it_needs() -> None:
    model = made(features_only=True, out_indices=(0, 1))
    assert {name.split(".")[2] for name, _ in model.named_parameters()} == {"0", "1"}


def test_a_published_size_at_its_strides() -> None:
    model = made("mf_poolformer_s12", features_only=True, out_indices=(0, 3)).eval()
    assert [tuple(m.shape[1:]) for m in model(image(64))] == [(64, 16, 16), (512, 2, 2)]
    assert model.feature_info.reduction() == [4, 32]


# --- training ---------------------------------------------------------------------------------------------------------


def test_checkpointing_changes_nothing_but_memory() -> None:
    model = made().train()
    x = image()
    model(x).sum().backward()
    plain = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    model.set_grad_checkpointing()
    assert model.checkpointing
    model(x).sum().backward()
    for name, p in model.named_parameters():
        assert torch.allclose(plain[name], p.grad, rtol=1e-4, atol=1e-6), name
    model.set_grad_checkpointing(False)
    assert not model.checkpointing


def test_layers_from_the_input_on() -> None:
    model = made("mf_caformer_t6")  # depths 1, 1, 3, 1
    layers = grouped(model, model.group_matcher(), reverse=True)
    assert layers["stages.0.embed.conv.weight"] == 0
    assert layers["stages.0.blocks.0.mlp.norm.weight"] == 1
    assert layers["stages.2.embed.conv.weight"] == layers["stages.2.blocks.0.mlp.norm.weight"] == 3
    assert layers["stages.2.blocks.2.mlp.norm.weight"] == 5
    assert layers["stages.3.blocks.0.mlp.norm.weight"] == 6
    assert layers["head.norm.weight"] == layers["head.classifier.fc.bias"] == 7
    coarse = grouped(model, model.group_matcher(coarse=True), reverse=True)
    assert [coarse[f"stages.{i}.blocks.0.mlp.norm.weight"] for i in range(4)] == [1, 2, 3, 4]
    assert coarse["stages.0.embed.conv.weight"] == 0
    assert coarse["head.classifier.fc.weight"] == 5


def test_timm_s_layer_decay() -> None:
    model = made("mf_caformer_t6")
    groups = layer_decay(model, weight_decay=0.05, layer_decay=0.5)
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    assert len(scale) == len(list(model.parameters()))
    assert scale[id(model.stages[0].embed.conv.weight)] == 0.5**7
    assert scale[id(model.stages[3].blocks[0].mlp.branch.fc1.weight)] == 0.5
    assert scale[id(model.head.classifier.fc.weight)] == 1
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert decay[id(model.stages[0].embed.conv.weight)] == 0.05
    assert decay[id(model.stages[0].embed.conv.bias)] == 0
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.5)
    assert {round(group["lr_scale"], 6) for group in optimizer.param_groups} == {round(0.5**n, 6) for n in range(8)}


def test_position_embeddings_do_not_decay() -> None:
    with torch.device("meta"):
        model = TimmMetaFormer(ZOO["metaformer_ppaa_s12_224"])
    assert model.no_weight_decay() == {"stages.2.pos_embed.weight"}
    assert made().no_weight_decay() == set()


def test_timm_s_checkpoints(tmp_path: Path) -> None:
    model = made(num_classes=3)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3)
    saver = CheckpointSaver(model, optimizer, checkpoint_dir=str(tmp_path))
    saver.save_checkpoint(0, metric=0.5)
    again = made(num_classes=3, checkpoint_path=str(tmp_path / "last.pth.tar"))
    x = image()
    assert torch.equal(again.eval()(x), model.eval()(x))


def test_timm_s_preprocessing() -> None:
    model = made("mf_poolformer_s12")
    data = resolve_model_data_config(model)
    assert data["input_size"] == (3, 224, 224)
    assert (data["crop_pct"], data["interpolation"]) == (0.9, "bicubic")
    assert (data["mean"], data["std"]) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert "248" in repr(create_transform(**data, is_training=False))


# --- weights ----------------------------------------------------------------------------------------------------------


def weights_of(tmp_path: Path, name: str, format: str, **changes: Any) -> tuple[metaformer.MetaFormer, Path]:
    torch.manual_seed(1)
    model = create_model(name, **changes)
    state = to_format(model.state_dict(), format, model.config)
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, tmp_path / "model.safetensors")
    return model.eval(), tmp_path / "model.safetensors"


@pytest.mark.parametrize("format", ["timm", "v2", "ours"])
@pytest.mark.parametrize("name", ["caformer_t6", "poolformerv2_t6"])
def test_pretrained_through_timm(tmp_path: Path, name: str, format: str) -> None:
    published, file = weights_of(tmp_path, name, format)
    options: dict[str, Any] = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(file)}}
    x = image()
    assert torch.equal(made(f"mf_{name}", **options).eval()(x), published(x))
    features = made(f"mf_{name}", features_only=True, **options).eval()(x)
    assert all(torch.equal(one, other) for one, other in zip(features, published.features(x), strict=True))
    other = made(f"mf_{name}", num_classes=4, **options).eval()
    assert other(x).shape == (2, 4)
    assert torch.equal(other.forward_features(x), published.features(x)[-1])
    grey = made(f"mf_{name}", in_chans=1, **options)
    theirs = published.stages[0].embed.conv.weight.sum(1, keepdim=True)
    assert torch.equal(grey.stages[0].embed.conv.weight, theirs)


def test_the_first_paper_s_names() -> None:
    model = create_model("poolformer_s12")
    for format in ("v1", "transformers", "timm"):
        state = to_format(model.state_dict(), format, model.config)
        assert to_ours(state, model).keys() == model.state_dict().keys()


# --- segmentation models ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(SMP is None, reason="segmentation-models-pytorch is not here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("decoder", ["Unet", "FPN"])
def test_a_segmenter_of_segmentation_models_pytorch(decoder: str) -> None:
    import segmentation_models_pytorch as smp

    torch.manual_seed(0)
    model = getattr(smp, decoder)(encoder_name="tu-mf_poolformer_s12", encoder_weights=None, classes=3)
    assert model.encoder.out_channels == [3, 0, 64, 128, 320, 512]
    masks = model(image(64))
    assert masks.shape == (2, 3, 64, 64)
    masks.sum().backward()
    assert all(p.grad is not None for p in model.encoder.parameters())
