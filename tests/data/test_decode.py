"""Decoding: what a person sees, for every kind of file, or a sentence."""

import csv
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metaformer.data.decode import decode

AWKWARD = Path(__file__).parents[3] / "shared" / "data" / "awkward-images"
F = np.array([[255, 255, 255], [255, 0, 0], [255, 255, 0], [255, 0, 0], [255, 0, 0]], np.uint8)  # like no other turned


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (1, F), (2, F[:, ::-1]), (3, F[::-1, ::-1]), (4, F[::-1]),
        (5, F.T), (6, np.rot90(F)), (7, F[::-1, ::-1].T), (8, np.rot90(F, -1)),
    ],
)  # fmt: skip
def test_exif_orientation(tmp_path: Path, orientation: int, stored: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "f.png", exif=exif)
    assert decode(tmp_path / "f.png", 1)[0, 0].tolist() == F.tolist()


RED_TO_CLEAR = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [255, 0, 0, 51]]], np.uint8)


def test_transparent_parts_become_white(tmp_path: Path) -> None:
    Image.fromarray(RED_TO_CLEAR).save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png", 3)[0, :, 0].T.tolist() == [[255, 0, 0], [255, 255, 255], [255, 204, 204]]
    assert decode(tmp_path / "a.png", 1)[0, 0].tolist() == [[76, 255, 219]]  # 0.299 R + 0.587 G + 0.114 B


def test_palette_with_a_transparent_colour(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    image.save(tmp_path / "opaque.png")
    image.save(tmp_path / "clear.png", transparency=1)
    assert decode(tmp_path / "opaque.png", 3)[0, :, 0].T.tolist() == [[10, 20, 30], [200, 100, 50]]
    assert decode(tmp_path / "clear.png", 3)[0, :, 0].T.tolist() == [[10, 20, 30], [255, 255, 255]]


@pytest.mark.parametrize(
    ("mode", "value", "colour", "grey"),
    [
        ("1", 1, [255, 255, 255], 255),
        ("L", 77, [77, 77, 77], 77),
        ("LA", (0, 0), [255, 255, 255], 255),
        ("I;16", 0x4D00, [77, 77, 77], 77),
        ("CMYK", (0, 255, 255, 0), [255, 0, 0], 76),
        ("RGB", (0, 255, 0), [0, 255, 0], 150),
    ],
)
def test_modes(tmp_path: Path, mode: str, value: int | tuple[int, ...], colour: list[int], grey: int) -> None:
    file = tmp_path / ("a.tif" if mode in ("CMYK", "I;16") else "a.png")
    Image.new(mode, (3, 2), value).save(file)
    assert decode(file, 3).shape == (1, 3, 2, 3)
    assert decode(file, 3).dtype == torch.uint8
    assert decode(str(file), 3)[0, :, 1, 2].tolist() == colour
    assert decode(file, 1).shape == (1, 1, 2, 3)
    assert decode(file, 1)[0, 0, 1, 2].item() == grey


def test_the_first_frame_counts(tmp_path: Path) -> None:
    frames = [Image.new("L", (2, 2), value) for value in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert decode(tmp_path / "a.gif", 1).unique().tolist() == [10]


def test_unreadable_files_say_why(tmp_path: Path) -> None:
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (32, 32), np.uint8)).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:500])
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    for name, reason in (
        ("cut", "cut off: the file ends before its picture does"),
        ("text", "not an image that is read"),
        ("empty", "empty$"),
        ("folder", "not a file$"),
    ):
        with pytest.raises(ValueError, match=rf"{name}\.png: .*{reason}"):
            decode(tmp_path / f"{name}.png", 3)
    with pytest.raises(ValueError, match=r"nothing\.png: no such file$"):
        decode(tmp_path / "nothing.png", 3)


@pytest.mark.parametrize("kind", ["png", "jpg", "gif", "webp", "avif"])
def test_damage_is_a_picture_or_a_sentence(tmp_path: Path, kind: str) -> None:
    file, chance = tmp_path / f"a.{kind}", random.Random(0)
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (16, 16, 3), np.uint8)).save(file)
    sound, said = file.read_bytes(), []
    for _ in range(150):
        raw = bytearray(sound)
        for _ in range(chance.randint(1, 5)):
            raw[chance.randrange(chance.choice([60, len(raw)]))] = chance.randrange(256)
        file.write_bytes(raw)
        try:
            assert decode(file, 3).shape[:2] == (1, 3)
        except ValueError as error:
            said.append(str(error))
    assert said
    assert all(sentence.startswith(f"{file}: ") for sentence in said)


def _awkward() -> list[dict[str, str]]:
    lines = (AWKWARD / "TABLE.tsv").read_text().splitlines()
    return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


@pytest.mark.skipif(not AWKWARD.is_dir(), reason="the awkward images are not there")
def test_awkward_images() -> None:
    rows = _awkward()
    assert len(rows) == 60
    for row in rows:
        file = AWKWARD / "files" / row["file"]
        if not row["pil_default"].startswith("ok"):
            with pytest.raises(ValueError, match=row["file"]):
                decode(file, 3)
        else:
            size = (int(row["height"]), int(row["width"]))
            turned = row["exif_orientation"] in tuple("5678")
            assert decode(file, 3).shape == (1, 3, *(size[::-1] if turned else size)), row["file"]


@pytest.mark.skipif(not AWKWARD.is_dir(), reason="the awkward images are not there")
def test_eight_orientations_are_one_picture() -> None:
    upright = [decode(AWKWARD / "files" / f"exif_orientation_{n}.jpg", 3).float() for n in range(1, 9)]
    for image in upright[2:]:  # the digit that is printed in each differs, and the first is of another brightness
        assert (image - upright[1]).abs().mean() < 8


@pytest.mark.skipif(not AWKWARD.is_dir(), reason="the awkward images are not there")
def test_sixteen_bits_are_scaled() -> None:
    grey = decode(AWKWARD / "files" / "gray16_interlaced.png", 1)
    assert len(grey.unique()) > 20
    assert 20 < grey.float().mean() < 235
