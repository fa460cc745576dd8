"""What is asked for after the question mark."""

from urllib.parse import quote

import pytest
from tests.serve.fake import MODELS

from metaformer.serve.jobs import Kind
from metaformer.serve.queries import Query, able, read_query
from metaformer.serve.refusals import COMPARED, Refusal, meant

ALL = {model.name: model for model in MODELS}


def test_by_default_the_first_model_that_can() -> None:
    assert read_query("predict", b"", ALL) == Query(ALL["digits"])
    others = {name: ALL[name] for name in ("nuts", "other", "digits")}
    assert read_query("predict", b"", others).model.name == "nuts"
    assert read_query("embed", b"", others).model.name == "other"
    assert read_query("explain", b"", others).model.name == "digits"
    assert able("embed", ALL) == ["digits", "other"]


def test_all_that_can_be_asked() -> None:
    query = b"masks=rle&top=%2b12&threshold=1e-1&model=nuts"
    assert read_query("predict", query, ALL) == Query(ALL["nuts"], 12, 0.1, "rle")
    assert read_query("explain", b"label=digit+3", ALL).label == "digit 3"
    assert read_query("predict", b"threshold=.25&top=1000", ALL) == Query(ALL["digits"], 1000, 0.25)


@pytest.mark.parametrize(
    ("kind", "query", "status", "said"),
    [
        ("predict", "modle=digits", 422, "there is no parameter 'modle': did you mean model?"),
        ("predict", "label=digit 3", 422, "there is no parameter 'label': /predict takes model, top, threshold, masks"),
        ("embed", "top=3", 422, "there is no parameter 'top': /embed takes model"),
        ("predict", "top=3&top=4", 422, "top is given twice"),
        ("predict", "&".join(f"a{i}=1" for i in range(17)), 422, "the query is not up to 16 parameters in UTF-8"),
        ("predict", "model=digit", 404, "there is no model 'digit': did you mean digits?"),
        ("predict", "model=", 404, "there is no model '': there are digits, other, nuts, boxes, streets"),
        (
            "embed",
            "model=nuts",
            422,
            "the model nuts cannot embed, as only runs of classifiers can; digits, other can",
        ),
        (
            "explain",
            "model=other",
            422,
            "the model other cannot explain, as only runs of classifiers can; digits can",
        ),
        ("explain", "label=digit 33", 404, "the model digits has no class 'digit 33': did you mean digit 3?"),
        ("predict", "top=0", 422, "top='0' is not a whole number from 1 to 1000"),
        ("predict", "top=1001", 422, "top='1001' is not a whole number from 1 to 1000"),
        ("predict", "top=1e2", 422, "top='1e2' is not"),
        ("predict", "top=٣", 422, "top='٣' is not"),
        ("predict", "top=" + "9" * 5000, 422, f"top='{'9' * 40}…' is not"),
        ("predict", "top=", 422, "top='' is not"),
        ("predict", "threshold=nan", 422, "threshold='nan' is not a number from 0 to 1"),
        ("predict", "threshold=1.01", 422, "threshold='1.01' is not"),
        ("predict", "threshold=-0.1", 422, "threshold='-0.1' is not"),
        ("predict", "threshold=0_1", 422, "threshold='0_1' is not"),
        ("predict", "threshold=1e999", 422, "threshold='1e999' is not"),
        ("predict", "masks=RLE", 422, "masks='RLE' is not one of polygons, rle"),
    ],
)
def test_what_cannot_be_asked(kind: Kind, query: str, status: int, said: str) -> None:
    with pytest.raises(Refusal) as caught:
        read_query(kind, quote(query, safe="=&").encode(), ALL)
    assert caught.value.status == status
    assert caught.value.message.startswith(said)


def test_what_is_no_text() -> None:
    with pytest.raises(Refusal, match="in UTF-8"):
        read_query("predict", b"model=%ff", ALL)


def test_where_no_model_can() -> None:
    with pytest.raises(Refusal, match="no model here can explain, as only runs of classifiers can"):
        read_query("explain", b"", {"nuts": ALL["nuts"]})


def test_of_very_many_names_none_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which would keep all other requests waiting."""
    names = [f"class {i}" for i in range(COMPARED + 1)]
    assert meant("clas 7", names[:-1], "its classes are") == "did you mean class 7?"
    monkeypatch.setattr("metaformer.serve.refusals.get_close_matches", None)
    assert meant("clas 7", names, "its classes are") == f"its classes are {', '.join(names[:10])}, …"
