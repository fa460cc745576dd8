"""The model that a DenseConfig describes, and its graph. Detectors import torchvision, and nothing else does."""

from typing import Any, cast

import torch

from metaformer.dense.config import DenseConfig
from metaformer.dense.graph import Graph, RegionGraph
from metaformer.dense.model import Dense, Size


def make_dense(config: DenseConfig) -> Dense:
    """A new model, its weights in the layout that is fastest. Raises ValueError where the backbone has not the maps wanted."""
    return _make(config).to(memory_format=cast(Any, torch.channels_last))


def _make(config: DenseConfig) -> Dense:
    if config.task == "segmentation":
        from metaformer.dense.regions import SemanticFPN, UPerNet

        return SemanticFPN(config) if config.head == "semantic_fpn" else UPerNet(config)
    if config.head == "retinanet":
        from metaformer.dense.retinanet import RetinaNet

        return RetinaNet(config)
    from metaformer.dense.rcnn import RCNN

    return RCNN(config)


def make_graph(model: Dense, size: Size) -> Graph:
    """A model in evaluation mode as a graph for images of a height and width. Raises ValueError where these are not allowed."""
    if model.config.task == "segmentation":
        return RegionGraph(model, size)
    from metaformer.dense.object_graph import RCNNGraph, RetinaGraph
    from metaformer.dense.rcnn import RCNN
    from metaformer.dense.retinanet import RetinaNet

    if isinstance(model, RetinaNet):
        return RetinaGraph(model, size)
    assert isinstance(model, RCNN)
    return RCNNGraph(model, size)
