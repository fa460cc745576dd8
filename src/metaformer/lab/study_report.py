"""`study`: trains what is to be trained of a study, then writes its tables and pictures and judges the papers' claims by it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from metaformer.lab import study_plots
from metaformer.lab.claims import RULES, Verdict, borne_by, judge_claims
from metaformer.lab.studies import STUDIES
from metaformer.lab.study import Study
from metaformer.lab.study_asked import Known, Wanted, known_of
from metaformer.lab.study_figures import Figures, Standing
from metaformer.lab.study_results import FINISHED, read_right
from metaformer.lab.study_run import Plan, plan_study, run_study
from metaformer.lab.study_speed import Speeds, known_speeds, measure_rows
from metaformer.lab.study_tables import claims_markdown, claims_table, failures, latex, markdown, table, to_csv
from metaformer.lab.tables import Rows, columns
from metaformer.runs import write_text
from metaformer.train.display import say

APART = (
    "* is apart from the row it is compared with: the 95 % interval of their difference leaves out 0, of three seeds or more. "
    "Nothing is corrected for the number of rows: of twenty that are worth the same, one is apart by chance."
)
HOW = (
    "Top-1 is of the last epoch, so that nothing was chosen on the held-out images; in brackets 95 % intervals by bootstrap "
    f"over images and seeds. {APART} The p decide nothing, each looks at one half of chance. p images: that the images are so "
    "uneven by chance, the trained models being what they are; p seeds: that the seeds are (Student's paired t-test), – where "
    "one seed, or all differing by as much, leave nothing to test. Minutes are of one training, which may have had others "
    "beside it. Peak is the median of the seeds."
)
EVEN = (
    " Rows that do not say how wide they are have the width, in steps of 8 channels, at which as many parameters learn as of "
    "the row at the end of their comparisons."
)
PUBLISHED = "Published is ImageNet-1K top-1 as the papers give it, after 300 epochs; nothing of it was trained here."


@dataclass(frozen=True)
class Studied:
    """A study, as far as it went; `path` holds results.jsonl, its tables and its pictures."""

    path: Path
    study: Study
    standings: tuple[Standing, ...]
    verdicts: tuple[Verdict, ...]
    """On the papers' claims that its rows bear."""
    failures: tuple[str, ...]
    """Why a seed of a row did not finish, a sentence each."""
    left: int
    """Trainings that are still to come."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without learning curves."""
        rows = [asdict(one) | {"results": [_short(asdict(result)) for result in one.results]} for one in self.standings]
        return {
            "study": self.study.name, "path": str(self.path), "rows": rows, "failures": list(self.failures),
            "claims": [asdict(one) for one in self.verdicts], "left": self.left,
        }  # fmt: skip

    def __str__(self) -> str:
        """What the command prints."""
        return studied_text(self)


def _short(told: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in told.items() if key not in ("curve", "recipe", "versions", "machine")}


def study(
    what: str | Path | Study,
    *,
    seeds: int | None = None,
    scale: str | None = None,
    equal: str | None = None,
    rows: str = "*",
    devices: int = 1,
    jobs: int = 1,
    models: bool = False,
    train: bool = True,
    measure: bool = False,
    name: str | None = None,
    root: str | Path = "studies",
    quiet: bool = False,
    **settings: Any,
) -> Studied:
    """Trains every row of a study with every seed, and says what sets rows apart; all is in `root/name`.

    `what` is a named study (norm), a file or module that has one (mine.py, mine.py:STUDY), a `Study`, or the folder of one to
    go on with. `scale` is the end of a model's name (t6, s12, s18); with `equal="parameters"` each row has as many as what it
    is compared with, by other widths. `rows` are globs with commas between; rows that those are compared with join. A row that
    is done, in another study too, is not trained again; one that was cut short goes on at the step where it was saved. `jobs`
    rows are trained at a time on each of so many `devices`. `models` keeps the weights. With `train=False` only tables and
    pictures are made, of what the folder holds: images are not needed. `measure` has the speed of all rows measured anew.
    `settings` are keys of `Recipe`, for all rows. A row that fails is told in `failures`. Start it under `if __name__ ==
    "__main__":` in a script, as its processes import that.

    Raises ValueError, FileNotFoundError or FileExistsError with a sentence; KeyboardInterrupt after Ctrl-C and SystemExit after
    SIGTERM, with all work saved.
    """
    wanted = Wanted(seeds, scale, rows, devices, jobs, name, Path(root), equal)
    if not (train or measure):
        return told(known_of(what, settings, wanted))
    plan = plan_study(what, settings, wanted, as_it_is=not train, quiet=quiet)
    if train:
        run_study(plan, models=models, quiet=quiet)
    known = plan.known()
    finished = {one.row for one in known.results if one.state == FINISHED}
    if finished:
        say("measuring how fast the rows are", quiet=quiet)
        measure_rows(plan, finished, anew=measure)
    return told(known)


def told(known: Known) -> Studied:
    """Writes the tables and pictures of what is known."""
    results = known.results
    if not results:
        raise ValueError(f"nothing is trained yet for {known.path}")
    judged = sorted({one.images for one in results if one.state == FINISHED})
    if len(judged) > 1:
        said = " and of ".join(map(str, judged))
        raise ValueError(f"{known.path} has results of {said} images, as its data changed: train it to have those of one data")
    rights = {one.key: read_right(known.path, one) for one in results if one.state == FINISHED}
    speeds = known_speeds(known.path)
    figures = Figures(known.study, results, rights)
    standings = figures.standings({} if speeds is None else speeds.medians)
    verdicts = judge_claims(figures, borne_by(known.study, known.asked.settings.get("changes", {})))
    _write(known, standings, verdicts, speeds)
    return Studied(known.path, known.study, tuple(standings), tuple(verdicts), tuple(failures(standings)), known.left)


def _write(known: Known, standings: list[Standing], verdicts: list[Verdict], speeds: Speeds | None) -> None:
    path, rows = known.path, table(standings)
    title = f"{known.study.name} on {Path(known.setting('data').partition(':')[0]).name}"
    epochs, batch, lr = (known.setting(key) for key in ("epochs", "batch", "lr"))
    trained = f"{epochs} epoch{'s' if epochs > 1 else ''}, batch {batch}, lr {lr:g}, {known.computed}"
    setting = f"{title}: {trained}, scale {known.asked.scale}."
    setting += EVEN if known.asked.equal == "parameters" else ""
    legend = f"{HOW} {PUBLISHED}" if rows[0][-1] == "published" else HOW
    how = "" if speeds is None else f"Images/s: {speeds.how}; {speeds.machine}."
    notes = [f"- Did not finish: {sentence}" for sentence in failures(standings)]
    parts = [
        f"# {known.study.name}",
        known.study.about,
        setting,
        markdown(rows).rstrip(),
        *(["\n".join(notes)] if notes else []),
        legend,
    ]
    write_text(path / "table.md", "\n\n".join(part for part in [*parts, how] if part) + "\n")
    write_text(path / "table.csv", to_csv(standings))
    write_text(path / "table.tex", latex(rows, f"{setting} {legend} {how}".strip(), path.name))
    if verdicts:
        write_text(path / "claims.md", f"# The papers' claims, by {title}\n\n{setting} {RULES}\n\n{claims_markdown(verdicts)}")
        write_text(path / "claims.json", json.dumps([asdict(one) for one in verdicts], indent=1) + "\n")
    else:
        for name in ("claims.md", "claims.json"):
            (path / name).unlink(missing_ok=True)  # of more rows than these
    if any(one.top1 is not None for one in standings):
        study_plots.accuracy(standings, path / "accuracy", title, "" if speeds is None else speeds.how)
    if any(result.curve for one in standings for result in one.results):
        study_plots.learning(standings, path / "learning", title)


# --- for a screen -----------------------------------------------------------------------------------------------------


def studied_text(found: Studied) -> str:
    """The table, the claims, what failed, and where all is."""
    lines = [columns(table(found.standings), right=tuple(range(1, 12)))]
    lines += ["", APART] if any(one.difference is not None for one in found.standings) else []
    if found.verdicts:
        lines += ["", columns(claims_table(found.verdicts))]
    lines += ["", *(f"did not finish: {sentence}" for sentence in found.failures)] if found.failures else []
    pictures = "".join(f" {name}," for name in ("accuracy.png", "learning.png") if (found.path / name).exists())
    left = f"; trainings still to come: {found.left}" if found.left else ""
    lines += ["", f"All is in {found.path}: table.md, .csv and .tex,{pictures} results.jsonl{left}"]
    return "\n".join(lines)


def studies_text(studies: Mapping[str, Study] = STUDIES) -> str:
    """Every named study, with its rows."""
    rows: Rows = [("study", "rows", "what it asks")]
    rows += [(one.name, str(len(one.rows)), one.about) for one in studies.values()]
    rows.append(("figure1", "", "Figure 1 of both papers from their published numbers, with speeds measured here."))
    return columns(rows, right=(1,))


def plan_text(plan: Plan) -> str:
    """The rows of a study, how many trainings of each are to come, and what is published."""
    left = [entry.row for entry in plan.todo()]
    rows: Rows = [("row", "compared with", "seeds to come", "published", "")]
    for row in plan.study.rows:
        published = "–" if row.published is None else f"{row.published:.1f}"
        base = plan.study.base(row.name)
        rows.append((row.name, "–" if base == row.name else base, str(left.count(row.name)), published, row.note))
    return columns(rows, right=(2, 3))
