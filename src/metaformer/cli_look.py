"""The verbs that look into models, explain and inspect: parse, import what is needed, make one call."""

import json
from pathlib import Path
from typing import Annotated

import typer

from metaformer.cli_predict import MODEL, Device

LOOKED = MODEL.replace("or an exported file", "or timm:NAME")


def explain(
    source: Annotated[str, typer.Argument(metavar="MODEL", help=LOOKED)],
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PATH]...", help='Image files, folders, globs such as "photos/*.jpg"; else what the run held out.'
        ),
    ] = None,
    beside: Annotated[
        list[str] | None, typer.Option(metavar="MODEL", help="Another model in the same pictures; repeat it.")
    ] = None,
    ask: Annotated[str, typer.Option(help="all, or with commas: cam, occlusion, attention, reach, similarity.")] = "all",
    label: Annotated[str | None, typer.Option(help="The class to explain; by default each model's own answer.")] = None,
    shown: Annotated[int, typer.Option(min=1, help="How many images are drawn; similarity is of up to 256.")] = 6,
    window: Annotated[int | None, typer.Option(min=1, help="Side of what occlusion covers; by default a seventh.")] = None,
    out: Annotated[Path, typer.Option(help="A folder for explain.html, explain.json and the pictures.")] = Path("explained"),
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print what explain.json holds.")] = False,
) -> None:
    """Show where models look and how far they see: metaformer explain runs/mine photos --beside timm:resnet18"""
    from metaformer.lab.explain import explain as look_at
    from metaformer.lab.explain import explained_text
    from metaformer.train.display import Watch

    found = look_at(
        source,
        paths or None,
        beside=beside or (),
        ask=ask,
        label=label,
        shown=shown,
        window=window,
        out=out,
        device=device,
        progress=Watch(quiet=as_json),
    )
    typer.echo(json.dumps(found.to_dict()) if as_json else f"{explained_text(found.told)}\n\nThe page: {found.page}")


def inspect(
    source: Annotated[
        str, typer.Argument(metavar="MODEL", help="A run, a name such as caformer_s18 or retinanet/caformer_s18, or timm:NAME.")
    ],
    image_size: Annotated[int | None, typer.Option(min=1, help="Side of the images; by default the model's own.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="How many images at once.")] = 1,
    time: Annotated[bool, typer.Option(help="Measure each part's time.")] = True,
    rounds: Annotated[int, typer.Option(min=1, help="How often each part takes its turn.")] = 15,
    out: Annotated[Path, typer.Option(help="A folder for inspect.json and the pictures.")] = Path("inspected"),
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print what inspect.json holds.")] = False,
) -> None:
    """Say what each part of MODEL is, costs and keeps, and draw the architecture: metaformer inspect caformer_s18"""
    from metaformer.lab.inspect import inspect as look_into
    from metaformer.lab.inspect import inspected_text

    found = look_into(source, image_size=image_size, batch=batch, time=time, rounds=rounds, device=device)
    folder = found.write(out)
    typer.echo(json.dumps(found.to_dict()) if as_json else f"{inspected_text(found)}\n\nThe pictures: {folder}")
