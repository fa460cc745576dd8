"""`metaformer serve`: models as an HTTP service."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from metaformer.cli_predict import MODEL, Device, Engine, Precision, Streams, Threads

NEEDED = ("fastapi", "uvicorn", "httptools", "msgpack", "prometheus_client", "python_multipart")


def serve(
    sources: Annotated[list[str], typer.Argument(metavar="MODEL...", help=f"{MODEL} Several: NAME=MODEL names them.")],
    host: Annotated[
        str, typer.Option(help="The address to listen at; other than this machine's own it needs keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8000,
    batch: Annotated[int, typer.Option(min=1, help="Images at once, at most.")] = 16,
    wait: Annotated[float, typer.Option(min=0, help="Seconds that images may wait for others to fill a batch.")] = 0.0,
    queue: Annotated[int, typer.Option(min=1, help="Images that may wait for each model; more are refused with 503.")] = 256,
    deadline: Annotated[float, typer.Option(help="Seconds in which a request is answered, or refused with 503.")] = 30.0,
    max_mb: Annotated[float, typer.Option(help="Megabytes (MiB) of a request.")] = 64.0,
    max_pixels: Annotated[int, typer.Option(min=1, help="Pixels of an image.")] = 100_000_000,
    max_images: Annotated[int, typer.Option(min=1, help="Images of a request.")] = 64,
    keys: Annotated[
        Path | None, typer.Option(help="A file with an API key on each line; also METAFORMER_KEYS, with commas.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None, typer.Option(metavar="ORIGIN", help="Whose pages may ask, such as https://example.org; repeat it.")
    ] = None,
    drain: Annotated[float, typer.Option(min=0, help="Seconds in which what was taken is answered after SIGTERM.")] = 20.0,
    device: Device = "auto",
    engine: Engine = "auto",
    precision: Precision = "auto",
    threads: Threads = None,
    streams: Streams = None,
) -> None:
    """Answer images over HTTP, with a page to try it: metaformer serve runs/mine, then open http://127.0.0.1:8000"""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ValueError(f"serving needs {missing[0]}: pip install 'metaformer[serve]'")
    from metaformer.serve.app import Service
    from metaformer.serve.keys import VARIABLE, check_reachable, read_keys
    from metaformer.serve.named import named
    from metaformer.serve.pool import Pool
    from metaformer.serve.server import serve as run
    from metaformer.serve.settings import Limits, Running

    known = read_keys(os.environ.get(VARIABLE), keys)
    check_reachable(host, known)
    limits = Limits(
        body=int(max_mb * (1 << 20)),
        image=int(max_mb * (1 << 20)),
        pixels=max_pixels,
        images=max_images,
        queue=queue,
        deadline=deadline,
        drain=drain,
    )
    running = Running(engine, device, precision, threads, streams, batch, wait)
    service = Service(Pool(named(sources), running, limits), limits, keys=known, origins=allow_origin or ())
    run(service, host, port, typer.echo)
