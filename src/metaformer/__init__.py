"""MetaFormer: any token mixer in one general block, from a paper's table row to a model in production."""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metaformer.core.architecture import MetaFormerConfig as MetaFormerConfig
    from metaformer.core.count import Count as Count
    from metaformer.core.count import count as count
    from metaformer.core.layers import GELU as GELU
    from metaformer.core.layers import MLN as MLN
    from metaformer.core.layers import BatchNorm as BatchNorm
    from metaformer.core.layers import GroupNorm as GroupNorm
    from metaformer.core.layers import LayerNorm as LayerNorm
    from metaformer.core.layers import LinearHead as LinearHead
    from metaformer.core.layers import MLPHead as MLPHead
    from metaformer.core.layers import NoNorm as NoNorm
    from metaformer.core.layers import ReLU as ReLU
    from metaformer.core.layers import Scale as Scale
    from metaformer.core.layers import SiLU as SiLU
    from metaformer.core.layers import SquaredReLU as SquaredReLU
    from metaformer.core.layers import StarReLU as StarReLU
    from metaformer.core.mixers import Attention as Attention
    from metaformer.core.mixers import DepthwiseConv as DepthwiseConv
    from metaformer.core.mixers import Fourier as Fourier
    from metaformer.core.mixers import Identity as Identity
    from metaformer.core.mixers import MaxPooling as MaxPooling
    from metaformer.core.mixers import Pooling as Pooling
    from metaformer.core.mixers import Random as Random
    from metaformer.core.mixers import SepConv as SepConv
    from metaformer.core.mixers import SpatialFC as SpatialFC
    from metaformer.core.model import MetaFormer as MetaFormer
    from metaformer.data.checked import Checked as Checked
    from metaformer.data.checked import check_data as check_data
    from metaformer.data.shard import Sharded as Sharded
    from metaformer.data.shard import shard_data as shard_data
    from metaformer.export.export import Exported as Exported
    from metaformer.export.export import export as export
    from metaformer.infer.dense import Asking as Asking
    from metaformer.infer.dense import DensePredictor as DensePredictor
    from metaformer.infer.evaluate import evaluate as evaluate
    from metaformer.infer.fuse import fuse as fuse
    from metaformer.infer.predictor import Prediction as Prediction
    from metaformer.infer.predictor import Predictor as Predictor
    from metaformer.infer.quantize import quantize as quantize
    from metaformer.lab.compare import Comparison as Comparison
    from metaformer.lab.compare import compare as compare
    from metaformer.lab.explain import Explained as Explained
    from metaformer.lab.explain import explain as explain
    from metaformer.lab.inspect import Inspection as Inspection
    from metaformer.lab.inspect import inspect as inspect
    from metaformer.lab.jobs import train as train
    from metaformer.lab.judge import Asked as Asked
    from metaformer.lab.judge import Judgement as Judgement
    from metaformer.lab.judge import judge as judge
    from metaformer.lab.probe import probe as probe
    from metaformer.lab.search import tune as tune
    from metaformer.lab.soup import soup as soup
    from metaformer.lab.study import Row as Row
    from metaformer.lab.study import Study as Study
    from metaformer.lab.study_report import Studied as Studied
    from metaformer.lab.study_report import study as study
    from metaformer.lab.trials import Search as Search
    from metaformer.runs import Run as Run
    from metaformer.weights import timm_models as timm  # noqa: F401  a name for type checkers; see __getattr__
    from metaformer.weights.catalogue import list_weights as list_weights
    from metaformer.weights.create import create_model as create_model
    from metaformer.weights.hub import from_pretrained as from_pretrained
    from metaformer.weights.hub import push_to_hub as push_to_hub
    from metaformer.weights.load import load_weights as load_weights
    from metaformer.weights.pretrained import save_pretrained as save_pretrained
    from metaformer.zoo import list_models as list_models

__version__ = "0.1.0"

_HOME = {
    "core.count": "Count count",
    "core.layers": "BatchNorm GELU GroupNorm LayerNorm LinearHead MLN MLPHead NoNorm ReLU Scale SiLU SquaredReLU StarReLU",
    "core.mixers": "Attention DepthwiseConv Fourier Identity MaxPooling Pooling Random SepConv SpatialFC",
    "core.model": "MetaFormer",
    "core.architecture": "MetaFormerConfig",
    "data.checked": "Checked check_data",
    "data.shard": "Sharded shard_data",
    "export.export": "Exported export",
    "infer.dense": "Asking DensePredictor",
    "infer.evaluate": "evaluate",
    "infer.fuse": "fuse",
    "infer.predictor": "Prediction Predictor",
    "infer.quantize": "quantize",
    "lab.compare": "Comparison compare",
    "lab.explain": "Explained explain",
    "lab.inspect": "Inspection inspect",
    "lab.jobs": "train",
    "lab.judge": "Asked Judgement judge",
    "lab.probe": "probe",
    "lab.search": "tune",
    "lab.soup": "soup",
    "lab.trials": "Search",
    "lab.study": "Row Study",
    "lab.study_report": "Studied study",
    "runs": "Run",
    "weights.catalogue": "list_weights",
    "weights.create": "create_model",
    "weights.hub": "from_pretrained push_to_hub",
    "weights.load": "load_weights",
    "weights.pretrained": "save_pretrained",
    "zoo": "list_models",
}
_WHERE = {name: module for module, names in _HOME.items() for name in names.split()}
__all__ = ["__version__", *_WHERE]


def __getattr__(name: str) -> Any:
    if name == "timm":
        return import_module("metaformer.weights.timm_models")
    if name not in _WHERE:
        raise AttributeError(f"module 'metaformer' has no attribute {name!r}")
    return getattr(import_module(f"metaformer.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """Importing the room `metaformer.train` would put it in the place of the function of that name."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _WHERE or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
