"""What records of all kinds share. Without torch."""

from io import BytesIO
from pathlib import Path

from PIL import Image


def shown_source(source: str) -> str:
    """What others may know of where a model comes from: no folder of this machine."""
    return source if source.startswith("hf:") else Path(source).name


def why(error: ValueError) -> str:
    """What decoding says of an image that was not given a name."""
    return str(error).removeprefix("image: ")


def png(picture: Image.Image) -> bytes:
    """The bytes of a PNG, packed quickly rather than small."""
    file = BytesIO()
    picture.save(file, "png", compress_level=1)
    return file.getvalue()
