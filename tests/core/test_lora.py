"""Low-rank updates: by value, learning alone, plain when they are saved."""

import copy

import pytest
import torch
from torch import Tensor, nn

from metaformer import MetaFormer, create_model
from metaformer.core.lora import LowRank, add_update, is_updated, plain_state, takes_update


def updated(rank: int = 2, *, learnt: bool = True) -> MetaFormer:
    """A model with updates wherever they may be; they are as after some learning, or as at the start."""
    torch.manual_seed(0)
    model = create_model("caformer_t6", num_classes=3, dims=(8, 8, 16, 16), depths=(1, 1, 1, 1)).eval()
    for module in list(model.modules()):
        if takes_update(module):
            add_update(module, rank)
    for module in model.modules():
        if learnt and isinstance(module, LowRank):
            nn.init.normal_(module.up, std=0.1)
    return model


def images() -> Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("layer", [nn.Linear(6, 10), nn.Conv2d(6, 10, 1), nn.Conv2d(6, 10, 3), nn.Conv2d(6, 10, 1, groups=2)])
@pytest.mark.parametrize(("rank", "used"), [(2, 2), (100, None)])
def test_the_weight_by_value(layer: nn.Linear | nn.Conv2d, rank: int, used: int | None) -> None:
    layer = copy.deepcopy(layer)
    weight = layer.weight.detach().clone()
    add_update(layer, rank)
    assert torch.equal(layer.weight, weight)  # at the start nothing has changed
    (update,) = [module for module in layer.modules() if isinstance(module, LowRank)]
    columns = weight[0].numel()
    used = used or min(10, columns)  # of a higher rank than the matrix has nothing is gained
    assert (update.up.shape, update.down.shape) == ((10, used), (used, columns))
    assert 0 < update.down.abs().max() <= columns**-0.5
    nn.init.normal_(update.up)
    torch.testing.assert_close(layer.weight, weight + 16 / used * (update.up @ update.down).view(weight.shape))
    assert {name for name, p in layer.named_parameters() if p.requires_grad} == {
        "bias", "parametrizations.weight.0.up", "parametrizations.weight.0.down"
    }  # fmt: skip


def test_who_takes_one() -> None:
    assert takes_update(nn.Linear(2, 3))
    assert takes_update(nn.Conv2d(2, 3, 1))
    assert takes_update(nn.Conv2d(2, 3, 3))
    assert takes_update(nn.Conv2d(4, 4, 3, groups=2))
    assert not takes_update(nn.Conv2d(4, 4, 3, groups=4))
    assert not takes_update(nn.Conv1d(2, 3, 1))
    assert not takes_update(nn.LayerNorm(3))
    taken = nn.Linear(2, 3)
    add_update(taken, 1)
    assert not takes_update(taken)


def test_a_model_with_fresh_updates_says_what_it_said() -> None:
    model, plain = updated(learnt=False), create_model("caformer_t6", num_classes=3, dims=(8, 8, 16, 16), depths=(1, 1, 1, 1))
    plain.load_state_dict(plain_state(model))
    assert torch.equal(model(images()), plain.eval()(images()))


def test_the_plain_state_is_that_of_a_plain_model() -> None:
    model, plain = updated(), create_model("caformer_t6", num_classes=3, dims=(8, 8, 16, 16), depths=(1, 1, 1, 1))
    before = model.state_dict()
    state = plain_state(model)
    assert {key: tensor.shape for key, tensor in state.items()} == {k: t.shape for k, t in plain.state_dict().items()}
    assert not any(tensor.requires_grad for tensor in state.values())
    plain.load_state_dict(state)
    assert torch.equal(model(images()), plain.eval()(images()))
    assert is_updated(model)
    assert not is_updated(plain)
    assert model.state_dict().keys() == before.keys()
    assert plain_state(plain).keys() == plain.state_dict().keys()
    assert not torch.equal(state["stages.3.blocks.0.mlp.branch.fc1.weight"], updated(learnt=False).state_dict()[ORIGINAL])


ORIGINAL = "stages.3.blocks.0.mlp.branch.fc1.parametrizations.weight.original"


def test_a_copy_learns_apart() -> None:
    model = updated()
    twin = copy.deepcopy(model)
    before = model(images())
    with torch.no_grad():
        for module in twin.modules():
            if isinstance(module, LowRank):
                module.up += 1
    assert torch.equal(model(images()), before)
    assert not torch.equal(twin(images()), before)


def test_the_update_is_added_in_full_precision() -> None:
    layer = nn.Linear(64, 64)
    add_update(layer, 4)
    for module in layer.modules():
        if isinstance(module, LowRank):
            nn.init.normal_(module.up)
    full = layer.weight
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer.weight, full)
        assert layer(torch.randn(2, 64)).dtype == torch.bfloat16


def test_it_compiles_into_one_graph_and_learns_the_same() -> None:
    model = updated()
    compiled = torch.compile(copy.deepcopy(model), fullgraph=True, backend="aot_eager")
    for one in (model, compiled):
        one(images()).square().sum().backward()
    torch.compiler.reset()
    gradients = [[p.grad for p in one.parameters() if p.requires_grad] for one in (model, compiled)]
    assert len(gradients[0]) > 20
    for own, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-4, atol=1e-5)
