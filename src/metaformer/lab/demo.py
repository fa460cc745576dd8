"""Image files for the demo."""

from pathlib import Path

from PIL import Image

from metaformer.data.sources import open_data


def sample_digits(folder: Path, count: int = 10) -> list[Path]:
    """Writes `count` held-out digits as PNG files, named by what they show, and returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    val = open_data("digits").val
    paths = []
    for i, (pixels, label) in enumerate(zip(val.pixels[:count], val.labels[:count].tolist(), strict=True)):
        paths.append(folder / f"{i:02d}-is-{label}.png")
        Image.fromarray(pixels[0].numpy()).save(paths[-1])
    return paths
