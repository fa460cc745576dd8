"""The verb `metaformer study`: parse, import what is needed, make one call."""

import json
from pathlib import Path
from typing import Annotated

import typer

WORDS = ("name", "root", "seeds", "scale", "equal")


def study(
    what: Annotated[
        str | None,
        typer.Argument(metavar="[STUDY]", help="A name, figure1, FILE.py, FILE.py:NAME, module:NAME, or a study's folder."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="seeds, scale, equal, name, root, and settings of all rows."),
    ] = None,
    rows: Annotated[str, typer.Option(help='Globs of rows, such as "pooling*,caformer".')] = "*",
    devices: Annotated[int, typer.Option(min=1, help="GPUs of this machine.")] = 1,
    jobs: Annotated[int, typer.Option(min=1, help="Rows that are trained at a time, on each device.")] = 1,
    models: Annotated[bool, typer.Option("--models", help="Keep the weights of what is trained.")] = False,
    only_list: Annotated[bool, typer.Option("--list", help="List the rows and what is to come; train nothing.")] = False,
    draw: Annotated[bool, typer.Option("--draw", help="Tables and pictures of what is done; train nothing.")] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure all speeds anew, on a machine at rest; train nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, with more digits.")] = False,
) -> None:
    """Train the rows of a study, the papers' or yours: metaformer study norm data=fashion-mnist epochs=5 --jobs 2"""
    from metaformer.config import parse
    from metaformer.lab.study_asked import Wanted
    from metaformer.lab.study_report import plan_text, studied_text, studies_text
    from metaformer.lab.study_report import study as run
    from metaformer.lab.study_run import plan_study

    if what is None:
        typer.echo(studies_text())
        return
    given = parse(settings or [], WORDS)
    name, root = given.pop("name", None), given.pop("root", "studies")
    seeds, scale = given.pop("seeds", None), given.pop("scale", None)
    equal = given.pop("equal", None)
    if seeds is not None and not seeds.isdecimal():
        raise ValueError(f"seeds={seeds} is not a whole number")
    if what == "figure1":
        options = {
            "seeds=": seeds, "scale=": scale, "equal=": equal, "--rows": rows != "*", "--devices": devices > 1,
            "--jobs": jobs > 1, "--models": models, "--list": only_list, "--json": as_json,
        }  # fmt: skip
        _refuse([name for name, wanted in options.items() if wanted])
        _figure_one(Path(root) / (name or "figure1"), given, draw=draw, anew=measure)
        return
    count = None if seeds is None else int(seeds)
    if only_list:
        wanted = Wanted(count, scale, rows, devices, jobs, name, Path(root), equal)
        typer.echo(plan_text(plan_study(what, given, wanted, quiet=True)))
        return
    found = run(
        what, seeds=count, scale=scale, equal=equal, rows=rows, devices=devices, jobs=jobs, models=models,
        train=not (draw or measure), measure=measure, name=name, root=root, quiet=as_json, **given,
    )  # fmt: skip
    typer.echo(json.dumps(found.to_dict(), indent=2) if as_json else f"\n{studied_text(found)}")
    if found.failures:
        raise typer.Exit(1)


def _refuse(words: list[str]) -> None:
    """Raises ValueError for what figure1 does not take."""
    if words:
        takes = "device=, name=, root=" if words[0].endswith("=") else "--draw, --measure"
        raise ValueError(f"{words[0]} is not for figure1, whose figures are published: it takes {takes}")


def _figure_one(folder: Path, given: dict[str, object], *, draw: bool, anew: bool) -> None:
    from metaformer.lab.published import draw_figure_one, measure_published
    from metaformer.lab.study_speed import known_speeds

    device = given.pop("device", "auto")
    _refuse([f"{key}=" for key in given])
    folder.mkdir(parents=True, exist_ok=True)
    speeds = known_speeds(folder) if draw else measure_published(folder, device=str(device), anew=anew)
    typer.echo(f"The picture: {draw_figure_one(folder, speeds)}")
