"""`metaformer predict` and `embed`: classes, objects, regions or vectors of images; and options that other verbs share."""

from typing import Annotated

import typer

MODEL = "A run directory, a published name such as caformer_s18 or caformer_s18.in1k_384, hf:USER/NAME, or an exported file."
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Engine = Annotated[str, typer.Option(help="What runs it: auto, torch, compiled, openvino, onnxruntime or executorch.")]
Precision = Annotated[str, typer.Option(help="auto, fp32, bf16, or on a GPU fp16.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads of the processor; by default one for each core.")]
Streams = Annotated[int | None, typer.Option(min=1, help="Images at once in OpenVINO; by default one for each thread.")]

Paths = Annotated[
    list[str],
    typer.Argument(
        metavar="PATH...",
        help='Image files, folders, globs such as "photos/*.jpg"; into a folder of parts also .parquet, .tar, s3:// and gs://.',
    ),
]
Where = Annotated[
    str,
    typer.Option(
        help="What runs it: auto, torch, compiled, openvino, onnxruntime or executorch; or where: local, ray, ray:openvino ..."
    ),
]
Workers = Annotated[int | None, typer.Option(help="Of Ray: processes that hold the model; as many as there is room for.")]
Gpus = Annotated[float | None, typer.Option(help="Of Ray: GPUs of each worker, such as 1 or 0.5; none by default.")]
Address = Annotated[str | None, typer.Option(help="Of Ray: a cluster, such as auto or HOST:6379; else processes here.")]


def predict(
    source: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL)],
    paths: Paths,
    out: Annotated[
        str | None,
        typer.Option(
            help="A .jsonl, .csv or .parquet file, or a folder of parts, with which a killed job goes on; of objects and "
            "regions a folder for pictures, or see --to."
        ),
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
    engine: Where = "auto",
    precision: Precision = "auto",
    threads: Threads = None,
    streams: Streams = None,
    workers: Workers = None,
    gpus: Gpus = None,
    address: Address = None,
) -> None:
    """Say what is on images. What cannot be read is told, and the exit code is then 1."""
    from metaformer.infer.about import is_dense_source
    from metaformer.serve.batch.way import is_folder, read_way

    cluster, engine = read_way(engine, workers, gpus, address)
    dense = is_dense_source(source)
    if dense and streams is not None:
        raise ValueError(f"--streams {streams} is for classifiers, and {source} finds objects or regions: leave it out")
    if not dense and out is not None and not is_folder(out):
        from metaformer.infer.output import check_out

        check_out(out)
    for name, value in (("--to", to), ("--threshold", threshold), ("--tile", tile), ("--tta", tta or None)):
        if value is not None and not dense:
            raise ValueError(
                f"{name} {value} is for models that find objects or regions, and {source} is a classifier: leave it out"
            )
    if cluster is not None or (not dense and is_folder(out)):
        from metaformer.serve.batch.show import show_job
        from metaformer.serve.batch.way import planned
        from metaformer.serve.batch.work import Work, asked

        if json_lines or to is not None:
            raise ValueError(f"{f'--to {to}' if to else '--json'} is not what parts are written as: leave it out")
        asking = asked(threshold, tile, overlap, tta) if dense else None
        work = Work("predict", source, engine, device, precision, threads, streams, top, asking)
        failed = show_job(planned(work, paths, out, cluster))
    else:
        from metaformer.data.find import find_images
        from metaformer.serve.batch.way import check_words

        check_words(paths)
        images = find_images(paths)
        if dense:
            from metaformer.infer.dense import DensePredictor
            from metaformer.infer.dense_show import Wanted, show_found

            wanted = Wanted(out, to, threshold, tile, overlap, tta, json_lines=json_lines)
            finder = DensePredictor(source, engine, device=device, precision=precision, threads=threads)
            failed = show_found(finder, images, wanted)
        else:
            from metaformer.infer.output import check_out
            from metaformer.infer.predictor import Predictor
            from metaformer.infer.show import show

            predictor = Predictor(source, engine, device=device, precision=precision, threads=threads, streams=streams)
            failed = show(predictor, images, check_out(out), top=top, json_lines=json_lines)
    if failed:
        raise typer.Exit(1)


def embed(
    source: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL.replace(", or an exported file", ""))],
    paths: Paths,
    out: Annotated[str, typer.Option(help="A .parquet file, a .npy file (names in a .txt beside it) or a folder.")],
    device: Device = "auto",
    engine: Annotated[str, typer.Option(help="Where torch runs it: local or ray.")] = "local",
    precision: Precision = "auto",
    threads: Threads = None,
    workers: Workers = None,
    gpus: Gpus = None,
    address: Address = None,
) -> None:
    """Write what a classifier sees of each image as a vector: metaformer embed caformer_s18 photos --out vectors.parquet"""
    from metaformer.serve.batch.show import show_embedded
    from metaformer.serve.batch.way import planned, read_way
    from metaformer.serve.batch.work import Work

    if engine not in ("local", "ray"):
        raise ValueError(f"--engine {engine} is neither local nor ray: vectors come from torch")
    cluster, _ = read_way(engine, workers, gpus, address)
    work = Work("embed", source, "torch", device, precision, threads)
    if show_embedded(planned(work, paths, out, cluster)):
        raise typer.Exit(1)
