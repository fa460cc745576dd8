"""A model as a graph: to the bit what the model itself answers, in shapes that no image changes."""

from typing import Any

import pytest
import torch
from tests.dense.truths import batch
from tests.fill import filled

from metaformer.dense.config import get_dense_config
from metaformer.dense.detections import SCORE
from metaformer.dense.make import make_dense, make_graph
from metaformer.dense.model import Dense

pytestmark = pytest.mark.usefixtures("thread")
SMALL: dict[str, Any] = {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16), "channels": 16, "head_channels": 16}


def far(head: str, classes: int = 3) -> Dense:
    """Far from its initialisation, so that it finds boxes of many scores."""
    norm = {"head_norm": "GroupNorm(groups=4)"} if head == "upernet" else {}
    model = make_dense(get_dense_config(f"{head}/poolformerv2_t6", num_classes=classes, **(SMALL | norm)))
    learnt = {name: parameter.detach() for name, parameter in model.named_parameters()}
    model.load_state_dict(filled(learnt), strict=False)  # but for the variances of batch norms, which are above 0
    return model.eval()


@pytest.mark.parametrize("head", ["retinanet", "faster_rcnn", "mask_rcnn"])
def test_what_a_graph_finds_is_what_the_model_finds(head: str) -> None:
    model, image = far(head), batch()[0][0]
    graph = make_graph(model, (64, 96))
    with torch.inference_mode():
        (wanted,) = model(image[None])
        boxes, scores, labels, *masks = graph(image[None])
    assert boxes.shape == (100, 4)
    count = len(wanted.boxes)
    assert 5 < count <= 100
    assert int((scores > SCORE).sum()) == count
    torch.testing.assert_close(boxes[:count], wanted.boxes, rtol=0, atol=1e-5)
    torch.testing.assert_close(scores[:count], wanted.scores, rtol=0, atol=1e-6)
    assert torch.equal(labels[:count], wanted.labels)
    if wanted.masks is not None:
        assert masks[0].shape == (100, 28, 28)
        torch.testing.assert_close(masks[0][:count], wanted.masks, rtol=0, atol=1e-5)


def test_rows_beyond_what_is_found_are_the_next_best() -> None:
    model, image = far("retinanet"), batch()[0][0]
    graph = make_graph(model, (64, 96))
    model.least = 0.0
    with torch.inference_mode():
        (wanted,) = model(image[None])
        boxes, scores, _ = graph(image[None])
    assert len(wanted.boxes) == 100
    assert bool((scores.diff() <= 0).all())
    torch.testing.assert_close(scores, wanted.scores, rtol=0, atol=1e-6)
    torch.testing.assert_close(boxes, wanted.boxes, rtol=0, atol=1e-5)


def test_the_least_score_is_heeded() -> None:
    model, image = far("faster_rcnn"), batch()[0][0]
    counts = []
    for model.least in (0.02, SCORE, 0.6):
        with torch.inference_mode():
            (found,) = model(image[None])
        assert not len(found.scores) or found.scores.min() > model.least
        counts.append(len(found.scores))
    assert counts[0] >= counts[1] > counts[2]


@pytest.mark.parametrize("head", ["semantic_fpn", "upernet"])
def test_the_logits_of_a_graph_are_the_models(head: str) -> None:
    model, images = far(head), torch.stack([batch()[0][0]] * 2)
    with torch.inference_mode():
        wanted, found = model(images).logits, make_graph(model, (64, 96))(images)
    assert found.shape == (2, 3, 16, 24)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_sides_that_are_not_allowed() -> None:
    with pytest.raises(ValueError, match=r"^a height of 100 and a width of 96 are not multiples of 32: take 96 96$"):
        make_graph(far("semantic_fpn"), (100, 96))
    with pytest.raises(ValueError, match=r"^a graph is for inference: call model\.eval\(\) first$"):
        make_graph(far("semantic_fpn").train(), (64, 96))
