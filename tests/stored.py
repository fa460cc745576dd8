"""The same images in every format that data may be stored in, and a server on this machine that has them."""

import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from tests.hub import Hub, serving

CLASSES = ("ants", "bees", "cats")
COUNTS = {"train": 23, "val": 7}


def picture(part: str, i: int) -> bytes:
    """A PNG of 66×65 pixels, so that it stays encoded; all are of the value that tells them apart."""
    value = i + (100 if part == "val" else 0)
    out = io.BytesIO()
    Image.fromarray(np.full((65, 66, 3), value, np.uint8)).save(out, "png")
    return out.getvalue()


def label(i: int) -> int:
    """The number of the class of image i."""
    return i % 3


def write_tar(file: Path, members: dict[str, bytes]) -> Path:
    """A tar with members of these names."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file


def write_tars(root: Path, each: int = 6) -> Path:
    """Shards of `each` images in WebDataset's layout, train-000000.tar and so on, with classes.json."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "classes.json").write_text(json.dumps(CLASSES))
    for part, count in COUNTS.items():
        for shard, first in enumerate(range(0, count, each)):
            members: dict[str, bytes] = {}
            for i in range(first, min(count, first + each)):
                members |= {f"{i:06d}.png": picture(part, i), f"{i:06d}.cls": str(label(i)).encode()}
            write_tar(root / f"{part}-{shard:06d}.tar", members)
    return root


def write_parquets(root: Path, each: int = 6) -> Path:
    """The same as Parquet files, as Hugging Face writes them."""
    root.mkdir(parents=True, exist_ok=True)
    features = {"label": {"names": CLASSES, "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    for part, count in COUNTS.items():
        shards = range(0, count, each)
        for shard, first in enumerate(shards):
            numbers = range(first, min(count, first + each))
            images = [{"bytes": picture(part, i), "path": f"{i}.png"} for i in numbers]
            table = pa.table({"image": images, "label": [label(i) for i in numbers]}).replace_schema_metadata(about)
            pq.write_table(table, root / f"{part}-{shard:05d}-of-{len(shards):05d}.parquet", row_group_size=4)
    return root


def write_table(root: Path) -> Path:
    """The same as files, and a CSV that names them."""
    lines = ["path,label,split"]
    for part, count in COUNTS.items():
        (root / part).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            (root / part / f"{i}.png").write_bytes(picture(part, i))
            lines.append(f"{part}/{i}.png,{CLASSES[label(i)]},{part}")
    (root / "all.csv").write_text("\n".join(lines) + "\n")
    return root / "all.csv"


@contextmanager
def on_the_web(root: Path) -> Iterator[Hub]:
    """A server that has the files of a folder."""
    with serving() as hub:
        hub.files = {file.relative_to(root).as_posix(): file.read_bytes() for file in root.rglob("*") if file.is_file()}
        yield hub
