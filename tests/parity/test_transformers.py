"""transformers' PoolFormer on copied weights gives the same maps and logits: its head is the paper's."""

import pytest
import torch
from tests.fill import empty_model, filled_model
from transformers import PoolFormerConfig, PoolFormerForImageClassification

from metaformer import load_weights
from metaformer.weights.formats import to_format


@pytest.mark.parametrize(
    "name",
    ["poolformer_s12", *[pytest.param(f"poolformer_{size}", marks=pytest.mark.slow) for size in ("s24", "s36", "m36", "m48")]],
)
def test_maps_and_logits(name):
    model = filled_model(name, torch.float64)
    config = model.config
    with torch.device("meta"):
        other = PoolFormerForImageClassification(
            PoolFormerConfig(depths=list(config.depths), hidden_sizes=list(config.dims), num_labels=1000)
        )
    state = to_format(model.state_dict(), "transformers", config)
    other.load_state_dict(state, strict=True, assign=True)
    x = torch.randn(1, 3, 96, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = other.eval()(x, output_hidden_states=True)
        maps = model.features(x)
        logits = model(x)
    for a, b in zip([*maps, logits], [*theirs.hidden_states, theirs.logits], strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= 1e-9 * b.abs().mean()

    again = load_weights(empty_model(name).double(), state)
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True))
