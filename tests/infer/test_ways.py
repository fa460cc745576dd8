"""Ways of showing images: what a model is asked is what the way says, and answers stay with their images."""

import pytest
import torch
from torch import Tensor

from metaformer.core.architecture import MetaFormerConfig
from metaformer.core.mixers import Pooling
from metaformer.core.model import MetaFormer
from metaformer.data.corrupt import corrupt
from metaformer.data.preprocess import Preprocess, resize
from metaformer.data.splits import Images
from metaformer.infer.predictor import Predictor
from metaformer.infer.ways import Answers, Way, ask, read_tta
from metaformer.tasks import metrics
from metaformer.weights.pretrained import save_pretrained

pytestmark = pytest.mark.usefixtures("thread")

SPLIT = Images(
    torch.randint(256, (9, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8), torch.arange(9) % 4
)


@pytest.fixture(scope="module")
def predictors(tmp_path_factory: pytest.TempPathFactory) -> list[Predictor]:
    """Two models of other sizes: 32 and 28 pixels."""
    made = []
    for size in (32, 28):
        folder = tmp_path_factory.mktemp("model") / str(size)
        torch.manual_seed(size)
        config = MetaFormerConfig(depths=(1,) * 4, dims=(8,) * 4, mixers=Pooling(), num_classes=4)
        about = {"classes": list("abcd"), "preprocess": Preprocess(size, (0.5,) * 3, (0.25,) * 3).to_dict()}
        save_pretrained(MetaFormer(config), folder, about)
        made.append(Predictor(folder, device="cpu"))
    return made


def answered(predictor: Predictor, *shown: Tensor) -> Answers:
    logits = torch.stack([torch.from_numpy(predictor.logits(part.contiguous().numpy())) for part in shown]).mean(0)
    return Answers.of(logits, SPLIT.labels)


def same(one: Answers, other: Answers) -> bool:
    close = torch.allclose(one.confidence, other.confidence, atol=1e-5) and torch.allclose(one.loss, other.loss, atol=1e-4)
    return close and torch.equal(one.right, other.right)


def test_each_way_of_showing(predictors: list[Predictor]) -> None:
    ways = [Way(), Way(flip=True), Way(size=40), Way("fog", 3), Way(crops=True), Way(flip=True, crops=True)]
    found = ask(predictors, SPLIT, ways, batch=4)
    for p, predictor in enumerate(predictors):
        size = predictor.preprocess.size
        fitted = predictor.preprocess.fitted(SPLIT.pixels)
        assert same(found[0][p], answered(predictor, fitted))
        assert same(found[1][p], answered(predictor, fitted, fitted.flip(3)))
        assert same(found[2][p], answered(predictor, resize(SPLIT.pixels, 40, 40)))
        assert same(found[3][p], answered(predictor, corrupt(fitted, "fog", 3, range(9))))
        large = resize(SPLIT.pixels, *[{32: 37, 28: 32}[size]] * 2)
        low = (large.shape[2] - size) // 2
        middle = large[..., low : low + size, low : low + size]
        five = [middle, *(part(large, size) for part in (up_left, up_right, down_left, down_right))]
        assert same(found[4][p], answered(predictor, *five))
        assert same(found[5][p], answered(predictor, *five, *(part.flip(3) for part in five)))
    assert not same(found[0][0], found[3][0])


def up_left(x: Tensor, size: int) -> Tensor:
    return x[..., :size, :size]


def up_right(x: Tensor, size: int) -> Tensor:
    return x[..., :size, -size:]


def down_left(x: Tensor, size: int) -> Tensor:
    return x[..., -size:, :size]


def down_right(x: Tensor, size: int) -> Tensor:
    return x[..., -size:, -size:]


def test_some_images_are_made_worse_as_in_the_whole(predictors: list[Predictor]) -> None:
    keep = torch.tensor([2, 5, 7])
    whole = ask(predictors[:1], SPLIT, [Way("snow", 2)])[0][0]
    few = ask(predictors[:1], Images(SPLIT.pixels[keep], SPLIT.labels[keep]), [Way("snow", 2)], samples=keep)[0][0]
    assert torch.allclose(few.loss, whole.loss[keep], atol=1e-5)


def test_answers_among_some_classes(predictors: list[Predictor]) -> None:
    """The labels are places among the classes that are left."""
    among = torch.tensor([1, 3])
    split = Images(SPLIT.pixels, torch.arange(9) % 2)
    found = ask(predictors[:1], split, [Way()], among=among)[0][0]
    logits = torch.from_numpy(predictors[0].logits(predictors[0].preprocess.fitted(split.pixels).numpy()))[:, among]
    assert found.loss.mean().item() == pytest.approx(metrics.nll(logits, split.labels), rel=1e-5)
    assert torch.equal(found.right, logits.argmax(1) == split.labels)


@pytest.mark.parametrize("text", ["flip", "crops", "flip,crops", "crops, flip"])
def test_augmentations_by_name(text: str) -> None:
    found = read_tta(text)
    assert (found.flip, found.crops) == ("flip" in text, "crops" in text)


def test_an_unknown_augmentation_is_said() -> None:
    with pytest.raises(ValueError, match="tta='flop' is not one of flip; crops; flip,crops"):
        read_tta("flop")
