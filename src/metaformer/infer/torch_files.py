"""What runs the files that need torch: .pt2 of torch.export, .pte of ExecuTorch."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass

from metaformer.config import ABOUT
from metaformer.core.device import choose_device, keep_memory, with_threads
from metaformer.data.preprocess import Pixels
from metaformer.infer.convert import hushed
from metaformer.infer.engines import NO_FORM, Form, Logits, Options, compile_frozen, need, opened, said_of
from metaformer.infer.pt2 import read_program

MAGIC = b"ET12"


class ProgramEngine:
    """A program of torch.export, as it is or compiled."""

    def __init__(self, file: Path, options: Options, *, compiled: bool = False) -> None:
        program, self.said = read_program(file)
        precision = self.said.get("precision", "fp32")
        if options.precision not in ("auto", precision):
            raise ValueError(f"{file} computes in {precision}: precision=auto, or export it again in {options.precision}")
        if options.streams is not None:
            raise ValueError("torch has no streams: leave streams out")
        keep_memory()
        self.with_threads = partial(with_threads, options.threads)
        self.takes = _form(program)
        self.device = choose_device(options.device)
        module = move_to_device_pass(program, self.device).module(check_guards=False)
        self.run = compile_frozen(module, self.device) if compiled else module
        self.name = f"{'compiled' if compiled else 'torch'} {precision}"

    def about(self) -> dict[str, Any]:
        """What the file says of itself."""
        return self.said

    def form(self) -> Form:
        return self.takes

    def __call__(self, pixels: Pixels) -> Logits:
        with self.with_threads(), torch.inference_mode():
            return self._run(pixels).float().cpu().numpy()

    def arrays(self, pixels: Pixels) -> list[NDArray[Any]]:
        """All that comes out."""
        with self.with_threads(), torch.inference_mode():
            found = self._run(pixels)
            return [one.cpu().numpy() for one in (found if isinstance(found, tuple) else (found,))]

    def _run(self, pixels: Pixels) -> Any:
        return self.run(torch.from_numpy(pixels).to(self.device, non_blocking=True))


class ExecuTorchEngine:
    """A file of ExecuTorch in its Python runtime."""

    def __init__(self, file: Path, options: Options) -> None:
        with file.open("rb") as handle:
            if handle.read(8)[4:] != MAGIC:  # ExecuTorch would say what it found instead, and die where that is no text
                raise ValueError(f"{file} is damaged, or no program of ExecuTorch")
        with hushed():
            runtime = need("executorch.runtime").Runtime.get()
        if options.precision not in ("auto", "fp32"):
            raise ValueError(f"{file} computes in fp32: precision=fp32")
        if options.streams is not None:
            raise ValueError("ExecuTorch has no streams: leave streams out")
        if options.threads is not None:
            need("executorch.extension.pybindings.portable_lib")._unsafe_reset_threadpool(options.threads)
        self.program = opened(file, lambda: runtime.load_program(file), (RuntimeError,))
        self.method = opened(file, lambda: self.program.load_method("forward"), (RuntimeError, KeyError))
        self.name = "executorch fp32"

    def about(self) -> dict[str, Any]:
        """What the file says of itself."""
        if ABOUT not in self.program.method_names:
            return {}
        return said_of(self.program.load_method(ABOUT).execute([])[0])

    def form(self) -> Form:
        found = self.method.metadata
        given, last = found.input_tensor_meta(0), found.output_tensor_meta(0)
        return Form(given.dtype() == 0, (None, *given.sizes()[1:]), (tuple(last.sizes()),))

    def __call__(self, pixels: Pixels) -> Logits:
        """One by one: the file is for batches of 1."""
        try:
            rows = [self.method.execute([torch.from_numpy(image[None])])[0].numpy() for image in pixels]
        except RuntimeError as error:
            raise ValueError(
                f"ExecuTorch cannot run this model's operators ({error}): export it as onnx or openvino"
            ) from error
        return np.concatenate(rows)


def _form(program: ExportedProgram) -> Form:
    """What a program takes and gives."""
    values = {node.name: node.meta["val"] for node in program.graph.nodes if "val" in node.meta}
    signature = program.graph_signature
    given, *found = (values.get(name) for names in (signature.user_inputs, signature.user_outputs) for name in names)
    if len(signature.user_inputs) != 1 or not isinstance(given, torch.Tensor):
        return NO_FORM
    return Form(given.dtype == torch.uint8, _sides(given), tuple(_sides(one) for one in found if isinstance(one, torch.Tensor)))


def _sides(tensor: torch.Tensor) -> tuple[int | None, ...]:
    """None for those that are free."""
    return tuple(side if isinstance(side, int) else None for side in tensor.shape)
