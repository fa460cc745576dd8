"""Models of as many parameters as others: which widths those are, and studies whose rows have them."""

import json
from functools import partial
from pathlib import Path

import pytest
from tests.rows import resolved
from tests.tiny import command
from torch import Tensor, nn

from metaformer import Row, SepConv, Study
from metaformer.core.architecture import MetaFormerConfig
from metaformer.lab.studies import STUDIES
from metaformer.lab.study import Entry
from metaformer.lab.study_asked import Asked, Wanted, found
from metaformer.lab.study_run import plan_study
from metaformer.lab.widths import nearest_dims, parameters_of
from metaformer.zoo import T6, get_config


class Odd(nn.Module):
    """A mixer that takes 16, 32 and 64 channels alone."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim not in (16, 32, 64):
            raise ValueError(f"{dim} channels are not 16, 32 or 64")
        self.weight = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.weight(x)


def small(dims: tuple[int, ...], mixer: str = "SepConv()") -> MetaFormerConfig:
    return get_config("poolformerv2_t6", mixers=mixer, depths=(1, 1, 1, 1), dims=dims, num_classes=10)


@pytest.mark.parametrize("target", [3_000, 8_000, 20_000, 61_000])
def test_no_other_factor_comes_nearer(target: int) -> None:
    usual = (16, 16, 24, 40)
    dims = nearest_dims(small, usual, target)
    factors = [0.25 * 16 ** (i / 200) for i in range(201)]
    others = {tuple(max(8, 8 * round(factor * dim / 8)) for dim in usual) for factor in factors}
    off = {each: abs(parameters_of(small(each)) - target) for each in {*others, dims}}
    assert all(dim % 8 == 0 for dim in dims)
    assert off[dims] == min(off.values())


def test_what_has_as_many_already_stays_as_wide() -> None:
    for dims in ((16, 16, 24, 40), T6[1]):
        assert nearest_dims(small, dims, parameters_of(small(dims))) == dims
        pooling = nearest_dims(partial(small, mixer="Pooling()"), dims, parameters_of(small(dims)))
        assert sum(pooling) > sum(dims)  # which has fewer parameters of its own


def counted(entries: list[Entry]) -> dict[str, int]:
    return {entry.row: parameters_of(entry.shape) for entry in entries if entry.shape is not None}


@pytest.mark.parametrize("scale", ["t6", "s12"])
def test_rows_have_the_parameters_of_what_they_are_compared_with(scale: str) -> None:
    study = STUDIES["mixers"]
    size = 28 if scale == "t6" else 224
    wide = resolved(study, scale, size)
    even = resolved(Study(name="mixers", rows=study.rows, equal="parameters"), scale, size)
    before, after = counted(wide), counted(even)
    for row in study.rows:
        base = study.base(row.name)
        assert after[base] == before[base]
        assert abs(after[row.name] / after[base] - 1) < 0.02, row.name
    assert before["attention"] > 1.2 * before["pooling"]  # so that there was something to do
    keys = {entry.row: entry.key for entry in wide}
    same = {entry.row for entry in even if entry.key == keys[entry.row]}
    assert {"pooling", "identity", "poolformerv2", "identityformer"} <= same
    assert not same & {"attention", "separable", "caformer", "convformer"}


def test_it_is_the_end_of_the_chain_whose_parameters_count() -> None:
    rows = (Row("first"), Row("second", {"mixers": SepConv()}), Row("third", {"mixers": "Attention()"}, against="second"))
    one, two, three = counted(resolved(Study(name="chain", rows=rows, equal="parameters"))).values()
    assert max(abs(two / one - 1), abs(three / one - 1)) < 0.02
    round_about = (Row("first", against="second"), Row("second", {"mixers": SepConv()}, against="first"))
    assert len(resolved(Study(name="round", rows=round_about, equal="parameters"))) == 2


def test_how_wide_a_row_is_does_not_hang_on_which_are_asked_for(tmp_path: Path) -> None:
    rows = (Row("first"), Row("second", {"mixers": SepConv()}), Row("third", {"mixers": "Attention()"}, against="second"))
    study = Study(name="chain", rows=rows, equal="parameters", seeds=1)
    whole = plan_study(study, {"data": "digits"}, Wanted(root=tmp_path), quiet=True).entries
    some = plan_study(study, {"data": "digits"}, Wanted(root=tmp_path, rows="third"), quiet=True).entries
    assert [entry.row for entry in some] == ["second", "third"]
    assert list(some) == list(whole[1:])


def test_widths_that_a_row_says_or_a_command_are_kept() -> None:
    rows = (Row("a"), Row("b", {"dims": (8, 8, 8, 8)}), Row("c", wide=True), Row("d", {"mixers": SepConv()}))
    found = {entry.row: entry.shape for entry in resolved(Study(name="own", rows=rows, equal="parameters"))}
    assert [found[row].dims for row in "abc"] == [T6[1], (8, 8, 8, 8), tuple(3 * dim // 2 for dim in T6[1])]
    given = {"changes": {"dims": "(64, 64, 64, 64)"}}
    a, d = resolved(Study(name="own", rows=(rows[0], rows[3]), equal="parameters"), **given)
    assert a.shape is not None
    assert d.shape is not None
    assert a.shape.dims == (64, 64, 64, 64)
    assert max(d.shape.dims) < 64
    assert d.recipe.changes["dims"] == str(d.shape.dims)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (Row("b", model="timm:resnet18"), "row 'b': timm's models are as wide as they are, leave out equal=parameters"),
        (Row("b", {"mixers": Odd, "dims": (16, 16, 32, 64)}), None),
        (Row("b", {"mixers": Odd}), "row 'b': no model of other widths can be made for .*channels are not 16, 32 or 64"),
    ],
)
def test_what_cannot_be_made_as_large(row: Row, said: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAFORMER_CACHE", str(tmp_path))
    study = Study(name="own", rows=(Row("a"), row), equal="parameters")
    if said is None:
        assert len(resolved(study)) == 2
        return
    with pytest.raises(ValueError, match=f"^{said}"):
        resolved(study)


def test_a_folder_knows_what_its_rows_have_in_common(tmp_path: Path) -> None:
    study = Study(name="own", rows=(Row("a"),))
    asked = found(study, {}, Wanted(root=tmp_path, equal="parameters"))[3]
    assert asked == Asked("own", {}, "t6", equal="parameters")
    (tmp_path / "own").mkdir()
    file = tmp_path / "own/study.json"
    file.write_text(asked.to_json())
    with pytest.raises(FileExistsError, match=r"own is of own at scale=t6 and equal=parameters with no settings: give this"):
        found(study, {}, Wanted(root=tmp_path))
    told = json.loads(file.read_text())
    del told["equal"]
    file.write_text(json.dumps(told))
    assert found(study, {}, Wanted(root=tmp_path))[3].equal == "width"
    for wrong in (
        partial(found, study, {}, Wanted(root=tmp_path, equal="size")),
        partial(Study, name="x", rows=(Row("a"),), equal="size"),
    ):
        with pytest.raises(ValueError, match=r"^equal=size is not one of parameters, width$"):
            wrong()


def test_the_command_takes_it(tmp_path: Path) -> None:
    code, _, err = command("study", "mixers", "data=digits", "equal=size", "--list", f"root={tmp_path}")
    assert (code, "equal=size is not one of parameters, width" in err) == (2, True)
    code, out, _ = command("study", "mixers", "data=digits", "equal=parameters", "--list", f"root={tmp_path}")
    assert (code, "caformer" in out) == (0, True)
    assert not list(tmp_path.iterdir())
