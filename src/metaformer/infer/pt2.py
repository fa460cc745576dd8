"""Reads a .pt2 of torch.export that may come from anybody: only an archive of numbers and of known operators is loaded.

torch.export.load unpickles sample inputs and custom objects, loads compiled libraries, evaluates shapes as expressions and
guards as code, imports what a tree says it is made of, makes source code of names, and finds operators by any path below
torch. `export` writes none of that, so that whatever has it is refused before torch looks at it.
"""

import re
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.pt2_archive._package import PT2ArchiveReader, load_pt2
from torch.utils import _pytree as pytree

from metaformer.config import ABOUT, parse_json
from metaformer.weights.files import DAMAGE, check_zip

MEMBERS = re.compile(
    r"archive_format|archive_version|byteorder|\.data/(version|serialization_id)|\.format_version|\.storage_alignment"
    rf"|models/model\.json|data/sample_inputs/model\.pt|extra/{ABOUT}"
    r"|data/weights/(weight_\d+|model_weights_config\.json)|data/constants/(tensor_\d+|model_constants_config\.json)"
)
"""What an archive may hold; compiled code, custom and opaque objects have other names."""
DESCRIBED = ("models/model.json", "data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
EMPTY = {
    "metadata",
    "guards_code",
    "treespec_namedtuple_fields",
    "custom_obj_values",
    "as_graph",
    "as_operator",
    "as_custom_obj",
}
"""What is evaluated, or leads to something that is."""
DUNDER = re.compile(r"__(?!\d+$)")  # relu__1 is the first relu_
IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
NAMED = {"name", "as_name", "forward_arg_names"}
"""What becomes source code."""
WORD = re.compile(r"[\w.+:-]*")
"""Any other text: names of weights, versions, dialects."""
EXPRESSION = re.compile(
    r"(?:Symbol\('[su]\d+'(?:, (?:positive|nonnegative|integer)=True)*\)|Integer\(-?\d{1,9}\)|[(), ]"
    r"|\b(?:Add|Mul|Max|Min|FloorDiv|CeilDiv|CleanDiv|Mod|PythonMod)\b)+"
)
"""Shapes: whole numbers, the sides' symbols, arithmetic. They are evaluated as Python, so that nothing else may be in them."""
LONGEST = 2000
"""Characters of an expression."""
PLAIN = re.compile(
    r"_operator\.(add|sub|mul|neg|mod|floordiv|truediv|pow|eq|ne|lt|le|gt|ge|and_|or_|getitem)"
    r"|torch\.sym_(float|int|max|min|not)"
)
"""Functions of numbers, and choosing one of several results."""
COMPOSITE = re.compile(
    "_assert_tensor_metadata|_upsample_bicubic2d_aa|adaptive_avg_pool2d|arange|avg_pool2d|batch_norm|chunk|clamp_min"
    "|contiguous|conv2d|conv_transpose2d|detach_|dropout|einsum|expand_as|feature_dropout|fft_fft2|flatten|floor_divide"
    "|group_norm|hardsigmoid|hardswish|layer_norm|lift_fresh_copy|linalg_vector_norm|linear|log_softmax|matmul|max_pool2d|mish"
    "|narrow|outer|pad|pixel_shuffle|pixel_unshuffle|real|reshape|rms_norm|roll|rsub"
    "|scaled_dot_product_attention|silu|softmax|split|square|squeeze|stack|t|to|transpose|type_as|unbind|unflatten|var_mean"
    "|view_as|where|zeros|zeros_like|(add|hardsigmoid|hardswish|mul|relu|silu)_"
)
"""Operators of aten that compute and are not in its core set; from_file, which is in neither, can make a file."""
OF_BOXES = {"torch.ops.torchvision.nms.default", "torch.ops.torchvision.roi_align.default"}
"""torchvision's for detectors."""


def read_program(file: Path) -> tuple[ExportedProgram, dict[str, Any]]:
    """The program, and what the file says of itself. Raises FileNotFoundError, or ValueError with a sentence."""
    if not file.is_file():
        raise FileNotFoundError(f"no file {file}")
    try:
        check_zip(file)
        with PT2ArchiveReader(str(file)) as archive:
            names = archive.get_file_names()
            _check_members(names)
            if archive.read_bytes("data/sample_inputs/model.pt"):
                raise ValueError("it has sample inputs, which are unpickled")
            for name in DESCRIBED:
                _check(parse_json(archive.read_bytes(name), file))
            said = archive.read_bytes(f"extra/{ABOUT}") if f"extra/{ABOUT}" in names else b"{}"
        return load_pt2(str(file)).exported_programs["model"], parse_json(said, file)
    except DAMAGE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{file} is damaged, or nothing that is read safely: {reason}") from error


def _check_members(names: Iterable[str]) -> None:
    """Raises ValueError where an archive holds anything but what `export` writes."""
    seen: set[str] = set()
    for name in names:
        if not MEMBERS.fullmatch(name):
            raise ValueError(f"it holds {name!r}, which may be code")
        if name in seen:
            raise ValueError(f"it holds {name!r} twice")
        seen.add(name)


def _check(value: Any, key: str = "") -> None:
    """Raises ValueError for what could be more than a number or a name, anywhere in a description."""
    if key in EMPTY and value:
        raise ValueError(f"its {key} is not empty, and would be evaluated")
    if key == "use_pickle" and value is not False:  # torch asks whether it is true, as 1 is, and 0.5
        raise ValueError("it holds a pickled tensor")
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_text(name, "")
            _check(inner, name)
            if name == "as_tensor" and inner == {"name": "self"}:
                raise ValueError("its value 'self' would hide the program")
    elif isinstance(value, list):
        for inner in value:
            _check(inner, key)
    elif isinstance(value, str):
        _check_text(value, key)


def _check_text(text: str, key: str) -> None:
    right = (
        _is_operator(text) if key == "target"
        else text in TREES if key in ("in_spec", "out_spec")
        else len(text) <= LONGEST and EXPRESSION.fullmatch(text) if key == "expr_str"
        else IDENTIFIER.fullmatch(text) if key in NAMED
        else WORD.fullmatch(text)
    )  # fmt: skip
    if not right or DUNDER.search(text):
        raise ValueError(f"its {key or 'names'} {text[:60]!r} may be code")


def _is_operator(path: str) -> bool:
    """Whether a path is an operator that computes: a core one of aten, or one that is made of those."""
    if path in OF_BOXES:
        import_module("torchvision.ops")  # which makes them known to torch
        return True
    parts = path.split(".")
    if len(parts) != 5 or parts[:3] != ["torch", "ops", "aten"]:
        return PLAIN.fullmatch(path) is not None
    packet = getattr(torch.ops.aten, parts[3], None)
    operator = getattr(packet, parts[4], None)
    return operator is not None and (torch.Tag.core in operator.tags or COMPOSITE.fullmatch(parts[3]) is not None)


ONE: tuple[object, ...] = ((0,), dict[str, int]())
TREES = {pytree.treespec_dumps(pytree.tree_structure(tree)) for tree in (ONE, 0, (0, 0, 0), (0, 0, 0, 0))}
"""How a program is called, one tensor, and what it gives, one tensor, or a detector's three or four."""
