"""The papers' claims judged on made-up results: each verdict there is, and why."""

import re
from dataclasses import replace

import pytest
import torch
from tests.studied import result, rights_of

from metaformer.lab.claims import CLAIMS, FAILS, HOLDS, SAME, UNDECIDED, Claim, Part, Verdict, borne_by, chance, judge_claims
from metaformer.lab.studies import STUDIES
from metaformer.lab.study import Row, Study
from metaformer.lab.study_figures import Figures
from metaformer.lab.study_results import DIVERGED, FAILED

IMAGES = 2000


def judged(part: Part, shares: dict[str, list[float]], *more: object, **changes: object) -> Verdict:
    """What a claim of one part comes to."""
    names = list(dict.fromkeys([part.row, *([part.other] if part.other else []), *shares]))
    study = Study(name="made", rows=tuple(Row(name) for name in names))
    results, rights = rights_of(shares, IMAGES, **changes)
    figures = Figures(study, [*results, *more], rights)  # type: ignore[list-item]
    (found,) = judge_claims(figures, [Claim("it is so", "v0", (part,))])
    return found


@pytest.mark.parametrize(
    ("kind", "row", "other", "verdict"),
    [
        ("more", [0.80, 0.81, 0.80], [0.70, 0.71, 0.70], HOLDS),
        ("more", [0.70, 0.71, 0.70], [0.80, 0.81, 0.80], FAILS),
        ("more", [0.70, 0.80, 0.75], [0.75, 0.71, 0.76], UNDECIDED),
        ("more", [0.90], [0.50], UNDECIDED),  # of fewer than three seeds nothing is decided
        ("more", [0.90, 0.91], [0.50, 0.51], UNDECIDED),
        ("least", [0.80, 0.81, 0.80], [0.80, 0.81, 0.80], HOLDS),
        ("least", [0.80, 0.81, 0.80], [0.70, 0.71, 0.70], HOLDS),
        ("least", [0.70, 0.71, 0.70], [0.80, 0.81, 0.80], FAILS),
        ("same", [0.80, 0.81, 0.80], [0.80, 0.81, 0.80], HOLDS),
        ("same", [0.80, 0.81, 0.80], [0.85, 0.86, 0.85], FAILS),
        ("same", [0.70, 0.80, 0.75], [0.75, 0.71, 0.76], UNDECIDED),
        ("collapse", [0.10, 0.11, 0.10], [0.80, 0.81, 0.80], HOLDS),
        ("collapse", [0.40, 0.41, 0.40], [0.80, 0.81, 0.80], HOLDS),
        ("collapse", [0.70, 0.71, 0.70], [0.80, 0.81, 0.80], FAILS),
        ("collapse", [0.20, 0.90, 0.56], [0.80, 0.81, 0.80], UNDECIDED),
    ],
)
def test_verdicts(kind: str, row: list[float], other: list[float], verdict: str) -> None:
    found = judged(Part(kind, "row", "other"), {"other": other, "row": row})
    assert found.verdict == found.parts[0].verdict == verdict


def test_a_figure_tells_the_difference_its_interval_and_the_seeds() -> None:
    found = judged(Part("more", "row", "other"), {"other": [0.70, 0.71], "row": [0.80, 0.81]})
    assert re.fullmatch(r"row − other: \+10\.00 \(8\.\d\d to 11\.\d\d\) points, 2 seeds", found.parts[0].figure)


@pytest.mark.parametrize(
    ("p", "text"), [(1.0, "1"), (0.0312, "0.031"), (0.0001, "0.0001"), (9e-5, "<0.0001"), (0.0, "<0.0001")]
)
def test_chances_are_told_as_far_as_they_mean_something(p: float, text: str) -> None:
    assert chance(p) == text


@pytest.mark.parametrize(("share", "verdict"), [(0.5, HOLDS), (0.2, FAILS), (0.3, UNDECIDED)])
def test_a_floor_is_above_three_times_chance(share: float, verdict: str) -> None:
    found = judged(Part("floor", "row"), {"row": [share, share, share]})
    assert found.verdict == verdict
    assert "chance is 10 %" in found.parts[0].figure


@pytest.mark.parametrize(("lost", "verdict"), [(1, UNDECIDED), (2, UNDECIDED), (3, HOLDS)])
def test_what_diverges_has_collapsed(lost: int, verdict: str) -> None:
    gone = [result("row", seed, state=DIVERGED, top1=None, why="nan") for seed in range(lost)]
    found = judged(Part("collapse", "row", "other"), {"other": [0.8, 0.81, 0.8]}, *gone)
    assert found.verdict == verdict
    assert f"{lost} of {lost} seeds diverged" in found.parts[0].figure


def test_why_nothing_can_be_said() -> None:
    other = {"other": [0.8, 0.81, 0.8]}
    for kind in ("more", "least", "same", "collapse"):
        failed = [result("row", seed, state=FAILED, top1=None, why="killed") for seed in range(3)]
        assert judged(Part(kind, "row", "other"), other, *failed).parts[0].figure == "row failed in every seed"
        assert judged(Part(kind, "row", "other"), other).parts[0].figure == "row is not trained"
        if kind != "collapse":
            gone = [result("row", seed, state=DIVERGED, top1=None, why="nan") for seed in range(3)]
            assert judged(Part(kind, "row", "other"), other, *gone).parts[0].figure == "row diverged in every seed"
    lone = {"row": [0.5], "other": [0.8]}
    results, rights = rights_of(lone, IMAGES)
    apart = [replace(one, seed=one.seed + (one.row == "row")) for one in results]
    figures = Figures(Study(name="made", rows=(Row("row"), Row("other"))), apart, rights)
    (found,) = judge_claims(figures, [Claim("it is so", "v0", (Part("more", "row", "other"),))])
    assert found.parts[0].figure == "row and other have no seed in common"


def test_a_failure_of_the_machine_is_no_collapse() -> None:
    failed = [result("row", seed, state=FAILED, top1=None, why="killed") for seed in range(3)]
    assert judged(Part("collapse", "row", "other"), {"other": [0.8, 0.81, 0.8]}, *failed).verdict == UNDECIDED


@pytest.mark.parametrize(("costs", "verdict"), [((4, 14), HOLDS), ((10, 14), FAILS)])
def test_flops_are_counted(costs: tuple[int, int], verdict: str) -> None:
    study = Study(name="made", rows=(Row("row"), Row("other")))
    results = [result(name, 0, activation_flops=1000 * cost) for name, cost in zip(("row", "other"), costs, strict=True)]
    (found,) = judge_claims(Figures(study, results, {}), [Claim("cheap", "v0", (Part("cheaper", "row", "other"),))])
    assert found.verdict == verdict


def test_a_claim_is_as_good_as_its_parts() -> None:
    study = Study(name="made", rows=(Row("a"), Row("b"), Row("c")))
    parts = (Part("more", "a", "b"), Part("more", "b", "c"))

    def verdict(**shares: float) -> str:
        results, rights = rights_of({name: [share, share, share] for name, share in shares.items()}, IMAGES)
        (found,) = judge_claims(Figures(study, results, rights), [Claim("a > b > c", "v0", parts)])
        return found.verdict

    assert verdict(a=0.9, b=0.8, c=0.7) == HOLDS
    assert verdict(a=0.9, b=0.8, c=0.9) == FAILS
    assert verdict(a=0.9, b=0.8) == UNDECIDED


def test_claims_name_rows_of_the_study_that_bears_them() -> None:
    there = {row.name for row in STUDIES["claims"].rows}
    assert {row for claim in CLAIMS for row in claim.rows} == there
    assert {part.kind for claim in CLAIMS for part in claim.parts} == {"more", "least", "same", "collapse", "floor", "cheaper"}
    assert SAME == 0.5


def test_every_claim_of_a_study_without_results_is_undecided() -> None:
    found = judge_claims(Figures(STUDIES["claims"], [], {}), borne_by(STUDIES["claims"], {}))
    assert [one.claim for one in found] == list(CLAIMS)
    assert {one.verdict for one in found} == {UNDECIDED}
    assert all("not trained" in part.figure for one in found for part in one.parts)


def test_only_claims_whose_rows_are_there_are_judged() -> None:
    (pools,) = borne_by(STUDIES["pool-size"], {})
    assert pools.text == "Pool sizes 3, 5 and 7 are about the same, 9 is worse"
    assert len(borne_by(STUDIES["mixers"], {})) == 6
    namesake = Study(name="mine", rows=(Row("pooling"), Row("identity", {"mixers": "Identity()"})))
    assert borne_by(namesake, {}) == []


def test_rows_that_are_not_as_the_papers_have_them_bear_nothing() -> None:
    study = STUDIES["claims"]
    assert borne_by(replace(study, settings={"epochs": 300}), {}) == list(CLAIMS)
    assert borne_by(replace(study, equal="parameters"), {}) == []
    assert borne_by(study, {"norm": "BatchNorm()"}) == []
    assert borne_by(replace(study, settings={"changes": {"norm": "BatchNorm()"}}), {}) == []


def test_what_both_papers_claim_is_judged_in_both_frames() -> None:
    for claim in CLAIMS:
        models = {row.model for row in STUDIES["claims"].rows if row.name in claim.rows}
        assert ("poolformer" in models, bool(models - {"poolformer"})) == ("v1" in claim.paper, "v2" in claim.paper), claim.text


def test_other_images_are_not_taken_for_the_same() -> None:
    """Differences are of the same images: what is right elsewhere narrows no interval."""
    narrow = judged(Part("same", "row", "other"), {"other": [0.8] * 3, "row": [0.8] * 3})
    results, rights = rights_of({"other": [0.8] * 3, "row": [0.8] * 3}, IMAGES)
    order = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(0))
    rights |= {key: right[order] for key, right in rights.items() if key.startswith("row")}
    study = Study(name="made", rows=(Row("row"), Row("other")))
    (wide,) = judge_claims(Figures(study, results, rights), [replace(narrow.claim)])
    assert narrow.verdict == HOLDS
    assert wide.verdict == UNDECIDED
