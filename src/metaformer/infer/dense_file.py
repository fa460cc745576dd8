"""Exported detectors and segmenters: how they become files for runtimes, and a file as the model that it was made from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges

from metaformer.data.preprocess import LARGEST, Pixels
from metaformer.dense.config import DenseConfig
from metaformer.dense.graph import Graph, RegionGraph
from metaformer.dense.model import rounded_up
from metaformer.dense.regions import STRIDES, RegionLogits
from metaformer.infer.convert import follow, for_openvino, proto_of
from metaformer.infer.engines import OpenVinoEngine, Options, need
from metaformer.infer.exported import open_runtime
from metaformer.infer.torch_files import ExecuTorchEngine
from metaformer.tasks.found import Size

SUFFIXES = (".onnx", ".xml", ".pt2")
"""Of files that hold detectors and segmenters. A .safetensors holds weights, which are a model in torch like any other."""
MASK = 28
"""Side of a mask that a graph gives."""


def program_of(graph: Graph) -> ExportedProgram:
    """The graph in torch's operators: of one image, where it finds objects, else of any number."""
    many = isinstance(graph, RegionGraph)
    example = torch.zeros(2 if many else 1, len(graph.model.mean), *graph.size, dtype=torch.uint8)
    program = follow(graph, example, {0: Dim.DYNAMIC} if many else {}, graph.names)
    if many:
        program.range_constraints.update(dict.fromkeys(program.range_constraints, ValueRanges(1, int_oo)))
    nodes = program.graph_module.graph
    for node in list(nodes.nodes):
        if node.target is torch.ops.aten._assert_scalar.default:  # that as many boxes are left as there may be, as a text
            nodes.erase_node(node)
    nodes.eliminate_dead_code()
    program.graph_module.recompile()
    return program


def onnx_of(graph: Graph) -> Any:
    """An onnx.ModelProto. Raises ValueError where an operator has no counterpart."""
    return proto_of(program_of(graph), graph.names)


def openvino_of(graph: Graph) -> Any:
    """An ov.Model, by way of ONNX, whose operators for thinning out and reading boxes OpenVINO knows."""
    need("openvino")
    return OpenVinoEngine(onnx_of(for_openvino(graph)).SerializeToString(), Options()).model


class DenseFile(nn.Module):
    """A file that `export` wrote, asked like the model that it was made from: images of bytes in, answers out.

    Images are laid into the corner of one of the file's size, on the mean colour. Raises ValueError for larger ones.
    """

    def __init__(self, file: Path, engine: str, options: Options) -> None:
        super().__init__()
        if file.suffix.lower() not in SUFFIXES:
            raise ValueError(f"{file} holds no detector or segmenter; {', '.join(SUFFIXES)} may")
        runtime = open_runtime(file, engine, options)
        assert not isinstance(runtime, ExecuTorchEngine)
        self.file, self.about = file, runtime.about()
        self.config, self.size, self.within = read_dense_about(self.about, file)
        self.arrays = runtime.arrays
        self.name = runtime.name
        form, sides = runtime.form(), (len(self.config.mean), *self.size)
        if not form.bytes or form.shape[1:] != sides or not self._gives(form.found):
            what = f"bytes, {' × '.join(map(str, sides))}"
            raise ValueError(f"{file} does not take the images that it says it takes, {what}, or gives something else")
        self.colour = [round(255 * value) for value in self.config.mean]
        self.eval()

    def _gives(self, found: Sequence[tuple[int | None, ...]]) -> bool:
        """Whether these are shapes of what a graph of such a model gives."""
        if self.config.task == "segmentation":
            height, width = self.size
            return [shape[1:] for shape in found] == [(self.config.num_classes, height // STRIDES[0], width // STRIDES[0])]
        sides = [(4,), (), ()] + [(MASK, MASK)] * (self.config.task == "instances")
        return [shape[1:] for shape in found] == sides and len({shape[:1] for shape in found}) == 1

    def forward(self, images: Sequence[Tensor] | Tensor) -> Any:
        """For each image its Detections; of a segmenter the RegionLogits of all."""
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        for size in sizes:
            if size[0] > self.size[0] or size[1] > self.size[1]:
                (height, width), (high, wide) = size, self.size
                raise ValueError(
                    f"{self.file} takes images of at most {high} × {wide} pixels, height and width, not {height} × {width}: "
                    f"export it again with --image-size {rounded_up(height)} {rounded_up(width)}"
                )
        fed = np.stack([self._laid(image) for image in images])
        if self.config.task == "segmentation":
            return RegionLogits(torch.from_numpy(self.arrays(fed)[0]), sizes)
        return [self._found(self.arrays(one[None]), size) for one, size in zip(fed, sizes, strict=True)]

    def _laid(self, image: Tensor) -> Pixels:
        """(C, H, W) of the file's size, the image in its upper left corner."""
        laid = np.empty((len(self.colour), *self.size), np.uint8)
        laid[:] = np.array(self.colour, np.uint8)[:, None, None]
        laid[:, : image.shape[1], : image.shape[2]] = image.cpu().numpy()
        return laid

    def _found(self, arrays: Sequence[NDArray[Any]], size: Size) -> Any:
        """What is sure enough, in the image and not in what lies around it."""
        from metaformer.dense.boxes import real
        from metaformer.dense.detections import SCORE, Detections, clipped

        boxes, scores, labels, *masks = (torch.from_numpy(array) for array in arrays)
        cut = clipped(boxes, size)
        keep = real(cut) & (scores > SCORE) & (labels >= 0) & (labels < self.config.num_classes)
        return Detections(cut[keep], scores[keep], labels[keep].long(), masks[0][keep] if masks else None, size)


def read_dense_about(about: Mapping[str, Any], file: Path) -> tuple[DenseConfig, Size, Size]:
    """What the model is that is in a file, the height and width of what it takes, and those that an image is fitted into.

    Raises ValueError where the file does not say so.
    """
    if "dense" not in about:
        raise ValueError(f"{file} is a classifier, or does not say what it is: metaformer.Predictor opens classifiers")
    try:
        config = DenseConfig.from_dict(about["dense"])
        size, within = _pair(about["input"]["sides"]), _pair(about["shown"]["within"])
    except (TypeError, AttributeError, LookupError, ArithmeticError) as error:
        raise ValueError(f"{file} is damaged: it describes no model ({str(error).splitlines()[0]})") from error
    if within[0] > size[0] or within[1] > size[1]:
        raise ValueError(f"{file} is damaged: images of {within[0]} × {within[1]} do not fit into {size[0]} × {size[1]}")
    return config, size, within


def _pair(value: Any) -> Size:
    height, width = value
    if type(height) is not int or type(width) is not int or not (0 < height <= LARGEST and 0 < width <= LARGEST):
        raise TypeError(f"{value} are no height and width")
    return height, width
