"""OpenVINO's own format: a graph in .xml, and its weights in the .bin of the same name."""

from metaformer.data.preprocess import Preprocess
from metaformer.export.save import Save
from metaformer.infer.convert import pipeline, to_openvino, write_ir
from metaformer.weights.pretrained import Model


def prepare(model: Model, preprocess: Preprocess, precision: str, output: str) -> Save:
    """Converts, and gives what writes the two files. With bf16 they say that they are to be run in it; the weights stay fp32.

    A graph that is bf16 itself is further off than it need be, up to infinity: there norms too are computed in bf16.
    """
    graph = to_openvino(pipeline(model, preprocess, output), len(preprocess.mean), preprocess.size)
    return lambda file, about: write_ir(graph, file, about)
