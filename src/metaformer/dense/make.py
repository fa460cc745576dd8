"""The model that a DenseConfig describes. Detectors import torchvision, and nothing else does."""

from metaformer.dense.config import DenseConfig
from metaformer.dense.model import Dense


def make_dense(config: DenseConfig) -> Dense:
    """A new model. Raises ValueError where the backbone has not the maps that the head needs."""
    if config.task == "segmentation":
        from metaformer.dense.regions import SemanticFPN, UPerNet

        return SemanticFPN(config) if config.head == "semantic_fpn" else UPerNet(config)
    if config.head == "retinanet":
        from metaformer.dense.retinanet import RetinaNet

        return RetinaNet(config)
    from metaformer.dense.rcnn import RCNN

    return RCNN(config)
