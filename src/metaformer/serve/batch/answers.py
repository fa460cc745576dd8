"""What answers images with rows of a table: classes, vectors, or what is found."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from metaformer.infer.exported import is_exported
from metaformer.infer.output import cells, columns
from metaformer.infer.predictor import Prediction, Predictor
from metaformer.serve.batch.work import Work

if TYPE_CHECKING:
    import pyarrow as pa

    from metaformer.infer.dense import Asking, DensePredictor
    from metaformer.infer.embed import Embedder

BATCH, GPU_BATCH = 32, 128
"""Images that a model is given at once."""


class Answerer(Protocol):
    """Answers fitted images with rows of a table."""

    schema: "pa.Schema"
    batch: int
    """Images that it is given at once."""

    def fit(self, image: Path | bytes) -> Any:
        """An image as the model takes it. Raises ValueError with why it cannot be read."""
        ...

    def answer(self, names: list[str], fitted: list[Any]) -> "pa.RecordBatch":
        """A row for each."""
        ...


def open_answerer(work: Work) -> Answerer:
    """The model, opened for what is asked of it."""
    if work.asking is not None:
        from metaformer.infer.dense import DensePredictor

        threads = work.threads if is_exported(work.source) else None  # torch's own are the process's
        dense = DensePredictor(work.source, work.engine, device=work.device, precision=work.precision, threads=threads)
        return Finds(dense, work.asking)
    engine = "torch" if work.verb == "embed" and not is_exported(work.source) else work.engine
    predictor = Predictor(
        work.source, engine, device=work.device, precision=work.precision, threads=work.threads, streams=work.streams
    )
    if work.verb == "predict":
        return Labels(predictor, work.top)
    from metaformer.infer.embed import Embedder

    return Vectors(predictor, Embedder(predictor))


def _batch(predictor: Predictor) -> int:
    """How many images keep a model busy."""
    on_gpu = predictor.model is not None and next(predictor.model.parameters()).device.type != "cpu"
    return GPU_BATCH if on_gpu else BATCH


class Labels:
    """A classifier's answers, as `metaformer predict --out FILE.parquet` writes them."""

    def __init__(self, predictor: Predictor, top: int) -> None:
        import pyarrow as pa

        self.predictor, self.top, self.batch = predictor, top, _batch(predictor)
        most = len(predictor.classes) if predictor.several else min(top, len(predictor.classes))
        kinds = {str: pa.string(), float: pa.float64()}
        self.schema = pa.schema([(name, kinds[kind]) for name, kind in columns(most).items() if name != "error"])

    def fit(self, image: Path | bytes) -> Any:
        """(C, size, size) of bytes."""
        return self.predictor.fitted(image)

    def answer(self, names: list[str], fitted: list[Any]) -> "pa.RecordBatch":
        """A row for each: the best class, and the next ones."""
        import pyarrow as pa

        answers = self.predictor.labels(np.stack(fitted), self.top)
        rows = [cells(Prediction(name, tuple(top))) for name, top in zip(names, answers, strict=True)]
        return pa.RecordBatch.from_pylist(rows, schema=self.schema)


class Vectors:
    """What `metaformer embed` writes: a name and a vector."""

    def __init__(self, predictor: Predictor, embedder: "Embedder") -> None:
        import pyarrow as pa

        self.predictor, self.embedder, self.batch = predictor, embedder, _batch(predictor)
        self.schema = pa.schema([("path", pa.string()), ("vector", pa.list_(pa.float32(), embedder.dimensions))])

    def fit(self, image: Path | bytes) -> Any:
        """(C, size, size) of bytes."""
        return self.predictor.fitted(image)

    def answer(self, names: list[str], fitted: list[Any]) -> "pa.RecordBatch":
        """A row for each."""
        import pyarrow as pa

        vectors = pa.FixedSizeListArray.from_arrays(self.embedder.embed(np.stack(fitted)).ravel(), self.embedder.dimensions)
        return pa.record_batch([pa.array(names), vectors], schema=self.schema)


class Finds:
    """What is found in images: the records of `metaformer predict --json`, as text."""

    def __init__(self, predictor: "DensePredictor", asking: "Asking") -> None:
        import pyarrow as pa

        from metaformer.infer.results import Names

        self.predictor, self.asking, self.batch = predictor, asking, 1
        self.names = Names(predictor.classes, predictor.numbers)
        self.schema = pa.schema([("path", pa.string()), ("record", pa.string())])

    def fit(self, image: Path | bytes) -> Any:
        """(3, H, W) of bytes."""
        from metaformer.infer.given import pixels_of

        return pixels_of(image, 3).transpose(2, 0, 1)

    def answer(self, names: list[str], fitted: list[Any]) -> "pa.RecordBatch":
        """A row for each."""
        import pyarrow as pa
        import torch

        from metaformer.infer.results import record

        found = [self.predictor.ask(torch.from_numpy(one), name, self.asking) for name, one in zip(names, fitted, strict=True)]
        return pa.record_batch([names, [json.dumps(record(one, self.names)) for one in found]], schema=self.schema)
