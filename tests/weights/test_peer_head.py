"""timm's models: which part is the classifier, and weights that fill the rest."""

from pathlib import Path

import pytest
import torch
from tests.tiny import same
from torch import nn

from metaformer import save_pretrained
from metaformer.weights.peer_head import classifiers, fill_peer
from metaformer.weights.peers import Peer, PeerConfig


def peer(classes: int = 3, name: str = "test_resnet") -> Peer:
    return Peer(PeerConfig(name=name, num_classes=classes, in_chans=3, image_size=160))


def test_the_classifier_is_timms() -> None:
    model = peer()
    assert classifiers(model) == [model.model.fc]
    with pytest.raises(ValueError, match=r"^timm's test_resnet has no classifier of its own that could learn$"):
        classifiers(peer(classes=0))


def test_two_classifiers(monkeypatch: pytest.MonkeyPatch) -> None:
    model = peer()
    pair = (model.model.fc, nn.Linear(2, 3))
    monkeypatch.setattr(model.model, "get_classifier", lambda: pair)
    assert classifiers(model) == list(pair)


@pytest.mark.parametrize("where", [".", "model.safetensors"])
def test_weights_of_as_many_classes_fill_it_all(tmp_path: Path, where: str) -> None:
    torch.manual_seed(0)
    other, model = peer(), peer()
    save_pretrained(other, tmp_path)
    assert fill_peer(model, tmp_path / where) == ()
    assert same(model.state_dict(), other.state_dict())


def test_weights_of_other_classes_leave_the_classifier_new(tmp_path: Path) -> None:
    torch.manual_seed(0)
    other, model = peer(5), peer()
    save_pretrained(other, tmp_path)
    fresh = model.model.fc.weight.detach().clone()
    assert fill_peer(model, tmp_path) == ("classifier: new, of 3 classes",)
    theirs, own = other.state_dict(), model.state_dict()
    assert {key for key in own if own[key].shape == theirs[key].shape and torch.equal(own[key], theirs[key])} == {
        key for key in own if not key.startswith("model.fc.")
    }
    assert torch.equal(model.model.fc.weight, fresh)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    save_pretrained(peer(name="test_vit"), tmp_path)
    model = peer()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"does not fit timm's test_resnet: Missing key\(s\)"):
        fill_peer(model, tmp_path)
    assert same(model.state_dict(), before)
    with pytest.raises(FileNotFoundError, match="no file of weights at"):
        fill_peer(model, tmp_path / "nothing")
