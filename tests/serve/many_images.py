"""Forty images in every form that a job reads, two of them damaged, and a model that tells them apart."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from metaformer import create_model, save_pretrained

COUNT = 40
DAMAGED = (7, 23)


def write_model(folder: Path, seed: int = 0) -> Path:
    """A classifier of five classes for images of 16 pixels."""
    torch.manual_seed(seed)
    model = create_model("identityformer_t6", num_classes=5, dims=(8, 8, 16, 16), depths=(1, 1, 1, 1))
    with torch.no_grad():
        model.head.classifier.fc.weight.mul_(20)  # answers that differ
    preprocess = {"size": 16, "mean": [0.5] * 3, "std": [0.25] * 3, "fit": "crop", "crop_fraction": 0.9}
    save_pretrained(model, folder, {"classes": list("abcde"), "preprocess": preprocess})
    return folder


def contents() -> list[bytes]:
    """The files, in order; of the damaged ones the first half."""
    random, files = np.random.default_rng(0), []
    for i in range(COUNT):
        out = io.BytesIO()
        picture = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((24, 20), Image.Resampling.NEAREST)
        picture.save(out, "PNG")
        files.append(out.getvalue()[: len(out.getvalue()) // 2] if i in DAMAGED else out.getvalue())
    return files


def write_images(folder: Path) -> list[Path]:
    """As files."""
    folder.mkdir(parents=True)
    paths = [folder / f"{i:02d}.png" for i in range(COUNT)]
    for path, raw in zip(paths, contents(), strict=True):
        path.write_bytes(raw)
    return paths


def write_rows(file: Path, *, struct: bool = True, group: int = 16) -> Path:
    """As rows of a Parquet file, in groups."""
    images = [{"bytes": raw, "path": None} for raw in contents()] if struct else contents()
    pq.write_table(pa.table({"image": images}), file, row_group_size=group)
    return file


def write_tar(file: Path, first: int = 0, last: int = COUNT) -> Path:
    """As members of a tar, each with a label beside it."""
    with tarfile.open(file, "w") as archive:
        for i, raw in list(enumerate(contents()))[first:last]:
            for name, content in ((f"{i:02d}.png", raw), (f"{i:02d}.cls", b"3")):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return file


def rows_of(folder: Path) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """All answers of a job and all errors, in the order of its parts."""
    return tuple(  # type: ignore[return-value]
        [row for file in sorted(place.glob("part-*.parquet")) for row in pq.read_table(file).to_pylist()]
        for place in (folder, folder / "errors")
    )
