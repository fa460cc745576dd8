"""`metaformer predict`: what is on images, be it a class, objects or regions; and options that other verbs share."""

from typing import Annotated

import typer

MODEL = "A run directory, a published name such as caformer_s18 or caformer_s18.in1k_384, hf:USER/NAME, or an exported file."
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Engine = Annotated[str, typer.Option(help="What runs it: auto, torch, compiled, openvino, onnxruntime or executorch.")]
Precision = Annotated[str, typer.Option(help="auto, fp32, bf16, or on a GPU fp16.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads of the processor; by default one for each core.")]
Streams = Annotated[int | None, typer.Option(min=1, help="Images at once in OpenVINO; by default one for each thread.")]


def predict(
    source: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL)],
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help='Image files, folders, globs such as "photos/*.jpg".')],
    out: Annotated[
        str | None,
        typer.Option(help="A .jsonl, .csv or .parquet file; of objects and regions a folder for pictures, or see --to."),
    ] = None,
    json_lines: Annotated[bool, typer.Option("--json", help="JSON lines instead of a table.")] = False,
    top: Annotated[int, typer.Option(min=1, help="How many classes for each image, where it has one.")] = 5,
    to: Annotated[
        str | None,
        typer.Option(help="Of objects and regions: pictures, coco, voc, yolo, png, jsonl or csv; else as --out ends."),
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="Least score of objects: 0.5; for coco all.")] = None,
    tile: Annotated[int | None, typer.Option(help="Look for objects and regions in tiles of so many pixels a side.")] = None,
    overlap: Annotated[int, typer.Option(help="Pixels that tiles share at least.")] = 128,
    tta: Annotated[str, typer.Option(help="Objects and regions looked for several times: flip, scales, or flip,scales.")] = "",
    device: Device = "auto",
    engine: Engine = "auto",
    precision: Precision = "auto",
    threads: Threads = None,
    streams: Streams = None,
) -> None:
    """Say what is on images. What cannot be read is told, and the exit code is then 1."""
    from metaformer.data.find import find_images
    from metaformer.infer.about import is_dense_source

    if is_dense_source(source):
        from metaformer.infer.dense import DensePredictor
        from metaformer.infer.dense_show import Wanted, show_found

        if streams is not None:
            raise ValueError(f"--streams {streams} is for classifiers, and {source} finds objects or regions: leave it out")
        wanted = Wanted(out, to, threshold, tile, overlap, tta, json_lines=json_lines)
        predictor = DensePredictor(source, engine, device=device, precision=precision, threads=threads)
        if show_found(predictor, find_images(paths), wanted):
            raise typer.Exit(1)
        return
    from metaformer.infer.output import check_out
    from metaformer.infer.predictor import Predictor
    from metaformer.infer.show import show

    file, images = check_out(out), find_images(paths)
    predictor = Predictor(source, engine, device=device, precision=precision, threads=threads, streams=streams)
    for name, value in (("--to", to), ("--threshold", threshold), ("--tile", tile), ("--tta", tta or None)):
        if value is not None:
            raise ValueError(
                f"{name} {value} is for models that find objects or regions, and {source} is a classifier: leave it out"
            )
    if show(predictor, images, file, top=top, json_lines=json_lines):
        raise typer.Exit(1)
