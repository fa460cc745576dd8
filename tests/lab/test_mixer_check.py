"""The workbench: each line of the contract has a mixer that fails it and it alone; what is measured; what a person is told."""

import json
import math
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import linregress, t
from tests.spoilt import LOOSE, SPOILT, Counting, Fine, Halved, Remembering
from tests.tiny import command
from torch import nn

from metaformer import Attention, DepthwiseConv, Fourier, Identity, Pooling, Random, SepConv
from metaformer.core.mixers import Mixer
from metaformer.lab import mixer_check, mixer_measure
from metaformer.lab.mixer_case import Case, Line, at_grid
from metaformer.lab.mixer_check import LINES, Checked, check, try_contract
from metaformer.lab.mixer_measure import BUILT_IN, Effort, enter, framed, grow, power, race, read_mixer
from metaformer.lab.widths import nearest_dims, parameters_of
from metaformer.lab.worker import Ready
from metaformer.own import ask
from metaformer.zoo import get_config

FORMS = ("compile", "export", "onnx")
"""Lines that take seconds."""
PLAIN = tuple(name for name in LINES if name not in FORMS)
TINY = Effort(sides=(4, 6, 8), tokens=64, rounds=2, seconds=0.0)


@pytest.fixture(autouse=True)
def named(own: Path, thread: None) -> None:
    """The spoilt mixers are code that a command has named."""
    ask(["tests.spoilt:Fine"])


def called(mixer: Mixer) -> str:
    return getattr(mixer, "__name__", type(mixer).__name__)


def failed(mixer: Mixer, names: tuple[str, ...]) -> dict[str, str]:
    """The lines that it fails, and why."""
    return {line.name: line.why for line in try_contract(Case(mixer, 16, quick=True), names) if line.state == "failed"}


# --- the contract -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mixer", [Fine, *BUILT_IN, at_grid(Random(grid=4), 5)], ids=str)
def test_a_mixer_that_keeps_the_contract(mixer: Mixer) -> None:
    assert [(line.name, line.state, line.why) for line in try_contract(Case(mixer), PLAIN) if line.state != "passed"] == []


@pytest.mark.slow
@pytest.mark.parametrize("mixer", [Attention(), Random(grid=14), Fourier()], ids=str)
def test_a_mixer_that_takes_every_form(mixer: Mixer) -> None:
    assert [(line.name, line.why) for line in try_contract(Case(mixer, 32, quick=True), FORMS) if line.state != "passed"] == []


@pytest.mark.parametrize("mixer", SPOILT, ids=called)
def test_a_spoilt_mixer_fails_its_line_alone(mixer: Mixer) -> None:
    found = failed(mixer, PLAIN)
    assert set(found) == set(SPOILT[mixer]) - set(FORMS)
    assert all(len(why) > 20 for why in found.values())


@pytest.mark.slow
@pytest.mark.parametrize("mixer", [mixer for mixer, lines in SPOILT.items() if lines[0] in FORMS], ids=called)
def test_a_mixer_that_does_not_take_a_form(mixer: Mixer) -> None:
    wrong = SPOILT[mixer]
    right = {"compile": "export", "export": "compile", "onnx": "export"}[wrong[0]]
    assert set(failed(mixer, (wrong[0], right))) == {wrong[0]}


@pytest.mark.slow
@pytest.mark.parametrize("mixer", [Halved, Remembering, Counting], ids=called)
def test_what_becomes_of_a_spoilt_mixer_in_other_forms(mixer: Mixer) -> None:
    assert set(failed(mixer, FORMS)) == set(SPOILT[mixer]) & set(FORMS)


def test_every_line_has_a_mixer_that_fails_it() -> None:
    assert {lines[0] for lines in SPOILT.values()} == set(LINES)


def test_a_spec_that_is_not_frozen() -> None:
    assert failed(LOOSE, PLAIN) == {"spec": "it cannot be hashed: make the spec @dataclass(frozen=True)"}


def test_nothing_is_tried_without_the_first_lines() -> None:
    lines = try_contract(Case(lambda dim: nn.Conv2d(dim, dim, 3)), PLAIN)
    assert lines[1] == Line("shape", "failed", "2 × 64 × 8 × 8 became 2 × 64 × 6 × 6: a mixer keeps the shape")
    assert {(line.state, line.why) for line in lines[2:]} == {("left out", "comes after shape")}


@pytest.mark.parametrize(
    ("name", "line", "why"),
    [
        ("Unused", "parameters", "spare has no part in the result: use it, or leave it out"),
        ("Untaught", "parameters", "the gradient of spare is zero throughout"),
        ("Counting", "modes", "a call in evaluation changes calls: do so only `if self.training`"),
        ("Hoarding", "copy", "it cannot be copied after a call"),
        ("Refusing", "bf16", "RuntimeError: not implemented for 'BFloat16'"),
        ("shared", "builds", "two blocks would share one module: make a new one at each call"),
        ("no_module", "builds", "called with 16 channels it gives function, and no module: return an nn.Module"),
        ("InPlace", "input", "it changes its input in place: leave out the underscore, add_ becomes add"),
        ("Overflowing", "fp16", "on 32 × 32 places torch.float16 leaves its range: sum in float32, x.float().sum(...)"),
    ],
)
def test_a_reason_says_what_to_do(name: str, line: str, why: str) -> None:
    mixer = next(mixer for mixer in SPOILT if called(mixer) == name)
    assert failed(mixer, ("builds", line))[line].startswith(why)


class OneGrid(Fine):
    """Made for one grid; refuses others."""

    grid = 4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[2:] != (self.grid, self.grid):
            raise ValueError(f"made for a grid of {self.grid}, not {tuple(x.shape[2:])}")
        return super().forward(x)


def test_sizes_that_a_mixer_does_not_claim_are_left_out() -> None:
    from dataclasses import make_dataclass

    claiming = make_dataclass(
        "Claiming", [("grid", int, 4)], frozen=True, namespace={"__call__": lambda self, dim: OneGrid(dim)}
    )
    lines = {
        line.name: line for line in try_contract(Case(claiming(), 16), ("shape", "odd sizes", "one pixel", "several sizes"))
    }
    assert [line.state for line in lines.values()] == ["passed", "left out", "left out", "left out"]
    assert lines["one pixel"].why.startswith("made for a grid of 4, it refuses others: made for a grid of 4, not (1, 1)")
    odd, *forms = try_contract(Case(OneGrid, 16), ("odd sizes", "export", "onnx"))  # without the claim it is a failure
    assert odd.state == "failed"
    assert {(line.state, line.why) for line in forms} == {("left out", "comes after odd sizes")}


def test_an_error_is_told_with_the_line_that_it_passed() -> None:
    mixer = next(mixer for mixer in SPOILT if called(mixer) == "Refusing")
    said = failed(mixer, ("bf16",))["bf16"]
    (number,) = re.findall(r" \(tests\.spoilt, line (\d+)\)$", said)
    assert "raise RuntimeError(" in (Path(__file__).parents[1] / "spoilt.py").read_text().splitlines()[int(number) - 1]


@pytest.mark.slow
def test_a_quick_check_runs_no_generated_code() -> None:
    (line,) = try_contract(Case(Fine, 16, quick=True), ("compile",))
    assert line.why == "one graph, the same result (as aot_eager runs it)"


# --- what is measured -------------------------------------------------------------------------------------------------


def test_an_exponent_and_its_interval() -> None:
    x = [64, 144, 256, 576]
    exact = power(x, [3 * n**1.5 for n in x])
    assert exact is not None
    assert (exact.value, exact.low, exact.high) == pytest.approx((1.5, 1.5, 1.5))
    y = [1.0, 2.5, 3.9, 10.0]
    found, right = power(x, y), linregress([math.log(n) for n in x], [math.log(n) for n in y])
    assert found is not None
    assert found.value == pytest.approx(right.slope)
    assert found.high - found.value == pytest.approx(t.ppf(0.975, 2) * right.stderr)
    assert found.value - found.low == pytest.approx(found.high - found.value)
    assert power(x, [1.0, None, None, 2.0]) is None


def test_memory_on_a_gpu_is_what_a_call_takes_though_others_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    held = [1000, 1000]  # now, at most
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: held[0])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: held[1])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: held.__setitem__(1, held[0]))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    assert mixer_measure.most(Ready(lambda: held.__setitem__(1, 1070), 1, device="cuda", loaded=50)) == 70


@pytest.mark.slow
def test_a_mixer_for_a_grid_is_measured_on_each_side() -> None:
    places = grow("Random(grid=4)", 8, "cpu", TINY)
    assert [(place.tokens, place.batch) for place in places] == [(16, 4), (36, 2), (64, 1)]
    assert all(place.seconds[job] > 0 for place in places for job in ("predict", "train"))
    assert all(place.bytes[job] is None or place.bytes[job] >= 0 for place in places for job in ("predict", "train"))


@pytest.mark.slow
def test_gradients_of_weights_are_no_memory_of_a_map() -> None:
    """A batch has them once, however few maps are in it: SpatialFC's are as large as tokens squared, its maps as tokens."""
    places = grow("SpatialFC(grid=4)", 32, "cpu", Effort(sides=(8, 16, 32), tokens=2048, rounds=1, seconds=0.0))
    held = [place.bytes["train"] for place in places]
    if None in held:
        pytest.skip("this system does not tell what is held")
    found = power([place.tokens for place in places], held)
    assert found is not None
    assert found.value == pytest.approx(1, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("text", ["SepConv()", "Attention()"])
def test_models_of_equal_parameters(text: str) -> None:
    wanted = enter("Pooling()", "width")[0].parameters
    usual_dims = get_config("poolformerv2_t6").dims
    dims = nearest_dims(partial(framed, text), usual_dims, wanted)
    found, usual = (parameters_of(framed(text, each)) for each in (dims, usual_dims))
    assert abs(found / wanted - 1) < 0.01
    assert abs(found - wanted) <= abs(usual - wanted)


def test_who_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixer_measure, "BUILT_IN", (Identity(), Pooling(), SepConv(), Random(grid=14)))
    entries = enter("tests.spoilt:Fine", "width")
    grids = "(Random(grid=16), Random(grid=8), Random(grid=4), Random(grid=2))"
    assert [entry.mixer for entry in entries] == [
        "tests.spoilt:Fine",
        "Identity()",
        "Pooling(window=3)",
        repr(SepConv()),
        grids,
    ]
    assert {entry.dims for entry in entries} == {(32, 64, 128, 192)}
    assert [entry.mixer for entry in enter("Pooling()", "width")][:2] == ["Pooling(window=3)", "Identity()"]
    monkeypatch.setattr(mixer_measure, "BUILT_IN", (SepConv(),))
    _, narrow = enter("Pooling()", "parameters")
    assert narrow.dims < (32, 64, 128, 192)
    assert narrow.parameters == pytest.approx(entries[2].parameters, rel=0.05)


@pytest.mark.slow
def test_a_race(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixer_measure, "BUILT_IN", (Identity(), Random(grid=14)))
    monkeypatch.setattr(mixer_measure, "SIZE", 16)
    mine, *others = race(enter("tests.spoilt:Fine", "parameters"), "cpu", TINY)
    assert mine.ratios is not None
    assert mine.ratios["train"].value == 1
    for entry in (mine, *others):
        assert entry.predict > entry.train > 0
        assert entry.ratios is not None
        assert entry.ratios["predict"].low <= entry.ratios["predict"].value <= entry.ratios["predict"].high


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Poolng", "unknown 'Poolng', did you mean Pooling"),
        ("Random", r"Random needs grid, such as Random\(grid=7\)"),
        ("LayerNorm()", "does not serve there: give Identity"),
        ("(Pooling(), Identity())", "is several mixers: name one"),
        ("nothing.py:Mine", "there is no nothing.py in"),
        ("tests.spoilt:Fin", "tests.spoilt has no 'Fin', did you mean Fine"),
        ("one.py", r"one\.py is a file, did you mean one\.py:Fine\?$"),
        ("no.py", r"no\.py has no class of a module or frozen dataclass: name what makes the mixer, no\.py:NAME$"),
    ],
)
def test_a_mixer_that_is_named_wrongly(own: Path, text: str, sentence: str) -> None:
    (own / "one.py").write_text("from torch import nn\n\nclass Fine(nn.Identity):\n    pass\n")
    (own / "no.py").write_text("from torch.nn import Identity\n")
    with pytest.raises(ValueError, match=sentence):
        read_mixer(text)


def test_built_in_names_need_no_brackets() -> None:
    assert (read_mixer("Attention"), read_mixer("DepthwiseConv(kernel=5)")) == (Attention(), DepthwiseConv(kernel=5))


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check of seconds: three lines, two built-in mixers, tiny maps, in this process."""
    monkeypatch.setattr(mixer_measure, "BUILT_IN", (Identity(), Pooling()))
    monkeypatch.setattr(mixer_measure, "SIZE", 16)
    monkeypatch.setattr(mixer_measure, "BATCH", 2)
    monkeypatch.setattr(mixer_measure, "most", lambda ready: None)
    monkeypatch.setattr(mixer_check, "QUICK", TINY)
    monkeypatch.setattr(mixer_check, "apart", lambda function, *arguments: function(*arguments))
    lines = {name: LINES[name] for name in ("builds", "shape", "device", "odd sizes", "bf16")}
    monkeypatch.setattr(mixer_check, "try_contract", lambda case: try_contract(case, tuple(lines)))


@pytest.mark.usefixtures("small")
def test_the_command(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    code, out, err = command("mixer", "check", "tests.spoilt:Fine", "--quick", "--dim", 8, "--json", file)
    assert (code, err) == (0, "")
    told: dict[str, Any] = json.loads(file.read_text())
    assert told["passed"] is True
    assert (told["mixer"], told["dim"], told["quick"], told["equal"]) == ("tests.spoilt:Fine", 8, True, "parameters")
    assert [line["name"] for line in told["lines"]] == ["builds", "shape", "device", "odd sizes", "bf16"]
    assert set(told["exponents"]) == {"predict seconds", "predict bytes", "train seconds", "train bytes"}
    assert [entry["mixer"] for entry in told["entries"]] == ["tests.spoilt:Fine", "Identity()", "Pooling(window=3)"]
    rows = out.splitlines()
    assert "shape      passed  2 × 8 × 8 × 8 stays 2 × 8 × 8 × 8" in rows
    assert "It keeps the contract." in rows
    assert sum(row.startswith(("yours ", "Identity ", "Pooling ")) for row in rows) == 3
    assert any(row.startswith("exponent ") for row in rows)
    assert rows[-3] == "What it learns, beside others: metaformer study tests.spoilt:Fine data=..."
    assert rows[-1] == f"written: {file}"


@pytest.mark.usefixtures("small")
def test_what_fails_is_to_be_mended_first() -> None:
    code, out, _ = command("mixer", "check", "tests.spoilt:Widened", "--quick", "--dim", 8)
    assert code == 1
    assert "\nMend what fails first: bf16. What it learns, beside others: metaformer study" in out


@pytest.mark.usefixtures("small")
def test_the_command_s_options_count() -> None:
    code, out, _ = command("mixer", "check", "Identity", "--quick", "--dim", 8, "--equal", "width")
    assert code == 0
    assert "of equal width" in out
    for wrong, sentence in (
        (("--equal", "size"), "equal=size is not one of parameters, width"),
        (("--device", "cuda:99"), "device=cuda:99 is not "),
    ):
        code, _, err = command("mixer", "check", "Identity", *wrong)
        assert code == 2
        assert sentence in err


@pytest.mark.usefixtures("small")
def test_a_contract_that_is_broken_ends_with_1_and_is_measured_where_it_can_be() -> None:
    code, out, err = command("mixer", "check", "tests.spoilt:Refusing", "--quick", "--dim", 8)
    assert (code, err) == (1, "")
    assert "It fails 1 of 5 lines: bf16." in out
    assert "exponent" in out
    code, out, _ = command("mixer", "check", "tests.spoilt:Cropped", "--quick")
    assert code == 1
    assert "It fails 1 of 5 lines: shape. The other 3 wait for it." in out
    assert "comes after" not in out
    assert "exponent" not in out


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("name", "how"), [("Halved", ["in a model"]), ("Rigid", ["against tokens", "in a model"])])
def test_a_mixer_that_cannot_be_measured_is_told_so(name: str, how: list[str]) -> None:
    code, out, err = command("mixer", "check", f"tests.spoilt:{name}", "--quick", "--dim", 8)
    assert (code, err) == (1, "")
    said = [line for line in out.splitlines() if line.startswith("It cannot be measured ")]
    assert [line.removeprefix("It cannot be measured ").partition(": ")[0] for line in said] == how
    assert all(re.search(": RuntimeError: .{20,}", line) for line in said)


def test_what_is_not_quick_is_measured_on_larger_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(mixer_check, "try_contract", lambda case: asked.append(case.quick) or ())
    monkeypatch.setattr(mixer_check, "apart", lambda function, *arguments: asked.append(arguments[-1]) or [])
    monkeypatch.setattr(mixer_check, "enter", lambda text, equal: [])
    check("Identity")
    check("Identity", quick=True)
    assert asked == [False, Effort(), Effort(), True, mixer_measure.QUICK, mixer_measure.QUICK]
    assert isinstance(check("Identity"), Checked)
