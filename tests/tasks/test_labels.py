"""Labels from logits, and logits from probabilities."""

import numpy as np
import pytest
import torch

from metaformer.tasks.labels import decode_labels, decode_several, logits_of

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [-20.0, 15.0, 0.0], [100.0, -100.0, 3.0]])
CLASSES = ("a", "b", "c")


def test_logits_of_probabilities_have_them() -> None:
    softmax, sigmoid = LOGITS.softmax(1).numpy(), LOGITS.sigmoid().numpy()
    again = logits_of(softmax, several=False)
    assert again.dtype == np.float32
    assert np.isfinite(again).all()
    np.testing.assert_allclose(torch.from_numpy(again).softmax(1), softmax, atol=1e-7)
    again = logits_of(sigmoid, several=True)
    assert np.isfinite(again).all()
    np.testing.assert_allclose(torch.from_numpy(again).sigmoid(), sigmoid, atol=1e-7)
    np.testing.assert_allclose(again[0], LOGITS[0], atol=1e-5)


@pytest.mark.parametrize("several", [False, True])
def test_answers_are_the_same_by_either_way(several: bool) -> None:
    logits = LOGITS[:1].numpy()
    probabilities = (LOGITS.sigmoid() if several else LOGITS.softmax(1))[:1].numpy()
    decode = decode_several if several else decode_labels
    one, other = decode(logits, CLASSES)[0], decode(logits_of(probabilities, several=several), CLASSES)[0]
    assert [name for name, _ in one] == [name for name, _ in other]
    assert [value for _, value in one] == pytest.approx([value for _, value in other], abs=1e-6)
