"""Probes: scikit-learn's answers, the features that the classifier is given, and what is said of them."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from tests.tiny import QUICK, as_single, command, weights, write_several
from torch import Tensor

import metaformer
from metaformer import Run, create_model
from metaformer.data.loader import Loader
from metaformer.data.preprocess import Preprocess
from metaformer.data.sources import open_data
from metaformer.data.splits import Images
from metaformer.lab import probe as module
from metaformer.lab.probe import TEMPERATURE, features, fit_logistic, linear_probe, logits, neighbours
from metaformer.tasks.metrics import wilson
from metaformer.weights.peers import Peer, PeerConfig

pytestmark = pytest.mark.usefixtures("thread")


def blobs(count: int, classes: int = 3, noise: float = 2.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points (count, 8) around a centre for each class, and their classes."""
    draw = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, 8, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(count) % classes
    return centres[labels] * 2 + noise * torch.randn(count, 8, generator=draw), labels


# --- the two probes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [10.0, 0.1, 1e-3, 1e-5])
def test_logistic_regression_is_that_of_scikit_learn(penalty: float) -> None:
    x, labels = blobs(120)
    x = x.double()
    found = fit_logistic(x, labels, torch.zeros(3, 9, dtype=torch.float64), penalty)
    theirs = LogisticRegression(C=1 / (penalty * len(x)), tol=1e-10, max_iter=100_000).fit(x.numpy(), labels.numpy())
    expected = torch.from_numpy(theirs.coef_)
    torch.testing.assert_close(found[:, :-1], expected, rtol=1e-3, atol=1e-4)
    bias = found[:, -1] - found[:, -1].mean()  # which no penalty fixes: all may be raised alike
    torch.testing.assert_close(bias, torch.from_numpy(theirs.intercept_ - theirs.intercept_.mean()), rtol=1e-3, atol=1e-4)
    again = fit_logistic(x, labels, torch.randn(3, 9, dtype=torch.float64), penalty)
    torch.testing.assert_close(logits(x, again).softmax(1), logits(x, found).softmax(1), rtol=1e-3, atol=1e-4)


def test_the_linear_probe_standardises_and_chooses_its_penalty() -> None:
    (x, labels), (others, right) = blobs(200), blobs(300, seed=1)
    predicted, penalty = linear_probe(x, labels, others, 3, seed=0)
    assert penalty in module.PENALTIES
    assert (predicted == right).double().mean() > 0.8
    scale, shift = torch.logspace(-3, 3, 8), torch.linspace(-1e3, 1e3, 8)
    assert torch.equal(
        linear_probe(x.double() * scale + shift, labels, others.double() * scale + shift, 3, seed=0)[0], predicted
    )
    constant = torch.cat([x, torch.ones(200, 1)], 1), torch.cat([others, torch.ones(300, 1)], 1)
    assert torch.equal(linear_probe(constant[0], labels, constant[1], 3, seed=0)[0], predicted)


def test_where_features_say_nothing_the_penalty_is_strong_and_where_they_say_all_it_is_weak() -> None:
    draw = torch.Generator().manual_seed(0)
    x, labels = torch.randn(200, 50, generator=draw), torch.randint(3, (200,), generator=draw)
    assert linear_probe(x, labels, x, 3, seed=0)[1] >= 1
    x, labels = blobs(200, noise=0.1)
    assert linear_probe(x, labels, x, 3, seed=0)[1] <= 1e-3


def test_the_penalty_is_chosen_on_images_that_the_seed_draws() -> None:
    x, labels = blobs(60, noise=4.0)
    assert linear_probe(x, labels, x, 3, seed=3)[1] == linear_probe(x, labels, x, 3, seed=3)[1]
    assert len({linear_probe(x, labels, x, 3, seed=seed)[1] for seed in range(8)}) > 1


@pytest.mark.parametrize("k", [1, 5, 60])
def test_neighbours_are_those_of_scikit_learn(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (x, labels), (others, _) = blobs(60), blobs(50, seed=1)
    theirs = KNeighborsClassifier(
        k, metric="cosine", weights=lambda far: torch.from_numpy((1 - far) / TEMPERATURE).exp().numpy()
    )
    expected = theirs.fit(x.numpy(), labels.numpy()).predict(others.numpy()).tolist()
    assert neighbours(x, labels, others, 3, k=k).tolist() == expected
    monkeypatch.setattr(module, "AT_ONCE", 500)  # eight at a time
    assert neighbours(x, labels, others, 3, k=k).tolist() == expected


# --- features ---------------------------------------------------------------------------------------------------------


def loaded(channels: int, size: int, count: int = 5) -> Loader:
    pixels = torch.randint(256, (count, channels, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    preprocess = Preprocess(size, (0.5,) * channels, (0.25,) * channels)
    return Loader(Images(pixels, torch.zeros(count, dtype=torch.int64)), 2, preprocess, torch.device("cpu"))


@pytest.mark.parametrize("name", ["caformer_t6", "poolformer_s12"])
def test_features_are_what_the_classifier_is_given(name: str) -> None:
    model = create_model(name, num_classes=3, dims=(8, 8, 16, 16), depths=(1, 1, 1, 1), drop_path=0.5, head_dropout=0.5).train()
    loader = loaded(3, 32)
    found = features(model, loader)
    assert (found.shape, found.requires_grad) == ((5, 16), False)
    images = torch.cat([batch.images for batch in loader.epoch()])
    torch.testing.assert_close(model.head.classifier(found), model.eval()(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_so_are_a_peers(name: str) -> None:
    peer = Peer(PeerConfig(name=name, num_classes=3, in_chans=3, image_size=160)).eval()
    loader = loaded(3, 160)
    images = torch.cat([batch.images for batch in loader.epoch()])
    torch.testing.assert_close(peer.model.get_classifier()(features(peer, loader)), peer(images), rtol=1e-4, atol=1e-5)


# --- the whole --------------------------------------------------------------------------------------------------------


def test_a_run_is_probed_on_its_own_data(run: Run) -> None:
    before = weights(run.best)
    done = metaformer.probe(run.path, k=3)
    assert (done.learnt, done.judged, done.features, done.k, done.data) == (96, 40, 32, 3, run.recipe.data)
    for found in (done.linear, done.knn):
        assert found.top1 > 40  # ten classes that a tenth would guess
        low, high = wilson(found.top1 / 100, 40)
        assert found.interval == pytest.approx((100 * low, 100 * high))
    data, model = open_data(run.recipe.data), metaformer.from_pretrained(run.path)
    preprocess = Preprocess.from_dict(metaformer.Predictor(run.path).preprocess.to_dict())
    known, judged = (features(model, Loader(part, 50, preprocess, torch.device("cpu"))) for part in (data.train, data.val))
    predicted = neighbours(known, data.train.labels, judged, 10, k=3)
    assert done.knn.top1 == pytest.approx(100 * (predicted == data.val.labels).double().mean().item())
    assert metaformer.probe(run.path, k=3, batch=7) == done
    assert weights(run.best).keys() == before.keys()
    lines = str(done).splitlines()
    assert lines[0].split() == ["probe", "top-1", "95", "%", "interval", "32", "features", "of", str(run.path)]
    assert lines[1].startswith(f"linear  {done.linear.top1:.2f} %  ")
    assert lines[2].startswith(f"k-NN    {done.knn.top1:.2f} %  ")


def test_other_classes_and_channels_will_do(run: Run) -> None:
    model = create_model("caformer_t6", num_classes=7, dims=(16, 16, 32, 32), depths=(1, 1, 1, 1))
    folder = run.path.parent / "other"
    told = {"classes": list("abcdefg"), "preprocess": Preprocess(8, (0.5,) * 3, (0.25,) * 3).to_dict()}
    metaformer.save_pretrained(model, folder, told)
    done = metaformer.probe(folder, data=run.recipe.data)
    assert (done.learnt, done.judged, done.features, done.k) == (96, 40, 32, 20)
    shutil.rmtree(folder)


def test_timms_published_weights(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def published(name: str) -> tuple[Peer, dict[str, Any]]:
        asked.append(name)
        peer = Peer(PeerConfig(name=name, num_classes=3, in_chans=3, image_size=32))
        return peer, {"classes": list("abc"), "preprocess": Preprocess(32, (0.5,) * 3, (0.25,) * 3).to_dict()}

    monkeypatch.setattr("metaformer.lab.classifier.create_published_peer", published)
    done = metaformer.probe("timm:test_resnet", data=run.recipe.data)
    assert (asked, done.source) == (["test_resnet"], "timm:test_resnet")
    assert done.features == Peer(PeerConfig(name="test_resnet", num_classes=3, in_chans=3, image_size=32)).model.num_features


def test_images_of_several_labels_are_refused(run: Run, tmp_path: Path) -> None:
    data = write_several(tmp_path / "sides")
    with pytest.raises(ValueError, match=f"^images of {data} have several labels, and a probe is for one: train with learn="):
        metaformer.probe(run.path, data=data)
    settings = QUICK | {"image_size": 12, "epochs": 1}
    several = metaformer.train("convformer_t6", data=data, root=tmp_path, name="several", quiet=True, **settings)
    with pytest.raises(ValueError, match="have several labels"):
        metaformer.probe(several.path)
    data = as_single(data)
    single = metaformer.train("convformer_t6", data=data, labels="single", root=tmp_path, name="single", quiet=True, **settings)
    assert metaformer.probe(single.path, k=3).judged == 40  # each text is one label, as it was to the run


def test_auto_is_no_batch_of_a_probe(run: Run) -> None:
    code, out, err = command("probe", run.path, "batch=auto")
    assert (code, out) == (2, "")
    assert err == "metaformer: batch=auto is for training: say how many images a probe looks at together, such as batch=64\n"


def test_too_little_memory_is_a_sentence(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(module, "features", full)
    with pytest.raises(ValueError, match=r"^cpu has too little memory; batch=16 needs less$"):
        metaformer.probe(run.path, batch=32)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"k": 0}, "^k=0 is not between 1 and 96, the training images of fashion-mnist:"),
        ({"k": 97}, "^k=97 is not between 1 and 96"),
        ({"batch": 0}, "^batch=0 is not at least 1$"),
        ({"data": "nothing"}, "no data 'nothing'"),
        ({"device": "tpu"}, "device=tpu is not to be had here"),
    ],
)
def test_mistakes_are_sentences(run: Run, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        metaformer.probe(run.path, **settings)


def test_a_model_alone_needs_data(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is no run, so say what to judge it on: data=NAME$"):
        metaformer.probe(shutil.copytree(run.best, tmp_path / "alone"))
