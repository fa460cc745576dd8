"""One image → what a check keeps of it: some 1,200 bytes, and what is wrong with it. No torch, so that workers start fast."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from metaformer.data.decode import see
from metaformer.data.preprocess import Pixels

SIDE, TONES = 32, 8
"""Pixels a side of the grey picture that is kept, and of its two colours."""
SHOT = 128
"""Longest side of a preview, in pixels."""
RECORD = np.dtype([
    ("readable", "?"), ("width", "u4"), ("height", "u4"), ("file", "u8", 2), ("pixels", "u8", 2),
    ("moments", "f4", (2, 3)), ("grey", "u1", (SIDE, SIDE)), ("tones", "u1", (TONES, TONES, 2)),
])  # fmt: skip
"""Hashes of the file and of its picture; mean and mean square of each channel, of 0 to 1; the picture, small."""
UNREADABLE, TRUNCATED, MISNAMED = "unreadable", "truncated", "misnamed"
"""What can be wrong with a file."""

SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), "PNG": (".png",), "GIF": (".gif",), "BMP": (".bmp",),
    "WebP": (".webp",), "TIFF": (".tif", ".tiff"), "AVIF": (".avif",), "HEIC": (".heic", ".heif"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}  # fmt: skip
"""What files of a format are called, the usual suffix first."""


@dataclass
class Looked:
    """What was found in some images, numbered from 0."""

    records: NDArray[np.void]
    problems: list[tuple[int, str, str]] = field(default_factory=list)
    """Number, what is wrong, and the words for it."""
    shots: dict[int, bytes] = field(default_factory=dict)


def look(items: Sequence[Path | bytes | Pixels], shown: Collection[int] = ()) -> Looked:
    """Decodes each image once; of those `shown` a preview is kept."""
    found = Looked(np.zeros(len(items), RECORD))
    for i, item in enumerate(items):
        try:
            image = _seen(i, item, found)
        except ValueError as error:
            said = str(error)
            found.problems.append((i, TRUNCATED if said.startswith("cut off") else UNREADABLE, said))
            continue
        _measure(image, found.records[i])
        if i in shown:
            found.shots[i] = shot(image)
    return found


def _seen(i: int, item: Path | bytes | Pixels, found: Looked) -> Image.Image:
    """The picture; its file's hash, and whether the file is named after another format, are noted."""
    if isinstance(item, np.ndarray):
        return Image.fromarray(item)
    if isinstance(item, Path) and not item.is_file():
        return see(item)  # which says why not
    try:
        raw = item if isinstance(item, bytes) else item.read_bytes()
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
    found.records[i]["file"] = _digest(raw)
    kind = format_of(raw)
    if isinstance(item, Path) and kind and item.suffix.lower() not in SUFFIXES[kind]:
        found.problems.append((i, MISNAMED, f"{kind}, though it is named {item.suffix}"))
    return see(raw)


def format_of(raw: bytes) -> str:
    """The format that a file's first bytes tell; empty for others."""
    for start, name in ((b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"), (b"GIF8", "GIF"), (b"BM", "BMP"),
                        (b"II*\0", "TIFF"), (b"MM\0*", "TIFF")):  # fmt: skip
        if raw.startswith(start):
            return name
    if raw[:4] == b"RIFF" and raw[8:12] == b"WEBP":
        return "WebP"
    if raw[4:8] == b"ftyp":
        return {b"avif": "AVIF", b"avis": "AVIF"}.get(raw[8:12], "HEIC" if raw[8:11] in (b"hei", b"hev", b"mif") else "")
    return "PPM" if raw[:1] == b"P" and raw[1:2] in b"123456" and raw[2:3].isspace() else ""


def _measure(image: Image.Image, record: np.void) -> None:
    record["readable"], record["width"], record["height"] = True, image.width, image.height
    record["pixels"] = _digest(f"{image.mode} {image.width} ".encode() + image.tobytes())
    record["moments"] = moments(image)
    small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR).convert("YCbCr")
    record["grey"] = np.asarray(small)[..., 0]
    record["tones"] = np.asarray(small.reduce(SIDE // TONES))[..., 1:]


def moments(image: Image.Image) -> NDArray[np.float64]:
    """Mean and mean square of each of three channels, (2, 3), in units of 0 to 1."""
    counts = np.array(image.histogram(), dtype=np.float64).reshape(-1, 256) / (image.width * image.height)
    values = np.arange(256) / 255
    return np.broadcast_to(np.stack([counts @ values, counts @ values**2]), (2, 3))


def _digest(raw: bytes) -> NDArray[np.uint64]:
    return np.frombuffer(hashlib.sha256(raw).digest()[:16], np.uint64)


def shot(image: Image.Image) -> bytes:
    """A small picture of a picture: PNG where that is how it is stored best, else JPEG."""
    small = image.copy()
    small.thumbnail((SHOT, SHOT))
    file = BytesIO()
    small.save(file, "png" if max(small.size) <= SHOT // 2 else "jpeg", quality=80)
    return file.getvalue()
