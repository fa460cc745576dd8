"""timm's models with the weights that timm publishes, without a network: what is asked of timm, and what comes of it."""

from typing import Any

import pytest
import timm
import torch

from metaformer.weights.imagenet import class_names, synsets
from metaformer.weights.peers import create_published_peer


def test_the_published_weights_are_what_timm_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    create = timm.create_model

    def fetched(name: str, *, pretrained: bool = False, **options: Any) -> Any:
        model = create(name, **options)
        if pretrained:
            made.append((name, model))
        return model

    monkeypatch.setattr(timm, "create_model", fetched)
    peer, about = create_published_peer("test_resnet.r160_in1k")
    ((name, theirs),) = made
    assert name == "test_resnet.r160_in1k"
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(peer.eval()(x), theirs.eval()(x))
    assert about["classes"] == list(class_names(1000))
    assert about["synsets"] == list(synsets(1000))
    known = timm.get_pretrained_cfg(name)
    assert known is not None
    assert about["preprocess"] == {
        "size": 160, "mean": list(known.mean), "std": list(known.std), "fit": "crop", "crop_fraction": known.crop_pct
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("resnt18", "timm publishes no weights of ImageNet-1K for 'timm:resnt18', did you mean timm:resnet18"),
        ("resnet18.in99k", "^timm:resnet18.in99k: "),
        ("vit_base_patch16_224.augreg_in21k", "no weights of ImageNet-1K for 'timm:vit_base_patch16_224.augreg_in21k'"),
    ],
)
def test_what_timm_does_not_publish(name: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        create_published_peer(name)
