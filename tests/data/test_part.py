"""Decoding a part: the bytes that cutting it out of the whole picture would give, whatever the file, whoever decodes."""

import io
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.photos import photo
from torch import Tensor

from metaformer.data import part as module
from metaformer.data.augment import View
from metaformer.data.decode import decode
from metaformer.data.loader import Feed
from metaformer.data.part import Box, decode_part
from metaformer.data.preprocess import Preprocess
from metaformer.data.splits import Encoded

SAMPLE = Path(__file__).parents[3] / "shared" / "data" / "imagenet-sample-200"
AWKWARD = SAMPLE.with_name("awkward-images") / "files"
NAMES = {"simplejpeg", "pillow"}


@pytest.fixture(params=sorted(NAMES))
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who decodes."""
    if request.param == "pillow":
        monkeypatch.setattr(module, "faster", lambda: None)
    else:
        pytest.importorskip("simplejpeg")
    return request.param


def boxes(height: int, width: int) -> list[Box]:
    """The whole, the corners, the last row, and some that are drawn."""
    draw = random.Random(height * width)
    found = [(0, 0, height, width), (0, 0, 1, 1), (height - 1, 0, 1, width), (0, width - 1, height // 2, 1)]
    for _ in range(4):
        high, wide = draw.randint(1, height), draw.randint(1, width)
        found.append((draw.randint(0, height - high), draw.randint(0, width - wide), high, wide))
    return found


def same(source: Path | bytes, channels: int) -> None:
    """Asserts that every part is what is cut out of the whole."""
    whole = decode(source, channels)[0]
    for top, left, high, wide in boxes(*whole.shape[1:]):
        seen = decode_part(source, channels, "x", lambda *_, box=(top, left, high, wide): box)
        assert torch.equal(seen, whole[:, top : top + high, left : left + wide]), (top, left, high, wide)


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_part_is_cut_out_of_the_whole(tmp_path: Path, subsampling: int, progressive: bool, mode: str) -> None:
    image = Image.open(photo(tmp_path / "noise.png", size=(75, 131))).convert(mode)
    image.save(tmp_path / "a.jpg", quality=90, subsampling=subsampling, progressive=progressive)
    for channels in (1, 3):
        same(tmp_path / "a.jpg", channels)
        same((tmp_path / "a.jpg").read_bytes(), channels)


@pytest.mark.usefixtures("decoder")
def test_a_part_of_other_files_too(tmp_path: Path) -> None:
    same(photo(tmp_path / "a.png"), 3)
    image, exif = Image.open(tmp_path / "a.png"), Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    image.save(tmp_path / "restarts.jpg", restart_marker_rows=1)
    for name in ("turned.jpg", "restarts.jpg"):
        same(tmp_path / name, 3)


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="no sample of ImageNet")
@pytest.mark.usefixtures("decoder")
def test_crops_of_photographs_keep_their_bytes() -> None:
    view = View(Preprocess(64, (0.5,) * 3, (0.5,) * 3), 0.08, None, 0)
    paths = sorted(SAMPLE.glob("*.JPEG"))[::8]
    split = Encoded(paths, torch.zeros(len(paths)), 3)
    feed = Feed(split, view.preprocess, view)
    for sample in range(len(paths)):
        assert torch.equal(feed.__getitems__([(5, sample, sample)])[0][0], view(split.image(sample), 5, sample)), sample


def test_rows_below_are_not_decoded(decoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (640, 64, 3), np.uint8)).save(file, "JPEG")
    data, rows = file.getvalue(), []
    lower = module._lower
    monkeypatch.setattr(module, "_lower", lambda *given: rows.append(given[2]) or lower(*given))
    damaged = data[:-2000] + bytes(1998) + data[-2:]
    top = decode_part(damaged, 3, "x", lambda *_: (16, 0, 100, 64))
    assert torch.equal(top, decode(data, 3)[0, :, 16:116])
    assert rows == [120]


@pytest.mark.usefixtures("decoder")
def test_what_is_cut_off_is_refused_wherever_one_looks(tmp_path: Path) -> None:
    data = photo(tmp_path / "a.jpg", size=(64, 640)).read_bytes()
    for source in (data[: len(data) // 2], data[:-40], b"", b"\xff\xd8\xff\xd9", tmp_path / "none.jpg"):
        with pytest.raises(ValueError, match=r"^it: "):
            decode_part(source, 3, "it", lambda *_: (0, 0, 10, 10))


@pytest.mark.usefixtures("decoder")
def test_damage_at_random_never_ends_otherwise(tmp_path: Path) -> None:
    data, draw = photo(tmp_path / "a.jpg", size=(40, 60)).read_bytes(), random.Random(0)
    for _ in range(150):
        changed = bytearray(data)
        for _ in range(draw.randint(1, 4)):
            changed[draw.randrange(2, len(data) if draw.random() < 0.5 else 400)] = draw.randrange(256)
        said = ""
        try:
            assert decode_part(bytes(changed), 3, "it", lambda high, wide: (0, 0, max(1, high // 2), wide)).dtype == torch.uint8
        except ValueError as error:
            said = str(error)
        assert not said or said.startswith("it: ")


@pytest.mark.skipif(not AWKWARD.is_dir(), reason="no awkward images")
@pytest.mark.usefixtures("decoder")
def test_awkward_files_are_read_or_refused_as_ever() -> None:
    def outcome(read: Callable[[], Tensor]) -> object:
        try:
            return read().tolist()
        except ValueError as error:
            return str(error)

    for path in sorted(path for path in AWKWARD.iterdir() if path.suffix.lower() in (".jpg", ".jpeg")):
        seen = outcome(
            lambda path=path: decode_part(path, 3, str(path), lambda high, wide: (0, 0, min(high, 50), min(wide, 50)))
        )
        assert seen == outcome(lambda path=path: decode(path, 3)[0, :, :50, :50]), path
