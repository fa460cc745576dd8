"""`metaformer predict` on a screen: lines as soon as they are known, or a file; what cannot be read is told aside."""

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.progress import track

from metaformer.data.find import find_images, printable
from metaformer.infer.output import NEXT, Table, check_out, json_line, saved, summary
from metaformer.infer.predictor import Predictor


def predict(
    source: str,
    paths: Sequence[str],
    *,
    out: str | None,
    json_lines: bool,
    top: int,
    device: str,
    engine: str,
    precision: str,
    threads: int | None,
) -> int:
    """Says what is on images, and returns how many could not be read."""
    file, images = check_out(out), find_images(paths)
    predictor = Predictor(source, engine, device=device, precision=precision, threads=threads)
    screen, aside = Console(highlight=False, soft_wrap=True), Console(stderr=True, highlight=False, soft_wrap=True)
    aside.print(predictor.choice, markup=False)
    most = len(predictor.classes) if predictor.several else min(top, len(predictor.classes))
    following = most if predictor.several else NEXT
    table = Table(images, predictor.classes, width=screen.width if screen.is_terminal else None, following=following)
    shown, failed = not json_lines and file is None, 0
    if shown and screen.is_terminal:
        screen.print(table.header())
    answers = predictor.stream(images, top=top)
    hidden = shown or json_lines or not aside.is_terminal
    with saved(file, most) as save:
        for answer in track(answers, "predicting", len(images), console=aside, transient=True, disable=hidden):
            save(answer)
            if answer.error is not None:
                failed += 1
                aside.print(printable(answer.error), markup=False)
            if json_lines:
                sys.stdout.write(f"{json_line(answer)}\n")
            elif shown and answer.error is None:
                screen.print(table.row(answer))
    aside.print(summary(len(images), failed, file), markup=False)
    return failed
