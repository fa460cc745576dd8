"""Engines: what was asked for is what runs, by what the runtimes say themselves; and threads of a caller's do not meet."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tests.fill import filled_model
from torch import Tensor, nn

from metaformer.data.preprocess import Preprocess
from metaformer.export.compare import noise
from metaformer.infer.convert import pipeline, to_openvino
from metaformer.infer.engines import KEPT, Filled, OpenVinoEngine, Options, TorchEngine

pytestmark = pytest.mark.usefixtures("thread")

PREPROCESS = Preprocess(32, (0.5,) * 3, (0.25,) * 3)
CPU = Options("cpu")


def module() -> nn.Module:
    return pipeline(filled_model("caformer_s18", depths=(1, 1, 1, 1), dims=(8, 8, 16, 32), num_classes=5), PREPROCESS)


@pytest.fixture(scope="module")
def graph() -> Any:
    """An ov.Model."""
    return to_openvino(module(), 3, 32)


# --- OpenVINO ---------------------------------------------------------------------------------------------------------


def running(engine: OpenVinoEngine) -> tuple[int, int, str]:
    """Threads, streams and precision of what was compiled last, as OpenVINO says."""
    compiled = [*engine.queues.values()][-1][0].get_compiled_model()
    threads, streams, precision = (
        compiled.get_property(name) for name in ("INFERENCE_NUM_THREADS", "NUM_STREAMS", "INFERENCE_PRECISION_HINT")
    )
    return int(threads), int(streams), precision.get_type_name()


@pytest.mark.parametrize(("threads", "streams", "used"), [(1, None, 1), (2, None, 2), (2, 1, 1)])
def test_threads_and_streams_are_openvino_s(graph: Any, threads: int, streams: int | None, used: int) -> None:
    engine = OpenVinoEngine(graph, Options(threads=threads, streams=streams))
    engine(noise(2, 3, 224, 224))
    assert running(engine) == (threads, used, "f32")
    engine(noise(1, 3, 224, 224))  # a single image is all threads'
    assert running(engine) == (threads, 1, "f32")


@pytest.mark.parametrize(
    ("precision", "count", "shape"),
    [
        ("fp32", 1, (1, 3, 112, 112, 1)),
        ("fp32", 3, (1, 3, 112, 112, 2)),  # neither stream waits for the other's part
        ("fp32", 16, (8, 3, 112, 112, 2)),
        ("fp32", 40, (8, 3, 112, 112, 2)),
        ("bf16", 40, (16, 3, 112, 112, 2)),
    ],
)
def test_parts_are_of_the_size_that_is_fastest(graph: Any, precision: str, count: int, shape: tuple[int, ...]) -> None:
    engine = OpenVinoEngine(graph, Options(threads=2, precision=precision))
    assert len(engine(noise(count, 3, 112, 112))) == count
    assert [*engine.queues] == [shape]


def test_bf16_is_openvino_s(graph: Any) -> None:
    wanted, engine = OpenVinoEngine(graph, CPU)(noise(4, 3, 32, 32)), OpenVinoEngine(graph, Options(precision="bf16"))
    near_but_not_equal(engine(noise(4, 3, 32, 32)), wanted)
    assert running(engine)[2] == "bf16"


def near_but_not_equal(found: np.ndarray, wanted: np.ndarray) -> None:
    """As bf16 is beside fp32."""
    assert 1e-4 < np.abs(found - wanted).max() / np.abs(wanted).mean() < 0.3


def test_bf16_where_the_processor_has_none(graph: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenVinoEngine, "_has_bf16", lambda self: False)
    with pytest.raises(ValueError, match=r"^this processor has no bf16: precision=fp32$"):
        OpenVinoEngine(graph, Options(precision="bf16"))
    monkeypatch.setattr(OpenVinoEngine, "about", lambda self: {"precision": "bf16"})
    assert OpenVinoEngine(graph, CPU).name == "openvino fp32"


def test_threads_of_a_caller_s_do_not_meet(graph: Any) -> None:
    engine = OpenVinoEngine(graph, Options(threads=2))
    images = [noise(8, 3, 32, 32), 255 - noise(8, 3, 32, 32)]
    wanted = [engine(pixels) for pixels in images]
    answers: list[list[Any]] = [[], []]

    def call(which: int) -> None:
        for _ in range(150):
            answers[which].append(engine(images[which]))

    callers = [threading.Thread(target=call, args=(which,)) for which in (0, 1)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert [len(given) for given in answers] == [150, 150]
    for given, right in zip(answers, wanted, strict=True):
        np.testing.assert_allclose(given, np.stack([right] * 150), rtol=1e-4, atol=1e-5)


def test_few_graphs_are_kept(graph: Any) -> None:
    engine = OpenVinoEngine(graph, Options(threads=1))
    first = noise(1, 3, 32, 32)
    wanted = engine(first)
    compiled = engine.queues[1, 3, 32, 32, 1]
    for side in range(33, 32 + KEPT + 3):
        engine(noise(1, 3, 32, side))
        engine(first)  # what is in use stays
    assert len(engine.queues) == KEPT
    assert engine.queues[1, 3, 32, 32, 1] is compiled
    assert (1, 3, 32, 33, 1) not in engine.queues
    assert (engine(first) == wanted).all()


# --- torch ------------------------------------------------------------------------------------------------------------


def test_bf16_is_torch_s() -> None:
    near_but_not_equal(
        TorchEngine(module(), Options("cpu", "bf16"))(noise(4, 3, 32, 32)), TorchEngine(module(), CPU)(noise(4, 3, 32, 32))
    )


def test_threads_are_torch_s_for_the_call_alone() -> None:
    made, seen = module(), list[int]()
    made.register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
    two, as_it_is = TorchEngine(made, Options("cpu", threads=2)), TorchEngine(made, CPU)
    for engine in (two, as_it_is, two):
        engine(noise(1, 3, 32, 32))
        assert torch.get_num_threads() == 1
    assert seen == [2, 1, 2]


@pytest.mark.parametrize("compiled", [False, True])
def test_torch_has_no_streams(compiled: bool) -> None:
    with pytest.raises(ValueError, match=r"^torch has no streams: leave streams out, or engine=openvino$"):
        TorchEngine(nn.Identity(), Options("cpu", streams=2), compiled=compiled)


def test_compiling_is_what_compiled_does(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def compiling(made: Callable[[Tensor], Tensor], **options: Any) -> Callable[[Tensor], Tensor]:
        asked.append(options)
        return lambda x: 2 * made(x)

    monkeypatch.setattr(torch, "compile", compiling)
    plain, compiled = TorchEngine(module(), CPU), TorchEngine(module(), CPU, compiled=True)
    assert (plain.name, compiled.name, asked) == ("torch fp32", "compiled fp32", [{"options": {"freezing": True}}])
    assert (compiled(noise(2, 3, 32, 32)) == 2 * plain(noise(2, 3, 32, 32))).all()


@pytest.mark.slow
def test_compiled_answers_as_torch_and_is_compiled_once_for_a_last_batch() -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    plain, compiled = TorchEngine(module(), CPU), TorchEngine(module(), CPU, compiled=True)
    pixels = noise(11, 3, 32, 32)
    for part in (pixels[:4], pixels[4:8], pixels[8:]):
        wanted = plain(part)
        assert np.abs(compiled(part) - wanted).max() < 1e-4 * np.abs(wanted).mean()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_a_last_batch_is_filled_up() -> None:
    ran: list[tuple[int, ...]] = []

    def run(x: Tensor) -> Tensor:
        ran.append(tuple(x.shape))
        return 2 * x

    filled = Filled(run)
    sizes = [(4, 3), (4, 3), (3, 3), (3, 3), (1, 3), (4, 3), (3, 5), (9, 5)]
    for shape in sizes:
        x = torch.rand(shape)
        assert torch.equal(filled(x), 2 * x)
    assert ran == [(4, 3), (4, 3), (4, 3), (3, 3), (3, 3), (4, 3), (3, 5), (9, 5)]
