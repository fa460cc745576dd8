"""Names of what is served."""

import pytest

from metaformer.serve.named import named


@pytest.mark.parametrize(
    ("word", "name", "source"),
    [
        ("runs/first", "first", "runs/first"),
        ("runs/first/", "first", "runs/first/"),
        ("first.onnx", "first", "first.onnx"),
        ("a/b/nuts.XML", "nuts", "a/b/nuts.XML"),
        ("caformer_s18.in1k_384", "caformer_s18.in1k_384", "caformer_s18.in1k_384"),
        ("mask_rcnn/caformer_s18", "caformer_s18", "mask_rcnn/caformer_s18"),
        ("hf:me/digits", "digits", "hf:me/digits"),
        ("hf:digits", "digits", "hf:digits"),
        ("mine=runs/first", "mine", "runs/first"),
        ("mine=runs/lr=1", "mine", "runs/lr=1"),
        ("runs/lr=1", "lr-1", "runs/lr=1"),
        ("runs/my run (2)", "my-run-2-", "runs/my run (2)"),
    ],
)
def test_a_name(word: str, name: str, source: str) -> None:
    assert named([word]) == {name: source}


def test_names_keep_their_order() -> None:
    assert list(named(["z", "a=runs/x", "m.onnx"])) == ["z", "a", "m"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["runs/a", "a.onnx"], r"^runs/a and a.onnx are both called a: say NAME=SOURCE, such as other=a.onnx$"),
        (["=x"], "'=x' is not NAME=SOURCE"),
        (["a="], "'a=' is not NAME=SOURCE"),
        (["my name=x"], "'my name=x' is not NAME=SOURCE"),
        ([".."], "'..' ends with nothing that is a name"),
        ([""], "'' ends with nothing that is a name"),
    ],
)
def test_what_is_no_name(words: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        named(words)
