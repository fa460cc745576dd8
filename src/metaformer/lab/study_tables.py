"""The table of a study: for a screen, as Markdown, CSV and LaTeX; and its claims."""

import csv
import io
import re
from collections.abc import Sequence

from metaformer.lab.claims import Verdict, chance, plain, signed
from metaformer.lab.study_figures import Standing
from metaformer.lab.study_results import FINISHED
from metaformer.lab.tables import Rows

HEADINGS = (
    "row", "top-1, % (95 %)", "deviation", "to the base, points (95 %)", "p images", "p seeds", "seeds", "parameters", "MACs",
    "images/s", "peak MiB", "minutes", "published",
)  # fmt: skip
CSV = (
    "row", "base", "seeds", "failed", "top1", "top1_low", "top1_high", "deviation", "difference", "difference_low",
    "difference_high", "p_images", "p_seeds", "parameters", "frozen", "macs", "activation_flops", "images_per_second",
    "peak_bytes", "seconds", "published", "note",
)  # fmt: skip


def table(standings: Sequence[Standing]) -> Rows:
    """A row of texts for each row of the study, headings first. What is published is of ImageNet-1K, and stands last, where
    anything is."""
    rows: Rows = [HEADINGS, *(_texts(one, standings[0].base) for one in standings)]
    published = any(one.published is not None or one.note for one in standings)
    return rows if published else [row[:-1] for row in rows]


def _texts(one: Standing, base: str) -> tuple[str, ...]:
    """`base` is that of the study, which needs no name."""
    known, done = one.any, len(one.finished)
    gap = one.difference
    seconds = sum(result.seconds for result in one.finished) / done if done else None
    return (
        one.row,
        "–" if one.top1 is None else plain(one.top1),
        _text(one.deviation, ".2f"),
        ("base" if one.base == one.row else "–")
        if gap is None
        else f"{signed(gap)}{' *' if gap.apart else ''}{'' if one.base == base else f' to {one.base}'}",
        "–" if gap is None else chance(gap.p_images),
        "–" if gap is None or gap.p_seeds is None else chance(gap.p_seeds),
        f"{done}" if done == len(one.results) else f"{done} of {len(one.results)}",
        "–" if known is None or known.parameters is None else f"{known.parameters / 1e6:.2f} M",
        "–" if known is None or known.macs is None else f"{known.macs / 1e6:,.1f} M",
        _text(one.rate, ",.0f"),
        "–" if one.peak is None else f"{one.peak / 2**20:,.0f}",
        "–" if seconds is None else f"{seconds / 60:.1f}",
        _text(one.published, ".1f") + (f" ({one.note})" if one.note else ""),
    )


def _text(value: float | None, how: str) -> str:
    return "–" if value is None else format(value, how)


def failures(standings: Sequence[Standing]) -> list[str]:
    """A sentence for each seed that did not finish."""
    return [
        f"{one.row}, seed {result.seed}, {result.state}: {result.why}"
        for one in standings
        for result in one.results
        if result.state != FINISHED
    ]


def markdown(rows: Rows) -> str:
    """For a document; the first column is code."""
    head, *body = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join([*lines, *(f"| `{row[0]}` | {' | '.join(row[1:])} |" for row in body)]) + "\n"


def to_csv(standings: Sequence[Standing]) -> str:
    """Numbers in full, for a spreadsheet; what is not known is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_numbers(one) for one in standings)
    return text.getvalue()


def _numbers(one: Standing) -> dict[str, object]:
    known, done, gap, top1 = one.any, len(one.finished), one.difference, one.top1
    found: dict[str, object] = {
        "row": one.row, "base": one.base, "seeds": done, "failed": len(one.results) - done, "deviation": one.deviation,
        "images_per_second": one.rate, "peak_bytes": one.peak, "published": one.published, "note": one.note,
    }  # fmt: skip
    if top1 is not None:
        found |= {"top1": top1.value, "top1_low": top1.low, "top1_high": top1.high}
    if gap is not None:
        found |= {"difference": gap.value, "difference_low": gap.low, "difference_high": gap.high}
        found |= {"p_images": gap.p_images, "p_seeds": gap.p_seeds}
    if known is not None:
        found |= {key: getattr(known, key) for key in ("parameters", "frozen", "macs", "activation_flops")}
        found["seconds"] = sum(result.seconds for result in one.finished) / done if done else None
    return found


SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "−": "$-$", "–": "--", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "±": r"$\pm$", "×": r"$\times$", "≤": r"$\le$", "≥": r"$\ge$", "λ": r"$\lambda$", "√": r"$\surd$",
}  # fmt: skip


def escaped(text: str) -> str:
    """As LaTeX prints it."""
    return "".join(SPECIAL.get(letter, letter) for letter in text)


def latex(rows: Rows, caption: str, label: str) -> str:
    """A table with booktabs' rules, as wide as the text, to be referred to as `tab:LABEL`."""
    head, *body = ([escaped(cell) for cell in row] for row in rows)
    lines = [
        r"% \usepackage{booktabs,graphicx}", r"\begin{table}", r"\centering", r"\setlength{\tabcolsep}{3pt}",
        r"\resizebox{\linewidth}{!}{%", rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", r"\toprule",
        " & ".join(head) + r" \\", r"\midrule", *(" & ".join(row) + r" \\" for row in body), r"\bottomrule",
        r"\end{tabular}}", rf"\caption{{{escaped(caption)}}}", rf"\label{{tab:{re.sub('[^A-Za-z0-9]+', '-', label)}}}",
        r"\end{table}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def claims_table(verdicts: Sequence[Verdict]) -> Rows:
    """A row for each part of each claim."""
    rows: Rows = [("claim", "verdict", "measured", "published")]
    for one in verdicts:
        for number, part in enumerate(one.parts):
            mixed = len(one.parts) > 1
            said = f"{part.figure}{f': {part.verdict}' if mixed else ''}"
            text = f"{one.claim.text} ({one.claim.paper})"
            rows.append(("" if number else text, "" if number else one.verdict, said, part.part.published))
    return rows


def claims_markdown(verdicts: Sequence[Verdict]) -> str:
    """For a document."""
    head, *body = claims_table(verdicts)
    lines = [f"| {' | '.join(head)} |", "|---|---|---|---|"]
    for text, verdict, *rest in body:
        lines.append(f"| {text} | {f'**{verdict}**' if verdict else ''} | {' | '.join(rest)} |")
    return "\n".join(lines) + "\n"
