"""The verbs of `metaformer data`: parse, import what is needed, make one call."""

import json
from pathlib import Path
from typing import Annotated

import typer

data = typer.Typer(no_args_is_help=True, help="Check a data set, or write it as shards.")
Source = Annotated[str, typer.Argument(metavar="PATH", help="What data= takes: a folder, a table, cifar10:PATH ...")]


@data.command()
def check(
    source: Source,
    out: Annotated[Path, typer.Option(help="A folder for check.html and check.json.")] = Path("check"),
    allow_leaks: Annotated[bool, typer.Option("--allow-leaks", help="Images in several parts are no error.")] = False,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that look at images; by default one a core.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what check.json holds.")] = False,
) -> None:
    """Look at every image: damage, copies, leaks between train and test, sizes, classes. With errors the exit code is 1."""
    from metaformer.data.checked import check_data
    from metaformer.lab.check_page import check_text, write_check
    from metaformer.train.display import Watch

    found = check_data(source, workers=workers, progress=Watch(quiet=as_json))
    write_check(found, out, allow_leaks=allow_leaks)
    errors = found.errors(leaks=not allow_leaks)
    typer.echo(json.dumps(found.to_dict(), indent=1) if as_json else f"{check_text(found)}\n\nThe page: {out / 'check.html'}")
    for said in errors:
        typer.echo(f"metaformer: {said}", err=True)
    if errors:
        raise typer.Exit(1)


@data.command()
def shard(
    source: Source,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder, or one in which an earlier call was cut short.")],
    format: Annotated[str, typer.Option(help="tar, in WebDataset's layout, or parquet, as Hugging Face writes it.")] = "tar",
    size: Annotated[str, typer.Option(help="About how large a shard is: 500MB, 64KB, 2GB.")] = "500MB",
    shuffle: Annotated[int | None, typer.Option(min=0, metavar="SEED", help="Put images in a random order.")] = None,
) -> None:
    """Write a data set as shards, bytes unchanged, each read again and compared; a call that was cut short goes on."""
    from metaformer.data.shard import shard_data as write
    from metaformer.train.display import Watch

    done = write(source, out, format=format, size=size, shuffle=shuffle, progress=Watch())
    for note in done.notes:
        typer.echo(note)
    kept = f", {done.kept:,} of them from before" if done.kept else ""
    typer.echo(f"{done.images:,} images in {done.shards:,} shards{kept}, {done.bytes / 1e6:,.1f} MB, checked: {done.folder}")
