"""The bench: who takes part, what is written, what is refused; and the real thing in small."""

import csv
import json
import subprocess
import sys
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.contenders import steady, unbuildable
from tests.tiny import command

from metaformer.lab import bench as bench_module
from metaformer.lab.bench import Plan, bench
from metaformer.lab.contestants import CEILING, Contestant, enter, fastest
from metaformer.lab.standings import Standing, claims, draw, said, texts, write_all
from metaformer.lab.turns import Outcome, Turns, compete
from metaformer.lab.worker import Built, Cell, Ready

BASE = "timm torch fp32"


def names(job: str = "predict", device: str = "cpu", precisions: tuple[str, ...] = ("fp32",), leave_out: str = "") -> list[str]:
    place = Cell(job, "caformer_s18", 1, 224, device, 1, Path())
    engines = ("torch", "compiled", "openvino", "onnxruntime")
    return [one.name for one in enter(place, engines, precisions, ["caformer_s18", "resnet50"], leave_out.split(","))]


def test_who_takes_part() -> None:
    engines = ("torch", "compiled", "openvino", "onnxruntime")
    everybody = [f"{owner} {engine} fp32" for engine in engines for owner in ("ours", "timm", "timm:resnet50")]
    assert names() == [*everybody, f"{CEILING} torch fp32"]
    assert names(leave_out="ours [co]*,timm:*,timm [to]*,ceiling*") == ["ours torch fp32", "timm compiled fp32"]
    assert {name.split()[1] for name in names(device="cuda")} == {"torch", "compiled"}
    assert {name.split()[1] for name in names(job="train")} == {"torch", "compiled"}
    assert names(precisions=("fp16",)) == [f"{CEILING} torch fp16"]
    assert "timm openvino int8" in names(precisions=("int8",))


def outcome(name: str, rates: list[float], peak: int = 2**20, macs: int | None = 10**9) -> Outcome:
    owner, engine, precision = name.split()
    one = Contestant(owner, engine, precision, unbuildable)
    built = Built(16, macs, 25 * 10**6, 3.0)
    return Outcome(one, built, peak, 1, rates) if rates else Outcome(one, error="it is not installed")


def standing(batch: int, ours: list[float]) -> Standing:
    outcomes = [
        outcome("ours openvino fp32", ours, peak=2**21),
        outcome("ours torch fp32", [rate / 2 for rate in ours]),
        outcome("ours openvino int8", []),
        outcome("timm torch fp32", [10.0, 20.0, 30.0], peak=2**22),
        outcome("timm openvino fp32", [20.0, 40.0, 60.0]),
        outcome("ceiling torch fp32", [100.0, 100.0, 100.0]),
    ]
    return Standing(Cell("predict", "caformer_s18", batch, 224, "cpu", 2, Path()), BASE, outcomes)


def test_the_files_agree(tmp_path: Path) -> None:
    both = [standing(1, [40.0, 80.0, 120.0]), standing(16, [30.0, 60.0, 90.0])]
    written = write_all(tmp_path, {"machine": {"device": "a slide rule"}}, both, ["one note"]) + draw(tmp_path, both)
    assert [file.name for file in written] == ["bench.json", "bench.csv", "bench.md", "bench.png"]
    found = json.loads((tmp_path / "bench.json").read_text())
    table = list(csv.DictReader((tmp_path / "bench.csv").read_text().splitlines()))
    text = (tmp_path / "bench.md").read_text()
    assert len(found["rows"]) == len(table) == 12
    for row, line in zip(found["rows"], table, strict=True):
        assert line == {key: "" if value is None else str(value) for key, value in row.items()}
        speed = row["images_per_second"]
        shown = "failed" if row["error"] else "–" if speed is None else f"{speed:,.1f}"
        assert f"| {row['contestant']} | {shown} |" in text
    first = found["rows"][0]
    assert (first["contestant"], first["images_per_second"], first["ratio"]) == ("ours openvino fp32", 80.0, 4.0)
    assert (first["low"], first["high"], first["peak_mib"], first["rounds"]) == (40.0, 120.0, 2.0, 3)
    assert (first["gflops"], first["of_ceiling"]) == (pytest.approx(160.0), pytest.approx(0.8))
    assert found["rows"][5]["gflops"] == pytest.approx(200.0)
    assert found["rates"]["caformer_s18, predict, batch 1 at 224"]["timm torch fp32"] == [10.0, 20.0, 30.0]
    assert all(said(claim) in text for claim in claims(both))
    assert "- Note: one note" in text


def test_the_summary_has_geometric_mean_and_smallest_cell() -> None:
    found = {claim.title: claim for claim in claims([standing(1, [40.0, 80.0, 120.0]), standing(16, [30.0, 60.0, 90.0])])}
    best = found["predict: our best fp32 over the peers' best fp32, speed"]
    assert (best.cells, best.mean, best.least) == (2, pytest.approx(3**0.5), 1.5)
    assert best.least_cell == "caformer_s18, predict, batch 16 at 224"
    assert found["predict: our best fp32 over eager fp32, speed"].mean == pytest.approx(12**0.5)
    assert found["predict: ours over the peer, both torch fp32, speed"].least == 1.5
    memory = found["predict: our fastest fp32 over eager fp32, peak memory above the model at batch 16"]
    assert (memory.cells, memory.mean) == (1, 0.5)
    assert not any("int8" in title or "bf16" in title for title in found)


def test_a_failure_is_a_row_without_figures() -> None:
    rows = {row.contestant: row for row in standing(1, [1.0, 2.0, 3.0]).rows()}
    failed = rows["ours openvino int8"]
    assert (failed.error, failed.images_per_second, failed.ratio) == ("it is not installed", None, None)
    assert ("ours openvino int8", "failed") in [line[:2] for line in texts(standing(1, [1.0, 2.0, 3.0]))]


def test_a_plan_with_fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def entered(*_: object) -> list[Contestant]:
        makers = {"ours": partial(steady, seconds=0.1, macs=10**9), "timm": partial(steady, seconds=0.2, macs=10**9)}
        fakes = [Contestant(owner, "torch", "fp32", make) for owner, make in makers.items()]
        return [*fakes, Contestant("timm", "compiled", "fp32", unbuildable)]

    monkeypatch.setattr(bench_module, "enter", entered)
    heard: list[str] = []
    bench(Plan(models=("caformer_s18",), batches=(2,), peers=False, turns=Turns(3)), tmp_path, heard.append)
    found = json.loads((tmp_path / "bench.json").read_text())
    assert [(row["contestant"], row["ratio"]) for row in found["rows"]] == [
        ("ours torch fp32", pytest.approx(2.0)), ("timm torch fp32", 1.0), ("timm compiled fp32", None),
    ]  # fmt: skip
    assert found["plan"]["models"] == ["caformer_s18"]
    assert found["notes"] == [
        "caformer_s18, predict, batch 2 at 224: timm compiled fp32: timm has no model 'timm:caformer_s99'"
    ]
    assert "our best fp32 over the peers' best fp32, speed: geometric mean 2.00 over 1 cell" in "".join(heard)


def test_it_needs_torch_and_timm_alone() -> None:
    others = (
        "typer",
        "rich",
        "matplotlib",
        "openvino",
        "onnx",
        "onnxruntime",
        "onnxscript",
        "pyarrow",
        "sklearn",
        "torchmetrics",
    )
    code = f"import sys; sys.modules.update(dict.fromkeys({others})); import metaformer.lab.bench as bench; bench.Plan()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_matplotlib_there_is_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "metaformer.lab.plots", None)
    assert draw(tmp_path, [standing(1, [1.0, 2.0, 3.0])]) == []


def test_time_that_is_up_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_module, "enter", lambda *_: [Contestant("ours", "torch", "fp32", partial(steady, seconds=0.1))])
    plan = Plan(models=("caformer_s18",), batches=(1, 2), peers=False, minutes=1e-9)
    with pytest.raises(ValueError, match=r"^nothing was measured in 1e-09 minutes: more --minutes, or fewer models$"):
        bench(plan, tmp_path, lambda text: None)


def test_large_batches_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_module, "enter", lambda *_: [Contestant("ours", "torch", "fp32", partial(steady, seconds=0.1))])
    plan = Plan(models=("caformer_s18", "poolformer_s12"), batches=(1, 2), peers=False, turns=Turns(1))
    found = bench(plan, tmp_path, lambda text: None)
    assert [(one.cell.batch, one.cell.model) for one in found] == [
        (2, "caformer_s18"), (2, "poolformer_s12"), (1, "caformer_s18"), (1, "poolformer_s12"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["caformer_s81"], "caformer_s18"),
        (["--engine", "openvin"], "no engine 'openvin', did you mean openvino?"),
        (["--precision", "fp64"], "no precision 'fp64', did you mean"),
        (["--job", "teach"], "no job 'teach': predict, train"),
        (["--batch", "one"], "batch=one is not whole numbers, such as 1,16"),
        (["--batch", "0"], "are at least 1"),
        (["caformer_s18", "--no-peers", "--baseline", "ours torch fp23"], "did you mean ours torch fp32?"),
        (["caformer_s18", "--no-peers", "--leave-out", "*"], "nobody takes part"),
    ],
)
def test_a_slip_is_one_sentence(here: Path, words: list[str], sentence: str) -> None:
    code, out, error = command("bench", *words)
    assert (code, out) == (2, "")
    assert sentence in error
    assert error.startswith("metaformer: ")


@pytest.mark.slow
@pytest.mark.parametrize(("job", "leave_out"), [("predict", "timm compiled*"), ("train", "* compiled*")])
def test_the_real_thing(tmp_path: Path, job: str, leave_out: str) -> None:
    plan = Plan(
        models=("poolformerv2_s12",), jobs=(job,), precisions=("fp32",), batches=(2,), sizes=(32,), leave_out=(leave_out,),
        turns=Turns(3, seconds=0.05),
    )  # fmt: skip
    (found,) = bench(plan, tmp_path / "bench", lambda text: None)
    installed = [one for one in found.outcomes if one.contestant.engine in ("torch", "compiled") or find_spec("openvino")]
    assert [(one.name, one.error) for one in installed if one.error] == []
    rows = {row.contestant: row for row in found.rows()}
    assert rows["timm torch fp32"].macs == rows["ours torch fp32"].macs
    for row in (row for row in rows.values() if row.error is None and not row.contestant.startswith(CEILING)):
        assert row.images_per_second is not None
        assert row.low is not None
        assert row.high is not None
        assert row.low <= row.images_per_second <= row.high
        assert (row.ratio == 1.0) == (row.contestant == BASE)
    assert (tmp_path / "bench" / "bench.png").stat().st_size > 1000


@pytest.mark.slow
def test_peers_in_bf16_and_int8(tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    place = Cell("predict", "poolformerv2_s12", 2, 32, "cpu", 1, tmp_path)
    field = enter(place, ("openvino", "torch"), ("bf16", "int8"), ["poolformerv2_s12"], ["ours openvino int8"])
    assert [(one.name, one.error) for one in compete(place, field, Turns(3, seconds=0.05)) if one.error] == []


@pytest.mark.slow
def test_scaling(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "scaling.py"
    options = ["--sizes", "32,64", "--batches", "1,2", "--images", "4", "--dim", "32", "--rounds", "3", "--out", str(tmp_path)]
    subprocess.run([sys.executable, str(script), *options], check=True, capture_output=True)
    found = json.loads((tmp_path / "scaling.json").read_text())
    assert set(found["exponents"]["seconds by resolution"]) == {
        "Identity", "Identity, MLN", "Pooling", "MaxPooling", "DepthwiseConv", "SepConv", "Attention", "Random", "SpatialFC",
        "Fourier",
    }  # fmt: skip
    assert [(point["batch"], point["size"]) for point in found["points"]["resolution"]["Pooling"]] == [(4, 32), (1, 64)]
    assert all(point["seconds"] > 0 for kind in found["points"].values() for points in kind.values() for point in points)
    assert (tmp_path / "scaling.png").stat().st_size > 1000


def test_the_quickest_way_is_found_at_the_first_call() -> None:
    called: list[str] = []

    def way(name: str, seconds: float) -> Ready:
        def go() -> None:
            called.append(name)
            time.sleep(seconds)

        return Ready(go, 1)

    chosen = fastest([way("slow", 0.03), way("quick", 0.0), way("middling", 0.01)])
    assert called == []  # while others are built
    chosen.go()
    assert called.count("slow") == called.count("middling") == 3
    called.clear()
    chosen.go()
    assert called == ["quick"]
