"""Image files for the demo."""

from pathlib import Path

from PIL import Image

from metaformer.data.sources import open_data


def sample_digits(folder: Path, count: int = 10) -> list[Path]:
    """Writes `count` held-out digits as PNG files, named by what they show, and returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    val = open_data("digits").val
    paths = []
    for i, label in enumerate(val.labels[:count].tolist()):
        paths.append(folder / f"{i:02d}-is-{label}.png")
        Image.fromarray(val.image(i)[0].numpy()).save(paths[-1])
    return paths
