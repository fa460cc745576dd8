"""Each command line and call in our pages, also those that no test runs, could be typed: verbs, options, settings, names.

Nothing is executed: what lines that need data, weights or hours name is compared with what there is.
"""

import ast
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import timm
import typer
from tests.pages import PAGES, PYTHON, SHELL, SHOWN, blocks, lines, name, prose, typed

import metaformer
from metaformer.cli import app
from metaformer.cli_study import WORDS
from metaformer.config import KEYS, check_key, parse, revise
from metaformer.core.architecture import MetaFormerConfig
from metaformer.data.dense import DENSE
from metaformer.data.sources import KNOWN
from metaformer.dense.config import DenseConfig, get_dense_config
from metaformer.export.export import FORMATS
from metaformer.infer.dense_show import Wanted
from metaformer.infer.engines import PRECISIONS
from metaformer.infer.exported import ENGINES
from metaformer.lab.bench import Plan, numbers
from metaformer.lab.bench import words as listed
from metaformer.lab.explain import read_methods
from metaformer.lab.judge import Asked
from metaformer.lab.probe import read_settings
from metaformer.lab.space import read_space, split
from metaformer.lab.studies import STUDIES
from metaformer.lab.study import sized
from metaformer.lab.study_find import find_study
from metaformer.recipes import RECIPES, no_recipe
from metaformer.serve.batch.way import read_way
from metaformer.train.dense import is_dense_model
from metaformer.weights.catalogue import find, list_weights
from metaformer.weights.formats import check_format
from metaformer.weights.peers import PREFIX
from metaformer.zoo import ZOO, get_config, list_models

COMMANDS = typer.main.get_command(app)
ANY_ENGINE = ("auto", "torch", "compiled", *dict.fromkeys(one for engines in ENGINES.values() for one in engines))
FILES = (*ENGINES, ".safetensors", ".pth", ".tar", ".json", ".bin")
ASKED = ("eval", "predict", "embed", "explain", "export", "quantize", "probe", "serve")
"""Verbs that ask a model something, for which a bare name means published weights."""
FOREIGN = {
    "--epochs", "--fork-strategy", "--help", "--kills", "--max-restarts", "--nnodes", "--rdzv-endpoint", "--rdzv-id",
    "--requeue", "--signal", "--torch-backend",
}  # fmt: skip
"""Options that are spoken of alone and are not ours: of torchrun, SLURM, uv and the scripts in benchmarks/."""


# --- words of a command line ------------------------------------------------------------------------------------------


def one_of(word: str, allowed: Sequence[str]) -> None:
    if word not in allowed:
        raise ValueError(f"{word!r} is not one of {', '.join(allowed)}")


def is_place(text: str) -> bool:
    """Whether a text names a run or a file, of which nothing can be known here, or stands for one."""
    head = text.partition("/")[0]
    return text.startswith(("$", "hf:")) or ("/" in text and not is_dense_model(text) and head != "timm:") or ends(text)


def ends(text: str) -> bool:
    return Path(text).suffix in FILES


def check_model(text: str, *, asked: bool = False) -> None:
    """Raises ValueError where there is no such model, or no weights of it that are asked for."""
    if is_place(text):
        return
    if text.startswith(PREFIX):
        one_of(text.removeprefix(PREFIX).partition(".")[0], timm.list_models())
        return
    if is_dense_model(text):
        get_dense_config(text, num_classes=1)
        check_model(text.partition("/")[2])
        return
    model, _, tag = text.partition(".")
    get_config(model)
    if tag or asked:
        find(model, tag or True)


def check_data(text: str) -> None:
    """Raises ValueError where a word before a colon is none that is known."""
    word, colon, _ = text.partition(":")
    if colon and "//" not in text:
        one_of(word, (*KNOWN, *DENSE, "hf", "tar"))


def check_recipe(model: str, settings: dict[str, Any]) -> None:
    """What `metaformer train MODEL key=value...` raises before it opens data."""
    if is_place(model):
        if settings:
            raise ValueError(f"{model} goes on with its own recipe")
        return
    check_model(model)
    recipe = settings.get("recipe", "objects" if is_dense_model(model) else "small")
    if recipe not in RECIPES:
        raise no_recipe(recipe)
    revised = revise(replace(RECIPES[recipe], model=model), {key: settings[key] for key in settings if key != "changes"})
    check_data(revised.data)
    for start in (settings.get("weights"), settings.get("teacher")):
        if start is not None and not is_place(start) and start != "timm":
            find(model.rpartition("/")[2], start)
    changes = {key: text for key, text in settings.get("changes", {}).items() if ".py:" not in text}
    if is_dense_model(model):
        get_dense_config(model, num_classes=1, **changes)
    elif model in ZOO:
        get_config(model, **changes)


def check_train(params: dict[str, Any]) -> None:
    settings = parse(params["settings"] or (), ("name", "root", "devices"))
    check_recipe(params["model"], {key: settings[key] for key in settings if key not in ("name", "root", "devices")})


def check_tune(params: dict[str, Any]) -> None:
    space, rest = split(params["settings"] or ())
    if is_place(params["model"]):
        assert not space
        return
    read_space(space)
    check_train(params | {"settings": rest})


def check_study(params: dict[str, Any]) -> None:
    settings = parse(params["settings"] or (), WORDS)
    revise(RECIPES["small"], {key: settings[key] for key in settings if key not in WORDS})
    check_data(settings.get("data", ""))
    what = params["what"]
    if what in (None, "figure1") or is_place(what) or what.partition(":")[0].endswith(".py"):
        return
    study, _ = find_study(what, STUDIES)
    sized(study.model, settings.get("scale", "t6"))
    if not any(Path(row.name).match(glob) for row in study.rows for glob in params["rows"].split(",")):
        raise ValueError(f"no row of {what} matches {params['rows']}")


def check_eval(params: dict[str, Any]) -> None:
    ways = Asked(among=params["among"], sizes=params["sizes"], corruptions=params["corruptions"]).ways
    assert ways or not (params["sizes"] or params["corruptions"])
    for word in listed(params["tta"]):
        one_of(word, ("flip", "crops", "scales"))


def check_export(params: dict[str, Any]) -> None:
    one_of(params["format"], tuple(FORMATS))
    one_of(params["precision"], tuple(FORMATS[params["format"]].bounds))


def check_bench(params: dict[str, Any]) -> None:
    Plan(
        tuple(params["models"] or ()), listed(params["job"]), listed(params["engine"]), listed(params["precision"]),
        numbers("batch", params["batch"]), numbers("size", params["size"]), minutes=params["minutes"],
    )  # fmt: skip


VERBS: dict[str, Callable[[dict[str, Any]], object]] = {
    "train": check_train, "lr": check_train, "tune": check_tune, "study": check_study, "eval": check_eval,
    "export": check_export, "bench": check_bench, "convert": lambda params: check_format(params["to"]),
    "explain": lambda params: read_methods(params["ask"]), "probe": lambda params: read_settings(params["settings"] or ()),
    "predict": lambda params: Wanted(params["out"], params["to"]).kind if params["to"] else None,
    "models": lambda params: list_models(params["pattern"]),
    "weights": lambda params: params["pattern"] == "verify" or list_weights(params["pattern"]),
    "data check": lambda params: check_data(params["source"]), "data shard": lambda params: check_data(params["source"]),
}  # fmt: skip
"""What is checked of a verb's words beside what every verb has: models, data, engine, precision, device."""


def found(words: Sequence[str]) -> tuple[str, Any, list[str]]:
    """A verb's name, its command and the words after it. Raises ValueError where there is no such verb."""
    verb, command, rest = "", COMMANDS, list(words)
    while hasattr(command, "commands") and rest:
        close = get_close_matches(rest[0], command.commands, n=1)
        if rest[0] not in command.commands:
            raise ValueError(f"there is no metaformer {verb}{rest[0]}; near it: {close}")
        command, verb = command.commands[rest[0]], f"{verb}{rest.pop(0)} "
    return verb.strip(), command, rest


def check(words: Sequence[str]) -> None:
    """Raises ValueError or typer's exception where the line is none that could be typed."""
    if words[:1] in (["--help"], ["--version"]):
        return
    verb, command, rest = found(words)
    if "--help" in rest:
        return
    params = command.make_context(verb, rest).params
    if verb not in ("train", "lr", "tune", "convert", "bench") and not verb.startswith("data "):
        for key in ("model", "source", "sources", "beside"):
            value = params.get(key) or ()
            for one in (value,) if isinstance(value, str) else value:
                check_model(re.sub(r"^[\w.-]+=", "", one) if verb == "serve" else one, asked=verb in ASKED)
    if isinstance(params.get("data"), str):
        check_data(params["data"])
    if "address" in params:
        _, params["engine"] = read_way(params["engine"], params["workers"], params["gpus"], params["address"])
    if verb != "bench":
        for key, allowed in (("engine", ANY_ENGINE), ("precision", PRECISIONS), ("device", ("auto", "cpu", "cuda", "mps"))):
            one_of(params.get(key) or "auto", allowed)
    VERBS.get(verb, lambda params: None)(params)


# --- calls of Python --------------------------------------------------------------------------------------------------


def resolved(path: str) -> Any:
    """What `metaformer.NAME` or a longer path stands for. Raises ImportError where that is nothing."""
    found: Any = metaformer
    for part in path.split(".")[1:]:
        found = getattr(found, part) if hasattr(found, part) else import_module(f"{found.__name__}.{part}")
    return found


def check_calls(source: str) -> int:
    """How many calls of `metaformer.NAME(...)` are in it; each must fit its signature, as far as it is written out."""
    tree = ast.parse(source)
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and re.fullmatch(r"metaformer(\.\w+)+", ast.unparse(n.func))]
    for call in calls:
        path = ast.unparse(call.func)
        given: list[Any] = [ast.unparse(arg) for arg in call.args if ast.unparse(arg) != "..."]
        if all(isinstance(arg, ast.Constant) for arg in call.args):
            given = [arg.value for arg in call.args if isinstance(arg, ast.Constant) and arg.value is not ...]
        keywords = {word.arg: ast.literal_eval(word.value) if isinstance(word.value, ast.Constant) else None
                    for word in call.keywords if word.arg is not None}  # fmt: skip
        rest = inspect.signature(resolved(path)).bind_partial(*given, **keywords).arguments
        for key in rest.get("settings", ()):
            check_key(key, ("changes",))
        if path == "metaformer.create_model" and call.args and isinstance(call.args[0], ast.Constant):
            check_created(str(given[0]), keywords, rest.get("changes", {}))
    return len(calls)


def check_created(model: str, keywords: dict[str | None, Any], changes: dict[str, Any]) -> None:
    check_model(model)
    known = DenseConfig if is_dense_model(model) else MetaFormerConfig
    for key in changes:
        one_of(key, [field.name for kind in {known, MetaFormerConfig} for field in fields(kind)])
    weights = keywords.get("weights")
    if weights is True or (isinstance(weights, str) and not is_place(weights)):
        find(model.rpartition("/")[2], weights)


# --- the pages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_each_line_of_ours_could_be_typed(page: Path) -> None:
    wrong = []
    for block in blocks(page):
        for line in lines(block) if block.language in SHELL | SHOWN else ():
            words = typed(line)
            if words is None:
                continue
            try:
                check(words)
            except (ValueError, typer.TyperException) as error:
                wrong.append((block.line, line.strip(), str(error)))
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_each_call_fits_its_signature(page: Path) -> None:
    """Of whole blocks of Python, and of lines of it in blocks that only show."""
    for block in blocks(page):
        if block.language in PYTHON:
            check_calls(block.code)
        for line in block.code.splitlines() if block.language in SHOWN else ():
            if re.search(r"\bmetaformer\.\w+\(", line) and not re.match(r"#|\s*metaformer ", line):
                assert check_calls(line), line


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_is_named_in_a_sentence_is_there(page: Path) -> None:
    """Verbs and options of `metaformer verb --option`, options alone, and dotted names; a word may stand for others."""
    options = {option for _, command in walk() for param in command.params for option in (*param.opts, *param.secondary_opts)}
    for said in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose(page)):
        words = typed(said)
        if words and not words[0].startswith("-"):
            _, command, rest = found(words)
            known = {option for param in command.params for option in (*param.opts, *param.secondary_opts)}
            assert {word for word in rest if word.startswith("--")} - known - {"--help"} == set(), said
            for word in rest:
                key, equals, _ = word.partition("=")
                assert not equals or key.startswith("model.") or key in (*KEYS, *WORDS, "devices", "k"), said
        elif option := re.match(r"--[\w-]+", said):
            assert option[0] in options | FOREIGN, said
        elif dotted := re.match(r"metaformer(\.[A-Za-z_]\w*)+", said):
            resolved(dotted[0])


def walk(group: Any = COMMANDS, before: str = "") -> list[tuple[str, Any]]:
    """Every verb and its command."""
    found = []
    for verb, command in group.commands.items():
        found += walk(command, f"{before}{verb} ") if hasattr(command, "commands") else [(f"{before}{verb}", command)]
    return found


# --- that it notices --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "metaformer trian caformer_t6",
        "metaformer train caformer_t7 data=digits",
        "metaformer train caformer_t6 epoch=3",
        "metaformer train caformer_t6 epochs=many",
        "metaformer train caformer_t6 epochs=0",
        "metaformer train caformer_t6 data=cocoa:nuts",
        "metaformer train caformer_s18 weights=in22k",
        "metaformer train caformer_s18 recipe=caformer_s18.in22k",
        "metaformer train caformer_s18 model.norm=Norm()",
        "metaformer train mask_rcnn/caformer_t6 model.anchor=4",
        "metaformer train timm:resnet19",
        "metaformer train retinanet/poolformer_s13",
        "metaformer train runs/mine epochs=3",
        "srun metaformer train runs/mine --epochs 3",
        "metaformer eval runs/mine --dta photos",
        "metaformer eval runs/mine --corruptions rain",
        "metaformer eval runs/mine --tta flap",
        "metaformer eval caformer_t6",
        "metaformer predict caformer_s18",
        "metaformer predict caformer_s18.in22k photo.jpg",
        "metaformer predict runs/mine photo.jpg --engine onnx",
        "metaformer predict runs/mine photo.jpg --precision fp8",
        "metaformer predict runs/mine photos --out labels --engine ray:onnx",
        "metaformer predict runs/mine photos --out labels --workers 4",
        "metaformer embed caformer_t6 photos --out vectors.npy",
        "metaformer predict runs/mine photo.jpg --out found --to coca",
        "metaformer explain runs/mine --ask gradcam",
        "metaformer export runs/mine onxx",
        "metaformer export runs/mine onnx --precision bf16",
        "metaformer convert a.pth b.pth --to tim",
        "metaformer serve caformer_t6",
        "metaformer serve first=caformer_t6",
        "metaformer serve runs/mine --prot 80",
        "metaformer tune caformer_t6 lr=1e-2..1e-4",
        "metaformer tune caformer_t6 epochs=3",
        "metaformer study nrom",
        "metaformer study norm scale=t7",
        "metaformer study norm --rows nothing*",
        "metaformer probe runs/mine epochs=3",
        "metaformer bench caformer_s18 --engine onnx",
        "metaformer weights caformer_s19*",
        "metaformer data chek photos",
    ],
)
def test_what_could_not_be_typed_is_noticed(line: str) -> None:
    words = typed(line)
    assert words is not None
    with pytest.raises((ValueError, typer.TyperException)):
        check(words)


@pytest.mark.parametrize(
    "call",
    [
        "metaformer.creat_model('caformer_s18')",
        "metaformer.create_model('caformer_s17')",
        "metaformer.create_model('caformer_s18', weights='in22k')",
        "metaformer.create_model('caformer_s18', nomr=None)",
        "metaformer.train('caformer_t6', epoch=3)",
        "metaformer.evaluate('runs/first', date='digits')",
        "metaformer.export('runs/first', 'onnx', 'a', 'b', 'c')",
    ],
)
def test_calls_that_could_not_be_made_are_noticed(call: str) -> None:
    with pytest.raises((ValueError, TypeError, ImportError)):
        check_calls(call)


def test_which_lines_are_ours() -> None:
    assert typed("WANDB_MODE=offline metaformer train a b=c  # why") == ["train", "a", "b=c"]
    assert typed("torchrun --nnodes=2 -m metaformer train $run &") == ["train", "$run"]
    assert typed("metaformer eval x | head") == ["eval", "x"]
    assert typed("import metaformer") is None
    assert typed("model = metaformer.create_model('a')  # it's") is None
