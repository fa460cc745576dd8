"""Archives of torch.export from strangers: what torch would unpickle, evaluate, import or load is refused before it looks."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.fill import filled_model

from metaformer import Predictor, export, save_pretrained
from metaformer.infer.pt2 import read_program

pytestmark = pytest.mark.usefixtures("thread", "here")

MODEL, WEIGHTS = "models/model.json", "data/weights/model_weights_config.json"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of ours."""
    folder = tmp_path_factory.mktemp("pt2")
    model = filled_model("caformer_s18", depths=(1, 1, 1, 1), dims=(8, 8, 16, 32), num_classes=2)
    preprocess = {"size": 32, "mean": [0.5] * 3, "std": [0.25] * 3, "fit": "squash"}
    save_pretrained(model, folder / "saved", {"classes": ["a", "b"], "preprocess": preprocess})
    return export(folder / "saved", "torch-export", folder).file


class Thief:
    """Unpickling it makes a file."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (Path("stolen"),)


CALL = "__import__('pathlib').Path('stolen').touch()"


def pickled() -> bytes:
    """As torch.save writes it."""
    file = io.BytesIO()
    torch.save((Thief(),), file)
    return file.getvalue()


def rewritten(good: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """The archive with its members changed."""
    with zipfile.ZipFile(good) as archive:
        root = archive.namelist()[0].partition("/")[0]
        members = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    change(members)
    file = Path("theirs.pt2")
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{root}/{name}", content)
    return file


def described(name: str, change: Callable[[Any], None]) -> Callable[[dict[str, bytes]], None]:
    """Changes what a JSON file says."""

    def changed(members: dict[str, bytes]) -> None:
        content = json.loads(members[name])
        change(content)
        members[name] = json.dumps(content).encode()

    return changed


def graph(content: Any) -> Any:
    return content["graph_module"]["graph"]


def first_expression(value: Any) -> dict[str, Any]:
    """Somewhere a shape is an expression."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if isinstance(value, dict) and "expr_str" in value:
        return value
    return next((found for found in map(first_expression, inner) if found), {})


def shape(text: str) -> Callable[[dict[str, bytes]], None]:
    return described(
        MODEL, lambda content: first_expression(graph(content)["sym_int_values"] or graph(content)).update(expr_str=text)
    )


def node(**changes: Any) -> Callable[[dict[str, bytes]], None]:
    return described(MODEL, lambda content: graph(content)["nodes"][0].update(changes))


def spec(text: str) -> Callable[[dict[str, bytes]], None]:
    def change(content: Any) -> None:
        content["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = text

    return described(MODEL, change)


def pickled_weight(yes: Any) -> Callable[[dict[str, bytes]], None]:
    """A weight that is to be unpickled, said by anything that Python takes for true."""

    def changed(members: dict[str, bytes]) -> None:
        config = json.loads(members[WEIGHTS])
        first = next(iter(config["config"].values()))
        first["use_pickle"] = yes
        members[WEIGHTS] = json.dumps(config).encode()
        members[f"data/weights/{first['path_name']}"] = pickled()

    return changed


HOSTILE: dict[str, Callable[[dict[str, bytes]], None]] = {
    "pickled sample inputs": lambda members: members.update({"data/sample_inputs/model.pt": pickled()}),
    "a pickled weight": pickled_weight(True),
    "a pickled weight, 1": pickled_weight(1),
    "a pickled weight, 1.5": pickled_weight(1.5),
    "a pickled weight, yes": pickled_weight("yes"),
    "a pickled weight, a list": pickled_weight([0]),
    "a pickled weight, names and values": pickled_weight({"a": 1}),
    "an opaque object": lambda members: members.update({"data/constants/opaque_obj_0": pickle.dumps(Thief())}),
    "a custom object": lambda members: members.update({"data/constants/custom_obj_0": pickle.dumps(Thief())}),
    "weights of an older torch": lambda members: members.update({"data/weights/model.pt": pickled()}),
    "compiled code": lambda members: members.update({"data/aotinductor/model/wrapper.so": b"\x7fELF"}),
    "another program": lambda members: members.update({"models/other.json": members[MODEL]}),
    "a path that leads elsewhere": lambda members: members.update({"data/weights/../opaque_obj_0": b""}),
    "guards": described(MODEL, lambda content: content.update(guards_code=[CALL])),
    "an expression that calls": shape(CALL),
    "an expression that looks up": shape("s0.__class__"),
    "an expression of other names": shape("preview(s0)"),
    "an expression that grows": shape("9**9**9**9"),
    "a name that is code": node(name=f"x\n    {CALL}\n    y"),
    "an output called self": node(outputs=[{"as_tensor": {"name": "self"}}]),
    "an output that is code": node(outputs=[{"as_tensor": {"name": f"x = {CALL}"}}]),
    "an operator that is a program": node(target="torch.os.system"),
    "an operator that makes a file": node(target="torch.ops.aten.from_file.default"),
    "an operator below": node(target="torch.ops.aten.add.Tensor.__class__"),
    "a function of Python": node(target="_operator.attrgetter"),
    "an inner graph": node(inputs=[{"name": "a", "arg": {"as_graph": {"name": "g", "graph": {"nodes": []}}}}]),
    "a tree that imports": spec('[1, {"type": "collections.defaultdict", "context": "{}", "children_spec": []}]'),
    "notes beside operations": node(metadata={"source_fn_stack": "a,torch.os.system"}),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused_and_do_nothing(good: Path, name: str) -> None:
    file = rewritten(good, HOSTILE[name])
    with pytest.raises(ValueError, match=r"^theirs\.pt2 is damaged, or nothing that is read safely: it"):
        Predictor(file)
    assert not Path("stolen").exists()


@pytest.mark.parametrize("name", ["pickled sample inputs", "a pickled weight, 1", "an expression that calls"])
def test_torch_itself_would_run_them(good: Path, name: str) -> None:
    """So that the tests above say something."""
    file = rewritten(good, HOSTILE[name])
    with suppress(Exception):  # whatever it raises comes too late
        torch.export.load(file)
    assert Path("stolen").exists()


def test_a_member_twice_or_packed(good: Path) -> None:
    file = rewritten(good, lambda members: None)
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(next(name for name in archive.namelist() if name.endswith(MODEL)), b"{}")
    with pytest.raises(ValueError, match="is damaged, or nothing that is read safely"):
        read_program(file)
    with zipfile.ZipFile(good) as archive, zipfile.ZipFile("packed.pt2", "w", zipfile.ZIP_DEFLATED) as other:
        for name in archive.namelist():
            other.writestr(name, archive.read(name))
    with pytest.raises(ValueError, match="is compressed: such a file can unpack to any size"):
        read_program(Path("packed.pt2"))


def test_what_is_written_again_is_read(good: Path) -> None:
    """The changes above are what is refused, not that the archive was written by another hand."""
    pixels = torch.zeros(2, 3, 33, 35, dtype=torch.uint8).numpy()
    again = Predictor(rewritten(good, lambda members: None), device="cpu")
    assert (again.logits(pixels) == Predictor(good, device="cpu").logits(pixels)).all()


def test_nothing_is_told_of_the_machine(good: Path) -> None:
    program, said = read_program(good)
    assert said["classes"] == ["a", "b"]
    assert program.example_inputs is None
    with zipfile.ZipFile(good) as archive:
        text = archive.read(next(name for name in archive.namelist() if name.endswith(MODEL))).decode()
    assert "stack_trace" not in text
    assert ".py" not in text
