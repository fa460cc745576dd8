"""The tables of a study: as Markdown, CSV and LaTeX, from made-up results."""

import csv
import io
import re

import pytest
from tests.studied import result, rights_of

from metaformer.lab.claims import CLAIMS, judge_claims
from metaformer.lab.studies import STUDIES
from metaformer.lab.study import Row, Study
from metaformer.lab.study_figures import Figures, Standing
from metaformer.lab.study_results import FAILED
from metaformer.lab.study_tables import (
    CSV,
    HEADINGS,
    claims_markdown,
    claims_table,
    escaped,
    failures,
    latex,
    markdown,
    table,
    to_csv,
)

STUDY = Study(name="made", rows=(Row("base", published=77.2), Row("a_b & c|d", published=76.7, note="about −0.5"), Row("gone")))


@pytest.fixture(scope="module")
def standings() -> list[Standing]:
    results, rights = rights_of({"base": [0.5, 0.52, 0.51], "a_b & c|d": [0.6, 0.61, 0.66]}, 400)
    gone = result("gone", 0, state=FAILED, top1=None, why="its process was ended by SIGKILL", curve=[], macs=None)
    return Figures(STUDY, [*results, gone], rights).standings({"base": 1234.5})


def test_table(standings: list[Standing]) -> None:
    head, base, other, gone = table(standings)
    assert head == HEADINGS
    told = dict(zip(head, base, strict=True))
    assert re.fullmatch(r"51\.00 \(4\d\.\d\d to 5\d\.\d\d\)", told["top-1, % (95 %)"])
    assert told["to the base, points (95 %)"] == "base"
    assert (told["deviation"], told["seeds"], told["parameters"], told["MACs"]) == ("1.00", "3", "1.20 M", "15.0 M")
    assert (told["images/s"], told["peak MiB"], told["minutes"], told["published"]) == ("1,234", "300", "1.5", "77.2")
    told = dict(zip(head, other, strict=True))
    assert re.fullmatch(r"\+11\.33 \([\d.−]+ to [\d.]+\) \*", told["to the base, points (95 %)"])
    assert told["published"] == "76.7 (about −0.5)"
    told = dict(zip(head, gone, strict=True))
    assert (told["top-1, % (95 %)"], told["seeds"], told["MACs"], told["published"]) == ("–", "0 of 1", "–", "–")


def test_a_row_with_a_base_of_its_own_names_it_and_only_what_is_apart_has_a_star() -> None:
    study = Study(name="made", rows=(Row("a"), Row("b"), Row("c", against="b"), Row("d", against="d"), Row("e")))
    shares = {"a": [0.5] * 3, "b": [0.9] * 3, "c": [0.3, 0.3, 0.31], "d": [0.5] * 3, "e": [0.9] * 2}
    results, rights = rights_of(shares, 400)
    _, a, b, c, d, e = (row[3] for row in table(Figures(study, results, rights).standings({})))
    assert (a, d, e.count("*")) == ("base", "base", 0)  # two seeds decide nothing
    assert b.endswith(") *")
    assert re.fullmatch(r"−59\.67 \(.*\) \* to b", c)


def test_nothing_is_said_of_published_figures_where_there_are_none() -> None:
    results, rights = rights_of({"a": [0.5, 0.5]}, 400)
    standings = Figures(Study(name="made", rows=(Row("a"),)), results, rights).standings({})
    assert [row[-1] for row in table(standings)] == ["minutes", "1.5"]


def test_what_failed_is_told(standings: list[Standing]) -> None:
    assert failures(standings) == ["gone, seed 0, failed: its process was ended by SIGKILL"]


def test_markdown_has_as_many_cells_everywhere(standings: list[Standing]) -> None:
    lines = markdown(table(standings)).splitlines()
    assert {len(re.split(r"(?<!\\)\|", line)) for line in lines} == {len(HEADINGS) + 2}
    assert lines[3].startswith(r"| `a_b & c\|d` |")


def test_csv_has_numbers_in_full(standings: list[Standing]) -> None:
    base, other, gone = csv.DictReader(io.StringIO(to_csv(standings)))
    assert tuple(base) == CSV
    assert (float(base["top1"]), base["difference"], base["seeds"], base["failed"]) == (pytest.approx(51.0), "", "3", "0")
    assert float(other["difference"]) == pytest.approx(34 / 3)
    assert float(other["difference_low"]) < 34 / 3 < float(other["difference_high"])
    assert (other["row"], other["note"], float(other["published"])) == ("a_b & c|d", "about −0.5", 76.7)
    assert (gone["top1"], gone["failed"], gone["published"]) == ("", "1", "")


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("a_b & c", r"a\_b \& c"), ("50 % of $1", r"50 \% of \$1"), ("{x}#~^", r"\{x\}\#\textasciitilde{}\textasciicircum{}"),
        ("\\", r"\textbackslash{}"), ("−0.5 – 1", "$-$0.5 -- 1"), ("a < b > c", r"a \textless{} b \textgreater{} c"),
        ("λ|x| ± 2×", r"$\lambda$\textbar{}x\textbar{} $\pm$ 2$\times$"),
    ],
)  # fmt: skip
def test_latex_prints_what_is_there(text: str, printed: str) -> None:
    assert escaped(text) == printed


def test_latex_has_as_many_cells_everywhere(standings: list[Standing]) -> None:
    text = latex(table(standings), "100 % & more", "my_study")
    body = text.partition("\\midrule\n")[2].partition("\\bottomrule")[0].splitlines()
    assert len(body) == 3
    assert {len(re.split(r"(?<!\\)&", line)) for line in body} == {len(HEADINGS)}
    assert all(line.endswith(r" \\") for line in body)
    assert "\\caption{100 \\% \\& more}\n\\label{tab:my-study}\n" in text
    assert text.count("{") == text.count("}")
    assert text.startswith("% \\usepackage{booktabs,graphicx}\n\\begin{table}\n")
    assert rf"\begin{{tabular}}{{l{'r' * (len(HEADINGS) - 1)}}}" in text
    assert not re.search(r"[^\x00-\x7f]", text)


def test_claims_have_a_row_for_each_part() -> None:
    verdicts = judge_claims(Figures(STUDIES["claims"], [], {}), CLAIMS)
    rows = claims_table(verdicts)
    assert len(rows) == 1 + sum(len(one.claim.parts) for one in verdicts)
    assert rows[1][:2] == ("Identity is a floor well above chance (v1, v2)", "undecided at this scale")
    lines = claims_markdown(verdicts).splitlines()
    assert len(lines) == len(rows) + 1
    assert "| **undecided at this scale** |" in lines[2]
