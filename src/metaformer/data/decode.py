"""Image files → pixels: what a person sees in the first frame, or one line that says why there is nothing to see."""

import logging
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from metaformer.data.preprocess import Pixels
from metaformer.data.shown import DAMAGED, is_grey, shown, shrink

if TYPE_CHECKING:
    from torch import Tensor

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "AVIF")
"""What is opened. The rest of Pillow's formats are rare, run other programs (EPS), or have no signature of their own."""

MEGAPIXELS = 100
"""Most that is decoded of any file; less where a decoder would need more than BUDGET for it."""
BUDGET = 400 * 2**20
"""Most bytes that a decoder may ask for; with what follows, a file never takes more than 512 MiB."""
TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LOCK = threading.Lock()


class UnreadableError(ValueError):
    """Why a file gives no picture, in one line."""


def decode(
    source: str | Path | bytes | Image.Image, channels: int, name: str | None = None, *, least: int | None = None
) -> "Tensor":
    """(1, channels, H, W) as uint8: `decode_array` for those who work in torch."""
    import torch

    return torch.from_numpy(decode_array(source, channels, name, least=least)).permute(2, 0, 1)[None]


def decode_array(
    source: str | Path | bytes | Image.Image,
    channels: int,
    name: str | None = None,
    *,
    least: int | None = None,
    most: int | None = None,
) -> Pixels:
    """(H, W, channels) as uint8. `channels` is 1 for grey or 3 for colour; `source` is a file, its bytes or a picture.

    The first frame, turned as its EXIF or XMP says, on white where it is transparent; CMYK by its colour profile. Grey of
    16 bits is scaled by the fewest of 8, 10, 12, 14 or 16 bits that hold its greatest value, numbers of other kinds by
    their own range. Pictures over 16 megapixels come out smaller by a whole number. With `least`, a JPEG is read at a
    half, a quarter or an eighth as long as both sides keep `least` pixels, which is several times faster. `most` is how many
    pixels a file may have, where that is fewer than are decoded of any.

    Raises ValueError, "name: reason" in one line: no such file, not an image, cut off, damaged, too large (its header
    says so before anything is decoded). `name` is what to call it. Never warns; needs less than 512 MiB.
    """
    try:
        pixels = np.array(see(source, least=least, most=most).convert("L" if channels == 1 else "RGB"))
    except ValueError as error:
        called = name if name is not None else str(source) if isinstance(source, str | Path) else "image"
        raise ValueError(f"{called}: {error}") from error
    return pixels.reshape(*pixels.shape[:2], channels)


def see(source: str | Path | bytes | Image.Image, *, least: int | None = None, most: int | None = None) -> Image.Image:
    """The upright picture, of mode L if it is grey, else RGB. Raises ValueError with the reason alone; see `decode`."""
    if isinstance(source, Image.Image):
        with _named():
            return _upright(source)
    with _file(source) as file:
        image = _opened(file, most)
        if image.format in ("JPEG", "MPO") and (least is not None or shrink(image.size) > 1):
            image.draft(None, _wanted(image.size, least))
        return _upright(image)


def _upright(image: Image.Image) -> Image.Image:
    turn = _turned(image)
    seen = shown(image)
    return seen if turn is None else seen.transpose(turn)


def plain_jpeg(source: Path | bytes, channels: int) -> tuple[bytes, int, int] | None:
    """Bytes, height and width of a JPEG that `decode` would give as it is stored, and that ends as it should; else None."""
    try:
        with _file(source) as file:
            data = source if isinstance(source, bytes) else file.read()
            image = _opened(BytesIO(data))
            plain = image.format == "JPEG" and (image.mode == "L" or (image.mode == "RGB" and channels == 3))
            if not plain or shrink(image.size) > 1 or _orientation(image) is not None:
                return None
    except UnreadableError:
        return None
    return (data, image.height, image.width) if b"\xff\xd9" in data[-12:] else None


def header(source: Path | bytes) -> tuple[tuple[int, int], bool, bool]:
    """What a header tells: (width, height) as stored, whether it is grey, and whether the file ends as it should.

    Decodes nothing. Raises ValueError with the reason alone, as `see` does.
    """
    with _file(source) as file:
        image = _opened(file)
        file.seek(-min(12, file.seek(0, 2)), 2)
        end = {"JPEG": b"\xff\xd9", "PNG": b"IEND", "GIF": b"\x3b"}.get(image.format or "", b"")
        return image.size, is_grey(image), end in file.read()


def orientation(source: Path | bytes) -> tuple[tuple[int, int], Image.Transpose | None]:
    """(width, height) as stored, and how `see` turns the picture, from its header. Raises ValueError with the reason alone."""
    with _file(source) as file:
        image = _opened(file)
        early = image.format in ("JPEG", "MPO", "WEBP", "TIFF") or "exif" in image.info  # others would have to be decoded
        return image.size, _orientation(image) if early else None


def stored(source: Path | bytes) -> NDArray[Any]:
    """The numbers of a file as they are stored: (H, W) of grey or of places in a palette, else (H, W, 3) of colours.

    Raises ValueError with the reason alone, as `see` does.
    """
    with _file(source) as file:
        image = _opened(file)
        plain = image.mode in ("1", "L", "P", "I") or image.mode.startswith("I;16")
        pixels = np.asarray(image.getchannel(0) if image.mode in ("LA", "PA") else image if plain else image.convert("RGB"))
        return pixels.astype(np.uint8) if pixels.dtype == np.bool_ else pixels


@contextmanager
def _file(source: str | Path | bytes) -> Iterator[BinaryIO]:
    """The open file. What goes wrong with it, here or in what is done with it, becomes UnreadableError."""
    with _named():
        if not isinstance(source, bytes) and not stat.S_ISREG(Path(source).stat().st_mode):  # a pipe would hang
            raise UnreadableError("not a file")
        with BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb") as file:
            yield file


@contextmanager
def _named() -> Iterator[None]:
    """What goes wrong with a picture becomes UnreadableError, with the reason."""
    try:
        yield
    except UnreadableError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise UnreadableError("no such file") from None
    except PermissionError:
        raise UnreadableError("may not be read") from None
    except (*DAMAGED, MemoryError) as error:
        raise UnreadableError(_reason(error)) from error


@contextmanager
def _hushed() -> Iterator[None]:
    """No warnings: what Pillow wonders about in a file is either harmless or an error soon. One thread at a time, because
    filters and loggers belong to the process; little more than headers is read here, so little waits."""
    log = logging.getLogger("PIL.TiffImagePlugin")
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, log.disabled = log.disabled, True
        try:
            yield
        finally:
            log.disabled = before


def _opened(file: BinaryIO, asked: int | None = None) -> Image.Image:
    """The image with its header read. Raises UnreadableError if it is none, or if decoding it would take too much."""
    try:
        with _hushed():
            image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        raise UnreadableError(_unknown(file)) from None
    width, height = image.size
    most = min(MEGAPIXELS * 10**6, int(BUDGET / _bytes_per_pixel(image)), MEGAPIXELS * 10**6 if asked is None else asked)
    if width * height > most:
        raise UnreadableError(_too_large(f"{width} × {height} pixels", most))
    return image


def _too_large(size: str, most: int) -> str:
    number = f"{most // 10**6} million" if most >= 10**6 else f"{most:,}"
    return f"too large: {size}, of which at most {number} are read"


def _bytes_per_pixel(image: Image.Image) -> float:
    """What a decoder takes at its worst, measured: tests/data/test_decode.py."""
    own = {"1": 1, "L": 1, "P": 1}.get(image.mode, 2 if image.mode.startswith("I;16") else 4)
    if image.format in ("JPEG", "MPO"):  # several scans: the coefficients of the whole image, two bytes each
        layers = [(h, v) for _, h, v, _ in getattr(image, "layer", [])]
        most = max((h for h, _ in layers), default=1) * max((v for _, v in layers), default=1)
        return min(8.0, 2 * sum(h * v for h, v in layers) / max(most, 1))
    return {"WEBP": 16, "AVIF": 16, "TIFF": 2 * own}.get(image.format or "", own)


def _wanted(size: tuple[int, int], least: int | None) -> tuple[int, int]:
    """Sides that a JPEG is at least read at."""
    scale = shrink(size)
    wide, high = -(-size[0] // scale), -(-size[1] // scale)
    return (wide, high) if least is None else (min(wide, least), min(high, least))


def _turned(image: Image.Image) -> Image.Transpose | None:
    """Loads the pixels and says how to turn them. A damaged EXIF block says nothing."""
    if image.format != "TIFF":  # which reads its EXIF at the end of loading
        image.load()
        return _orientation(image)
    with _hushed():
        image.load()
    return _orientation(image)


def _orientation(image: Image.Image) -> Image.Transpose | None:
    if image.format != "TIFF" and not image.info.keys() & {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}:
        return None
    with _hushed():
        try:
            return TURN.get(image.getexif().get(0x0112, 1))
        except DAMAGED:
            return None


def _unknown(file: BinaryIO) -> str:
    """Why Pillow does not know a file."""
    file.seek(0)
    start = file.read(64)
    if not start:
        return "empty"
    if start[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypmsf1", b"ftyphevc"):
        return "HEIC, which is not read: save it as JPEG"
    if start.lstrip()[:5].lower() in (b"<!doc", b"<html", b"<?xml", b"<svg "):
        return "not an image but a page or drawing as text"
    return f"not an image that is read ({', '.join(FORMATS)}), or its start is damaged"


def _reason(error: BaseException) -> str:
    """One line on what is wrong with a file, from what a parser raised."""
    said = " ".join(str(error).split())[:160] or type(error).__name__
    if isinstance(error, MemoryError):
        return "too large for this machine's memory"
    if isinstance(error, Image.DecompressionBombError):
        count = re.search(r"\((\d+) pixels\)", said)
        return _too_large(f"{int(count[1]) // 10**6:,} million pixels" if count else "its header says", MEGAPIXELS * 10**6)
    if "MAX_TEXT" in said:
        return "refused: a text in it inflates to far more than a picture's notes"
    if "truncated" in said.lower() or isinstance(error, EOFError):
        return f"cut off: the file ends before its picture does ({said})"
    return f"damaged ({said})"
