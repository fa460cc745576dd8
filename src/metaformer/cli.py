"""The command line: each verb parses, imports what it needs, makes one call. No torch for --help."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from metaformer import __version__
from metaformer.cli_data import data as data_verbs
from metaformer.cli_look import explain, inspect
from metaformer.cli_mixer import mixer as mixer_verbs
from metaformer.cli_predict import MODEL, Device, Engine, Precision, Streams, Threads, embed, predict
from metaformer.cli_serve import serve
from metaformer.cli_study import study
from metaformer.slips import corrected, sentence

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(data_verbs, name="data")
app.add_typer(mixer_verbs, name="mixer")
Pairs = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings; metaformer settings lists them.")]


def main() -> None:
    """The `metaformer` command. A user's mistake is one sentence and exit code 2; Ctrl-C is typer's 130."""
    try:
        sys.exit(app(standalone_mode=False))
    except (ValueError, OSError, FloatingPointError, typer.TyperException) as error:
        said = sentence(error)
        if said:
            print(f"metaformer: {said}{corrected(said, sys.argv[1:])}", file=sys.stderr)
        sys.exit(2)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"metaformer {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")] = False,
) -> None:
    """MetaFormer: any token mixer in one general block. Train it, judge it, use it."""
    from metaformer.train.launch import check_alone

    check_alone(context.invoked_subcommand)


@app.command(context_settings={"ignore_unknown_options": True})
def train(
    model: Annotated[str, typer.Argument(help="A model's name, timm:NAME, an unfinished run to go on with, or a recipe.json.")],
    settings: Pairs = None,
) -> None:
    """Train MODEL: metaformer train caformer_t6 data=digits epochs=5 name=mine; devices=N: in N processes here."""
    from metaformer.lab.jobs import train_command
    from metaformer.lab.tables import folder_text

    path = train_command(model, settings or [])
    if path is not None:
        print(folder_text(path))


@app.command(name="lr", context_settings={"ignore_unknown_options": True})
def find_lr(
    model: Annotated[str, typer.Argument(help="A model's name, timm:NAME, a run or a recipe.json.")],
    settings: Pairs = None,
    out: Annotated[Path, typer.Option(help="A folder for lr.json and lr.png.")] = Path("lr"),
) -> None:
    """Find a learning rate in a hundred steps: metaformer lr caformer_t6 data=digits"""
    from metaformer.config import parse
    from metaformer.lab.finder import find_lr as find
    from metaformer.lab.finder import found_text

    print(found_text(find(model, parse(settings or []), out), out))


@app.command(name="eval")
def evaluate(
    sources: Annotated[list[str], typer.Argument(metavar="MODEL...", help=f"{MODEL} Several are compared with the first.")],
    data: Annotated[str | None, typer.Option(help="Other data to judge it on, such as fashion-mnist:PATH.")] = None,
    corruptions: Annotated[str, typer.Option(help="Images made worse: all, noise, blur, weather, digital, or names.")] = "",
    sizes: Annotated[str, typer.Option(help="Images in other sizes: 160,192,256.")] = "",
    tta: Annotated[str, typer.Option(help="Each image shown several times: flip, crops; of objects flip, scales.")] = "",
    images: Annotated[int | None, typer.Option(min=2, help="How many images those three are measured on.")] = None,
    groups: Annotated[Path | None, typer.Option(help="A CSV with the columns image and group.")] = None,
    real: Annotated[Path | None, typer.Option(help="ReaL's labels: its real.json, or auto.")] = None,
    among: Annotated[str, typer.Option(help="Classes of the answers: auto, all, imagenet-a or imagenet-r.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="A folder for eval.json, and eval.html or what was found.")] = None,
    device: Device = "auto",
    engine: Engine = "auto",
    precision: Precision = "auto",
    threads: Threads = None,
    streams: Streams = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, with more digits.")] = False,
) -> None:
    """Judge models, of a run its best weights, on held-out images: metaformer eval runs/one runs/two --out judged"""
    from metaformer.lab.judge import Asked, judge
    from metaformer.lab.judge_text import judged_text

    asked = Asked(corruptions, sizes, tta, images, groups, real, among)
    found = judge(
        *sources,
        data=data,
        asked=asked,
        out=out,
        device=device,
        engine=engine,
        precision=precision,
        threads=threads,
        streams=streams,
    )
    print(json.dumps(found.to_dict(), indent=2) if as_json else judged_text(found.told))
    if found.page is not None and not as_json:
        print(f"\nThe page: {found.page}")


@app.command()
def probe(
    source: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL.replace("an exported file", "timm:NAME"))],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="data, by default a run's own; k, batch, seed, device.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, with more digits.")] = False,
) -> None:
    """Judge what MODEL sees, without training it: metaformer probe caformer_s18 data=photos k=20"""
    from metaformer.lab.probe import probe as judge
    from metaformer.lab.probe import read_settings

    done = judge(source, **read_settings(settings or []))
    print(json.dumps(done.to_dict(), indent=2) if as_json else done)


app.command()(predict)
app.command()(embed)
app.command()(explain)
app.command()(serve)
app.command()(inspect)


@app.command()
def export(
    source: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL.replace(", or an exported file", ""))],
    format: Annotated[str, typer.Argument(help="onnx, openvino, torch-export, executorch or safetensors.")],
    out: Annotated[str | None, typer.Argument(help="A file, or a folder for it; by default MODEL's name, here.")] = None,
    precision: Annotated[str, typer.Option(help="fp32, or bf16 for openvino and torch-export.")] = "fp32",
    probabilities: Annotated[bool, typer.Option("--probabilities", help="The file gives these, not logits.")] = False,
    image_size: Annotated[
        tuple[int, int] | None,
        typer.Option(metavar="H W", help="Of objects and regions; by default as judged."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
) -> None:
    """Write a model as one file for a runtime, reload it, and say how far off it is: metaformer export runs/mine onnx"""
    from metaformer.export.export import export as write
    from metaformer.lab.tables import columns, exported_table

    done = write(source, format, out, precision=precision, probabilities=probabilities, image_size=image_size, force=force)
    print(f"{done.file}  {done.bytes / 1e6:.1f} MB, {done.precision}, says what the model says:\n")
    print(columns(exported_table(done), right=(1,)))
    print(f"\nNext: metaformer predict {done.file} IMAGE...")


@app.command()
def quantize(
    source: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL)],
    out: Annotated[str | None, typer.Argument(metavar="[OUT.xml]", help="By default int8.xml in the run's folder.")] = None,
    data: Annotated[str | None, typer.Option(help="What calibrates and judges; by default the run's own.")] = None,
    budget: Annotated[float, typer.Option(help="Points of top-1 that may be lost on the images tuned on.")] = 0.5,
    images: Annotated[int, typer.Option(help="Training images to learn ranges from.")] = 300,
    weight_only: Annotated[bool, typer.Option("--weight-only", help="Store weights as integers, for size.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
) -> None:
    """Write MODEL as an OpenVINO file of 8-bit integers, and measure what that costs."""
    from metaformer.infer.quantize import quantize as write
    from metaformer.lab.tables import quantized_text

    done = write(source, data, images=images, budget=budget, weight_only=weight_only, out=out, force=force)
    print(quantized_text(done))
    print(f"\nNext: metaformer predict {done.file} IMAGE...")


@app.command()
def models(pattern: Annotated[str, typer.Argument(help='A glob, such as "caformer*".')] = "*") -> None:
    """List models: parameters, multiply-accumulates, published top-1."""
    from metaformer.lab.tables import columns, model_table

    print(columns(model_table(pattern), right=(1, 2, 3)))


@app.command()
def weights(
    pattern: Annotated[str, typer.Argument(help='A glob, such as "caformer*" or "*.in21k"; or the word verify.')] = "*",
    path: Annotated[str | None, typer.Argument(help="With verify: a file or folder of weights.")] = None,
) -> None:
    """List published weights; or, with verify PATH, say what a file of weights is."""
    from metaformer.lab.tables import columns, verified_table, weights_table

    if pattern != "verify" and path is not None:
        raise ValueError(f"{path} is one word too many: metaformer weights PATTERN, or metaformer weights verify FILE")
    if pattern != "verify":
        print(columns(weights_table(pattern), right=(2, 3, 4)))
        return
    from metaformer.runs import weights_of
    from metaformer.weights.verify import verify

    if path is None:
        raise ValueError("verify what? metaformer weights verify FILE")
    found = verify(weights_of(path))
    print(columns(verified_table(found)))
    if found.nan or found.inf:
        raise typer.Exit(1)


@app.command()
def convert(
    source: Annotated[str, typer.Argument(metavar="IN", help="A file, folder, run or shards of weights, of any known format.")],
    out: Annotated[str, typer.Argument(metavar="OUT", help="A file to write, or a folder.")],
    to: Annotated[str, typer.Option(help="ours, v1, v2, timm, transformers or mmpretrain.")],
    model: Annotated[str | None, typer.Option(help="Which published model, where names and shapes do not tell.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
) -> None:
    """Write weights in another format: metaformer convert runs/mine mine.safetensors --to timm"""
    from metaformer.runs import weights_of
    from metaformer.weights.convert import convert as write

    done = write(weights_of(source), out, to=to, model=model, force=force)
    print(f"read as {done.format}{f', {done.model}' if done.model else ''}; written as {to}:")
    for file in done.files:
        print(f"  {file}")


@app.command()
def settings(pattern: Annotated[str, typer.Argument(help='One by name, or a glob such as "save*".')] = "*") -> None:
    """List the settings that train takes, with their defaults."""
    from metaformer.lab.tables import columns, settings_table

    print(columns(settings_table(pattern)))


@app.command()
def recipes(pattern: Annotated[str, typer.Argument(help='A glob, such as "caformer*", or one name in full.')] = "*") -> None:
    """List training recipes, a line each, or every setting of one; recipe=NAME takes it, else the data decides."""
    from metaformer.lab.tables import recipes_text

    print(recipes_text(pattern))


@app.command()
def runs(
    names: Annotated[list[str] | None, typer.Argument(metavar="[ROOT | RUN RUN...]", help="A folder of runs, or runs.")] = None,
    out: Annotated[Path, typer.Option(help="Where their curves are drawn, of several runs.")] = Path("compared.png"),
    as_json: Annotated[bool, typer.Option("--json", help="JSON, with more digits.")] = False,
) -> None:
    """List runs, how far each is and its best top-1; or compare some: metaformer runs one two"""
    from metaformer.lab.compare import compare
    from metaformer.lab.tables import columns, compared_text, run_table

    if names is None or len(names) == 1:
        table = run_table(names[0] if names else "runs")
        listed = [dict(zip(table[0], row, strict=True)) for row in table[1:]]
        print(json.dumps(listed, indent=2) if as_json else columns(table, right=(3, 4)))
        return
    found = compare(*names, out=out)
    print(json.dumps(found.to_dict(), indent=2) if as_json else compared_text(found))
    if found.picture is not None and not as_json:
        print(f"\ntheir curves: {found.picture}")


@app.command(context_settings={"ignore_unknown_options": True})
def tune(
    model: Annotated[str, typer.Argument(help="A model's name, timm:NAME, a recipe.json, or a search to go on with.")],
    settings: Pairs = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="How many, earlier ones included; as many as were wanted last, at first 20.")
    ] = None,
    hours: Annotated[float | None, typer.Option(help="After which it stops, at the end of an epoch.")] = None,
    prune: Annotated[
        bool | None, typer.Option("--prune/--no-prune", help="End trials early that are worse than the median; so by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, and nothing else.")] = False,
) -> None:
    """Search for settings: metaformer tune caformer_t6 data=digits epochs=5 lr=1e-4..1e-2 'mixup=0|0.2|0.8'"""
    from metaformer.config import parse
    from metaformer.lab.search import tune as search
    from metaformer.lab.space import split
    from metaformer.lab.tables import tuned_text

    space, rest = split(settings or [])
    found = search(model, space, trials=trials, within_hours=hours, prune=prune, quiet=as_json, **parse(rest, ("name", "root")))
    print(json.dumps(found.to_dict(), indent=2) if as_json else f"\n{tuned_text(found)}")


app.command()(study)


@app.command()
def soup(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs, or one that was trained with keep=.")],
    out: Annotated[str | None, typer.Option(help="By default soup, beside the first run or in the single one.")] = None,
    greedy: Annotated[
        bool, typer.Option("--greedy", help="Take in, the best first, only what does not make it worse.")
    ] = False,
    device: Device = "auto",
    force: Annotated[
        bool, typer.Option("--force", help="Write it though an ingredient is better, and over another model.")
    ] = False,
) -> None:
    """Average the weights of runs, or of a run's last epochs, and keep the mean if it is as good as the best of them."""
    from metaformer.lab.soup import soup as cook

    made = cook(*runs, out=out, greedy=greedy, force=force, device=device)
    print(made)
    if made.folder is None:
        ways = "" if greedy else " --greedy leaves out what does no good,"
        print(f"\nNot written: {made.best.folder} is better;{ways} --force writes it nonetheless.")
        raise typer.Exit(1)
    print(f"\nNext: metaformer predict {made.folder} IMAGE...")


@app.command()
def bench(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="Published names; timm:NAME for a peer of another name.")
    ] = None,
    job: Annotated[str, typer.Option(help="predict, train, or both with a comma.")] = "predict",
    engine: Annotated[str, typer.Option(help="torch,compiled,openvino,onnxruntime; all if left out.")] = "",
    precision: Annotated[str, typer.Option(help="fp32,bf16 on processors, bf16 on GPUs; also fp16 there, int8.")] = "",
    batch: Annotated[str, typer.Option(help="1,16 on processors, 256,1 on GPUs; to train 16 and 256.")] = "",
    size: Annotated[str, typer.Option(help="Sides of the images in pixels.")] = "224",
    peers: Annotated[bool, typer.Option(help="timm's models of the same names take part.")] = True,
    leave_out: Annotated[str, typer.Option(help='Names of contestants, such as "ours compiled*,timm torch bf16".')] = "",
    baseline: Annotated[str | None, typer.Option(help='What ratios are to, such as "timm openvino fp32".')] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each takes its turn.")] = 15,
    minutes: Annotated[float, typer.Option(help="In which it is done, with fewer rounds if need be.")] = 14.0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    out: Annotated[Path, typer.Option(help="A folder for bench.json, .csv, .md and .png.")] = Path("bench"),
) -> None:
    """Measure speed and memory beside timm's models: metaformer bench caformer_s18 --engine openvino --batch 1,16"""
    from metaformer.lab.bench import Plan, bench, numbers, words
    from metaformer.lab.turns import Turns

    plan = Plan(
        models=tuple(models or ()),
        jobs=words(job),
        engines=words(engine),
        precisions=words(precision),
        batches=numbers("batch", batch),
        sizes=numbers("size", size),
        peers=peers,
        leave_out=words(leave_out),
        baseline=baseline,
        minutes=minutes,
        device=device,
        turns=Turns(rounds),
    )
    bench(plan, out, lambda text: print(text, end="", flush=True))


@app.command()
def doctor() -> None:
    """Say what this machine and installation have: versions, devices, instruction sets, extras."""
    from metaformer.lab.doctor import examine

    for name, value in examine().items():
        print(f"{name:16s} {value}")


@app.command()
def demo(root: Annotated[str, typer.Option(help="Where run directories go.")] = "runs") -> None:
    """Train caformer_t6 on real digits, judge it, predict a few images; a minute or two."""
    from metaformer.lab.demo import demo as show
    from metaformer.lab.tables import folder_text

    print(folder_text(show(Path(root), print).path))
