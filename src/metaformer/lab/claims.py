"""The papers' claims as data, and what rows of a study say of each: it holds, does not hold, or is undecided at this scale.

A claim has parts, each a figure with a 95 % interval and a range that the claim puts it in. A part holds where the interval
lies within the range, does not where it lies outside, else it is undecided; a claim holds where all its parts do.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from metaformer.lab.studies import STUDIES
from metaformer.lab.study import Row, Study
from metaformer.lab.study_figures import LEAST, Figures, Interval
from metaformer.lab.study_results import DIVERGED, FINISHED, Result

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided at this scale"
SAME = 0.5
"""Points within which rows are about the same."""
RULES = (
    "A claim of the first paper (v1) or the second (v2) holds where the 95 % interval of each of its figures lies in the range "
    "that it claims, does not hold where one lies outside, and is undecided otherwise, as with fewer than three seeds. Nothing "
    "is corrected for how many figures there are: one in twenty misses by chance. Above another row is more than 0 points; no "
    f"worse, or no help, is less than {SAME} below; about the same is within {SAME}; collapse is less than two thirds of what "
    "the other row is above chance; well above chance is above three times chance. FLOPs are counted, which takes no seeds: "
    "71 % is 70.5 to 72.5."
)
"""For who reads verdicts."""


@dataclass(frozen=True)
class Part:
    """What is said of a row, beside another."""

    kind: str
    """more: above the other; least: not below it by SAME or more; same: within SAME of it; collapse: of what the other is
    above chance less than two thirds; floor: above three times chance; cheaper: activation FLOPs saved, in percent."""
    row: str
    other: str = ""
    published: str = ""
    """What the papers give for it, on ImageNet-1K."""


@dataclass(frozen=True)
class Claim:
    """A sentence of the papers, and what it says of rows."""

    text: str
    paper: str
    parts: tuple[Part, ...]

    @property
    def rows(self) -> list[str]:
        """Those that it takes to judge it."""
        return list(dict.fromkeys(row for part in self.parts for row in (part.row, part.other) if row))


@dataclass(frozen=True)
class Found:
    """A part, judged."""

    part: Part
    verdict: str
    figure: str
    """What was measured, in words."""


@dataclass(frozen=True)
class Verdict:
    """A claim, judged."""

    claim: Claim
    verdict: str
    parts: tuple[Found, ...]


def _order(*rows: tuple[str, str]) -> tuple[Part, ...]:
    """Each row above the next one; with each what is published of the step down from it."""
    return tuple(Part("more", one, other, told) for (one, told), (other, _) in pairwise(rows))


CLAIMS = (
    Claim(
        "Identity is a floor well above chance", "v1, v2",
        (
            Part("floor", "identity", published="74.3, by chance 0.1"),
            Part("floor", "identityformer", published="74.6, by chance 0.1"),
        ),
    ),
    Claim(
        "Random mixing is no worse than identity", "v1, v2",
        (Part("least", "random", "identity", "+1.5"), Part("least", "randformer", "identityformer", "+2.0")),
    ),
    Claim(
        "Pooling beats random mixing", "v1, v2",
        (Part("more", "pooling", "random", "+1.4"), Part("more", "poolformerv2", "randformer", "+1.4")),
    ),
    Claim(
        "Convolution beats pooling", "v1, v2",
        (Part("more", "depthwise", "pooling", "+0.9"), Part("more", "convformer", "poolformerv2", "above, of another size")),
    ),
    Claim(
        "Convolution, then attention, is the best mixer", "v2",
        (
            Part("more", "caformer", "convformer", "+0.6"),
            *(Part("more", "caformer", name, "above") for name in ("poolformerv2", "randformer", "identityformer")),
        ),
    ),
    Claim(
        "StarReLU > GELU > Squared ReLU > ReLU", "v2",
        _order(
            ("convformer", "+0.3"), ("convformer-gelu", "above"), ("convformer-squared-relu", "above"), ("convformer-relu", ""),
        ),
    ),
    Claim(
        "StarReLU takes 71 % fewer activation FLOPs than GELU", "v2",
        (Part("cheaper", "convformer", "convformer-gelu", "4 against 14 a unit"),),
    ),
    Claim(
        "ResScale is the best of the branch scalings", "v2",
        tuple(Part("more", "convformer", f"convformer-{name}", "above") for name in ("layerscale", "branchscale", "no-scale")),
    ),
    Claim("MLN > LayerNorm > BatchNorm", "v1", _order(("pooling", "+0.7"), ("layernorm", "+0.1"), ("batchnorm", ""))),
    Claim("Without norms, training collapses", "v1", (Part("collapse", "no-norm", "pooling", "46.1 against 77.2"),)),
    Claim(
        "Without residual connections, training collapses", "v1",
        (Part("collapse", "no-residual", "pooling", "0.1 against 77.2"),),
    ),
    Claim(
        "Without the channel MLP, training collapses", "v1",
        (Part("collapse", "no-channel-mlp", "pooling", "5.7 against 77.2"),),
    ),
    Claim("Pooling with attention late beats pooling alone", "v1", (Part("more", "ppaa", "pooling", "+3.8"),)),
    Claim(
        "Pool sizes 3, 5 and 7 are about the same, 9 is worse", "v1",
        (
            Part("same", "pooling-5", "pooling", "about 0"), Part("same", "pooling-7", "pooling", "about 0"),
            Part("more", "pooling", "pooling-9", "about +0.5"),
        ),
    ),
    Claim("Biases in every block do not help", "v2", (Part("least", "convformer", "convformer-biases", "0.0"),)),
)  # fmt: skip
"""Section by section; v1 is arXiv 2111.11418, v2 is arXiv 2210.13452."""


def borne_by(study: Study, changes: Mapping[str, object]) -> list[Claim]:
    """The claims whose rows are all in a study, as the papers have them: what only has the name of one bears nothing, nor do
    rows of other widths, or of models that `changes` made others."""
    if study.equal != "width" or changes or study.settings.get("changes"):
        return []
    known = {row.name: _content(row) for row in STUDIES["claims"].rows}
    there = {row.name for row in study.rows if known.get(row.name) == _content(row)}
    return [claim for claim in CLAIMS if set(claim.rows) <= there]


def _content(row: Row) -> tuple[object, ...]:
    return (row.model, dict(row.changes), dict(row.settings), row.deep, row.wide, row.zoom)


def judge_claims(figures: Figures, claims: Sequence[Claim]) -> list[Verdict]:
    """What rows of a study say of claims. What is not trained yet leaves them undecided."""
    found = list[Verdict]()
    for claim in claims:
        parts = tuple(_judged(part, figures) for part in claim.parts)
        verdicts = [part.verdict for part in parts]
        verdict = FAILS if FAILS in verdicts else UNDECIDED if UNDECIDED in verdicts else HOLDS
        found.append(Verdict(claim, verdict, parts))
    return found


def _judged(part: Part, figures: Figures) -> Found:
    if part.kind == "cheaper":
        return _cheaper(part, figures)
    if part.kind in ("floor", "collapse"):
        return _against_chance(part, figures)
    found = figures.difference(part.row, part.other)
    if found is None:
        return Found(part, UNDECIDED, _lacking(figures, part.row, part.other))
    edges = {"more": (0.0, math.inf), "least": (-SAME, math.inf), "same": (-SAME, SAME)}[part.kind]
    seeds = f"{found.seeds} seed{'s' if found.seeds > 1 else ''}"
    text = f"{part.row} − {part.other}: {signed(found)} points, {seeds}"
    return Found(part, _verdict(found, *edges, seeds=found.seeds), text)


def _against_chance(part: Part, figures: Figures) -> Found:
    """Claims on how far above chance a row is. A row that diverged is at chance."""
    done = [one for one in (*figures.results[part.row], *figures.results.get(part.other, ())) if one.classes]
    if not done:
        return Found(part, UNDECIDED, f"{part.row} is not trained")
    level = 100 / done[0].classes
    if part.kind == "floor":
        found = figures.combined({part.row: 1.0})
        if found is None:
            return Found(part, UNDECIDED, _lacking(figures, part.row))
        text = f"{part.row}: {plain(found)} %, chance is {level:.3g} %"
        return Found(part, _verdict(found, 3 * level, math.inf, seeds=len(figures.seeds(part.row))), text)
    lost = [one for one in figures.results[part.row] if one.state == DIVERGED]
    own, base = figures.combined({part.row: 1.0}), figures.combined({part.other: 1.0})
    if base is None or (own is None and not lost):
        return Found(part, UNDECIDED, _lacking(figures, part.row, part.other))
    told = f"{part.other}: {plain(base)} %, chance is {level:.3g} %"
    gone = f"{len(lost)} of {len(figures.results[part.row])} seeds diverged"
    if own is None:
        return Found(part, HOLDS if len(lost) >= LEAST else UNDECIDED, f"{part.row}: {gone}; {told}")
    found = figures.combined({part.row: 1.0, part.other: -2 / 3}, -level / 3)
    if found is None:
        return Found(part, UNDECIDED, _lacking(figures, part.row, part.other))
    verdict = _verdict(found, -math.inf, 0.0, seeds=len(figures.seeds(part.row, part.other)))
    if lost and verdict == FAILS:
        verdict = UNDECIDED  # some seeds collapse, some do not
    return Found(part, verdict, f"{part.row}: {plain(own)} %{f', {gone}' if lost else ''}; {told}")


def _lacking(figures: Figures, *rows: str) -> str:
    """Why nothing can be said of rows: which was not trained, or in no seed to the end."""
    states = {row: {one.state for one in figures.results[row]} for row in rows}
    said = [
        f"{row} {'diverged' if DIVERGED in found else 'failed'} in every seed" if found else f"{row} is not trained"
        for row, found in states.items()
        if FINISHED not in found
    ]
    return "; ".join(said) or f"{' and '.join(rows)} have no seed in common"


def _cheaper(part: Part, figures: Figures) -> Found:
    costs = [_flops(figures.results[name]) for name in (part.row, part.other)]
    if costs[0] is None or not costs[1]:
        return Found(part, UNDECIDED, f"{part.row} or {part.other} is not trained")
    saved = 100 * (1 - costs[0] / costs[1])
    text = f"{part.row}: {costs[0]:,} activation FLOPs, {part.other}: {costs[1]:,}, which is {saved:.1f} % fewer"
    return Found(part, HOLDS if 70.5 <= saved < 72.5 else FAILS, text)


def _flops(results: Sequence[Result]) -> int | None:
    return next((one.activation_flops for one in results if one.activation_flops is not None), None)


def _verdict(found: Interval, low: float, high: float, *, seeds: int) -> str:
    if seeds < LEAST or math.isnan(found.low):
        return UNDECIDED
    if low <= found.low and found.high <= high:
        return HOLDS
    return FAILS if found.high < low or found.low > high else UNDECIDED


def plain(found: Interval) -> str:
    """`87.21 (86.90 to 87.55)`."""
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"


def signed(found: Interval) -> str:
    """`+0.31 (−0.02 to 0.60)`."""
    return f"{found.value:+.2f} ({found.low:.2f} to {found.high:.2f})".replace("-", "−")


def chance(p: float) -> str:
    """`0.031`; what is smaller than 0.0001 is only that."""
    return f"{p:.2g}" if p >= 1e-4 else "<0.0001"
