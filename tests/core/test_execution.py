"""Ways to run a model: seeds, devices, memory layouts, precisions, checkpointing, compilation, export."""

import copy
import pickle
import shutil

import pytest
import torch
import torch.nn.functional as F
from tests.fill import filled_model
from tests.published import PUBLISHED, T6
from torch import Tensor, nn
from torch.export import Dim, export

from metaformer import MetaFormer, create_model

FAMILIES = ["poolformer_s12", *T6, "metaformer_ppaa_s12_224", "metaformer_ppff_s12_224"]
TINY = {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32), "num_classes": 5}


def tiny(name: str, **changes) -> MetaFormer:
    """One block per stage, with weights far from their initialisation."""
    return filled_model(name, **{**TINY, **changes})


def image(batch: int = 2, height: int = 32, width: int = 48) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


# --- construction -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_a_seed_repeats_a_model(name):
    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        models.append(create_model(name, **TINY).state_dict())
    assert all(torch.equal(models[0][key], models[1][key]) for key in models[0])
    drawn = [key for key, tensor in models[0].items() if tensor.unique().numel() > 1]
    assert len(drawn) >= 4 + 2 * 4
    assert not any(torch.equal(models[0][key], models[2][key]) for key in drawn)


@pytest.mark.parametrize("name", [*PUBLISHED, *T6])
def test_models_build_and_run_on_the_meta_device(name):
    with torch.device("meta"):
        model = create_model(name)
        logits = model(torch.empty(3, 3, 64, 96))
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    assert logits.is_meta
    assert logits.shape == (3, 1000)


@pytest.mark.parametrize("name", FAMILIES)
def test_copies_and_pickles_compute_the_same(name):
    model = tiny(name)
    y = model(image())
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(again(image()), y)
    assert again.config == model.config
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.stages[0].embed.conv.weight.zero_()
    assert torch.equal(model(image()), y)


# --- memory layouts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_either_memory_layout_gives_the_same_and_maps_are_channels_last(name):
    model, x = tiny(name), image()
    maps = model.features(x)
    others = model.features(x.contiguous(memory_format=torch.channels_last))
    assert all(torch.equal(a, b) for a, b in zip(maps, others, strict=True))
    assert all(m.is_contiguous(memory_format=torch.channels_last) for m in maps)


@pytest.mark.parametrize("name", FAMILIES)
def test_an_image_does_not_depend_on_its_batch(name):
    model, x = tiny(name), image(3)
    torch.testing.assert_close(model(x)[1:2], model(x[1:2]), rtol=1e-4, atol=1e-5)


# --- precision --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", FAMILIES)
def test_models_compute_in_other_precisions(name, dtype):
    """Also where a token matrix and a position embedding are interpolated."""
    model = tiny(name)
    expected = model(image())
    y = copy.deepcopy(model).to(dtype)(image().to(dtype))
    assert y.dtype == dtype
    tolerance = 1e-4 if dtype == torch.float64 else 16 * torch.finfo(dtype).eps
    assert (y.float() - expected).abs().max() <= tolerance * expected.abs().max()


def loud(name: str) -> tuple[MetaFormer, list[Tensor]]:
    """A model in which the inputs of activations are of the order of 300, and a list that collects them."""
    torch.manual_seed(0)
    model, seen = create_model(name, **TINY), []
    for part, module in model.named_modules():
        if part.endswith(("fc1", "pw1")):
            nn.init.normal_(module.weight, std=300 / module.in_channels**0.5 if isinstance(module, nn.Conv2d) else 30)
        if part.endswith("act"):
            module.register_forward_pre_hook(lambda m, args: seen.append(args[0].detach()))
    return model, seen


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", T6)
def test_large_activations_stay_finite_under_autocast(name, dtype):
    """Forward and backward: 256² is beyond float16."""
    model, seen = loud(name)
    with torch.autocast("cpu", dtype):
        y = model(image())
        F.cross_entropy(y, torch.tensor([0, 1])).backward()
    assert {x.dtype for x in seen} == {dtype}
    assert all(x.max() > 256 for x in seen)
    assert torch.isfinite(y).all()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", T6)
def test_large_activations_stay_finite_in_half_precision(name, dtype):
    model, seen = loud(name)
    y = model.to(dtype)(image().to(dtype))
    assert all(x.dtype == dtype and x.max() > 256 for x in seen)
    assert torch.isfinite(y).all()


# --- checkpointing ----------------------------------------------------------------------------------------------------


def saved_bytes(model: MetaFormer, x: Tensor) -> int:
    """What autograd keeps, each storage once."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = model(x)
    assert y.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize("name", FAMILIES)
def test_checkpointing_gives_the_same_and_keeps_less(name):
    """With drop path, whose choice must repeat in the second forward pass."""
    results = []
    model = tiny(name, drop_path=0.5, depths=(2, 2, 2, 2)).train()
    for checkpointing in (False, True):
        model.checkpointing = checkpointing
        model.zero_grad()
        torch.manual_seed(0)
        y = model(image(4))
        y.square().sum().backward()
        results.append((y, [p.grad for p in model.parameters() if p.requires_grad], saved_bytes(model, image(4))))
    (y, grads, kept), (y_again, grads_again, kept_less) = results
    assert torch.equal(y, y_again)
    torch.testing.assert_close(grads_again, grads)
    assert kept_less < 0.6 * kept


def test_checkpointing_is_for_training():
    model = tiny("caformer_t6")
    model.checkpointing = True
    kept = saved_bytes(model.eval(), image())
    assert saved_bytes(model.train(), image()) < kept


# --- compilation and export -------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _fresh_compiler():
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("name", FAMILIES)
def test_compiles_into_one_graph(name):
    """At a size at which matrices and embeddings are interpolated, forward and backward."""
    model = tiny(name).train()
    expected = model(image())
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    y = compiled(image())
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
    y.sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["randformer_t6", "caformer_t6", "metaformer_ppaa_s12_224"])
def test_a_compiled_model_takes_other_sizes(name):
    model = tiny(name)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=True)
    for size in ((32, 48), (64, 80), (32, 32), (61, 97)):
        torch.testing.assert_close(compiled(image(3, *size)), model(image(3, *size)), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="inductor needs a C++ compiler")
@pytest.mark.parametrize("name", FAMILIES)
def test_compiles_with_inductor(name):
    model = tiny(name)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, fullgraph=True)(image()), model(image()), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_exports_with_a_free_batch(name):
    model = tiny(name)
    program = export(model, (image(),), dynamic_shapes=({0: Dim.DYNAMIC},)).module()
    for batch in (2, 5):
        torch.testing.assert_close(program(image(batch)), model(image(batch)), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_exports_with_free_sizes(name):
    """The size of the grids of matrices and embeddings included; but not a side of one token, which the tracer fixes."""
    model = tiny(name)
    program = export(model, (image(2, 96, 80),), dynamic_shapes=({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)).module()
    for size in ((96, 80), (67, 129), (32, 32) if name in T6 else (224, 224)):
        x = image(3, *size)
        torch.testing.assert_close(program(x), model(x), rtol=1e-3, atol=1e-4)
