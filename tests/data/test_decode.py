"""Decoding: what a person sees, for every kind of file, or a sentence."""

import csv
import io
import os
import random
import re
import subprocess
import sys
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from tests.photos import photo

from metaformer.data import shown as module
from metaformer.data.decode import decode, decode_array, header, see

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


def test_grey_of_sixteen_bits_with_a_transparent_value(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 300, 65535]], np.uint16)).save(tmp_path / "a.png", transparency=0)
    assert decode(tmp_path / "a.png", 3)[0, 0, 0].tolist() == [255, 1, 255]


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


there = pytest.mark.skipif(not AWKWARD.is_dir(), reason="the awkward images are not there")
REASONS = {  # of the thirteen that give no picture
    "truncated_baseline.jpg": "cut off: the file ends before its picture does",
    "truncated_progressive.jpg": "cut off: the file ends before its picture does",
    "truncated_in_the_wild.jpg": "cut off: the file ends before its picture does",
    "truncated.png": "cut off: the file ends before its picture does",
    "truncated_end_chunk.png": "cut off: the file ends before its picture does",
    "corrupt_header.jpg": "cut off: the file ends before its picture does",
    "broken_data_stream.png": "damaged (unrecognized data stream contents when reading image file)",
    "giant_20000x14000.jpg": "too large: 280 million pixels, of which at most 100 million are read",
    "giant_65536x65536.png": "too large: 4,294 million pixels, of which at most 100 million are read",
    "bomb_65535x66601.gif": "too large: 4,364 million pixels, of which at most 100 million are read",
    "text_chunk_bomb.png": "refused: a text in it inflates to far more than a picture's notes",
    "zero_width.gif": "not an image that is read (JPEG, PNG, GIF, BMP, PPM, WEBP, TIFF, AVIF), or its start is damaged",
    "hevc.heif": "HEIC, which is not read: save it as JPEG",
}


@there
def test_all_sixty_are_in_the_table() -> None:
    rows = _awkward()
    assert {row["file"] for row in rows} == {file.name for file in (AWKWARD / "files").iterdir()}
    assert len(rows) == 60
    assert {row["file"] for row in rows if not row["pil_default"].startswith("ok")} == set(REASONS)


@there
@pytest.mark.parametrize("row", _awkward() if AWKWARD.is_dir() else [], ids=lambda row: row["file"])
def test_awkward(row: dict[str, str]) -> None:
    file = AWKWARD / "files" / row["file"]
    before, start = list(warnings.filters), time.monotonic()
    if row["file"] in REASONS:
        with pytest.raises(ValueError, match="^" + re.escape(f"{file}: {REASONS[row['file']]}")) as caught:
            decode(file, 3)
        assert "\n" not in str(caught.value)
        with pytest.raises(ValueError, match=re.escape(REASONS[row["file"]])):
            decode(file.read_bytes(), 3, "x")
    else:
        size = (int(row["height"]), int(row["width"]))
        pixels = decode(file, 3)
        assert pixels.shape == (1, 3, *(size[::-1] if row["exif_orientation"] in tuple("5678") else size))
        assert torch.equal(decode(file.read_bytes(), 3), pixels)
        assert (see(file).mode == "L") == (row["mode"] in ("L", "LA", "I;16", "1"))
    assert time.monotonic() - start < 4
    assert warnings.filters == before


@there
def test_eight_orientations_are_one_picture() -> None:
    upright = [decode(AWKWARD / "files" / f"exif_orientation_{n}.jpg", 3).float() for n in range(1, 9)]
    for image in upright[2:]:  # the digit that is printed in each differs, and the first is of another brightness
        assert (image - upright[1]).abs().mean() < 8
        assert (image.flip(3) - upright[1]).abs().mean() > 40


@there
def test_orientation_from_other_places() -> None:
    files = AWKWARD / "files"
    for name in ("exif_orientation_3_rawprofile.png", "orientation_3_xmp_only.png"):
        stored = Image.open(files / name).convert("RGBA")
        white = Image.alpha_composite(Image.new("RGBA", stored.size, "white"), stored).convert("RGB")
        expected = np.asarray(white.rotate(180)).transpose(2, 0, 1)
        assert np.array_equal(decode(files / name, 3)[0], expected), name
    wide = decode(files / "rotated_mirrored.avif", 3)[0].float()
    sky, ground = wide[:, :80].mean((1, 2)), wide[:, -80:].mean((1, 2))
    assert sky[2] > 150 > ground[2]  # upright as its own letters say: blue above, grass below


@there
@pytest.mark.parametrize(
    ("name", "clear", "place"),
    [
        ("gray16_trns.png", 0.1, (32, 32)), ("palette_alpha.png", 0.3, (5, 5)), ("palette_fully_transparent.png", 1, (9, 9)),
        ("palette_single_trns.png", 0.2, (32, 32)), ("rgb_trns.png", 0.2, (32, 32)), ("gray_alpha.png", 0.3, (2, 2)),
        ("animated.png", 0.3, (2, 2)), ("animated_transparent.gif", 0.2, (0, 0)), ("alpha.webp", 0.2, (0, 0)),
        ("rgba16.png", 0.02, (0, 0)), ("orientation_3_xmp_only.png", 0.2, (5, 5)), ("palette_2bit_alpha.png", 0.2, (2, 2)),
    ],
)  # fmt: skip
def test_what_is_transparent_is_white(name: str, clear: float, place: tuple[int, int]) -> None:
    pixels = decode(AWKWARD / "files" / name, 3)[0]
    assert pixels[:, place[0], place[1]].tolist() == [255, 255, 255]
    assert (pixels.amin(0) == 255).float().mean() >= clear


@there
def test_inks() -> None:
    """Without a profile as Pillow converts them; with one as it says, which is duller and what a person sees."""
    plain, managed = (AWKWARD / "files" / f"cmyk_{name}.jpg" for name in ("no_icc", "with_icc"))
    assert np.array_equal(decode(plain, 3)[0].permute(1, 2, 0), np.asarray(Image.open(plain).convert("RGB")))
    with Image.open(managed) as image:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        expected = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert np.array_equal(decode(managed, 3)[0].permute(1, 2, 0), np.asarray(expected))
    bright = [decode(file, 3).float() for file in (plain, managed)]
    colourful = [(image.amax(1) - image.amin(1)).mean() for image in bright]
    assert colourful[0] > 1.5 * colourful[1]


@there
def test_sixteen_bits() -> None:
    files = AWKWARD / "files"
    for name, most in (("gray16_interlaced.png", 65535), ("gray16.tif", 1023)):  # the second one goes from 291 to 694
        stored = np.asarray(Image.open(files / name)).astype(float)
        assert np.abs(decode(files / name, 1)[0, 0].numpy() - stored * 255 / most).max() <= 0.5
    assert decode(files / "rgb16_900x600.png", 3)[0, :, 10, 10].tolist() == [174, 28, 40]  # the red of the Netherlands' flag


def test_numbers_of_other_kinds(tmp_path: Path) -> None:
    def shown(values: list[float], kind: type) -> list[int]:
        Image.fromarray(np.array([values], kind)).save(tmp_path / "a.tif")
        return decode(tmp_path / "a.tif", 1)[0, 0, 0].tolist()

    assert shown([0, 2048, 4095], np.uint16) == [0, 128, 255]
    assert shown([0, 100, 255], np.uint16) == [0, 100, 255]
    assert shown([0, 32768, 65535], np.int32) == [0, 128, 255]
    assert shown([-100, 0, 100], np.int32) == [0, 128, 255]
    assert shown([0, 0.5, 1], np.float32) == [0, 128, 255]
    assert shown([0, 128, 255], np.float32) == [0, 128, 255]
    assert shown([-1, 0, 1], np.float32) == [0, 128, 255]
    assert shown([0, np.nan, 1], np.float32) == [0, 0, 255]
    assert shown([7, 7, 7], np.int32) == [7, 7, 7]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I;16", "F", "LAB"])
def test_large_pictures_are_shrunk_by_a_whole_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    noise = np.random.RandomState(0).randint(0, 256, (401, 203, 4), np.uint8)
    noise[:, :, 3] |= 128
    image = Image.fromarray(noise)
    if mode in ("LAB", "CMYK", "RGB", "L", "1"):
        image = image.convert("RGB")
    if mode == "I;16":
        image = Image.fromarray(noise[:, :, 0].astype(np.uint16) * 257)
    elif mode == "LAB":
        image = ImageCms.profileToProfile(
            image, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
        )
    elif mode == "PA":
        image = image.convert("RGB").quantize(200)
        image.info["transparency"] = bytes(range(55, 255))
    else:
        image = image.convert("L").convert(mode) if mode == "F" else image.convert(mode)
    file = tmp_path / ("a.png" if mode in ("LA", "P", "PA", "RGBA") else "a.tif")
    image.save(file)
    whole = see(file)
    monkeypatch.setattr(module, "LARGE", 401 * 203 // 5)
    small = see(file)
    assert small.size == (68, 134)  # a third
    assert small.mode == whole.mode
    assert np.abs(np.asarray(small).astype(int) - np.asarray(whole.reduce(3)).astype(int)).max() <= 1


def test_a_large_jpeg_is_shrunk_as_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo(tmp_path / "a.jpg", size=(400, 300))
    monkeypatch.setattr(module, "LARGE", 400 * 300 // 4)
    assert decode(tmp_path / "a.jpg", 3).shape == (1, 3, 150, 200)


def test_least(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 400 * 300).reshape(300, 400).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(ramp).save(tmp_path / "a.jpg", exif=exif)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    whole = decode(tmp_path / "a.jpg", 1)
    assert whole.shape == (1, 1, 400, 300)
    for least, scale in ((301, 1), (300, 1), (151, 1), (150, 2), (76, 2), (75, 4), (37, 8), (1, 8)):
        small = decode(tmp_path / "a.jpg", 1, least=least)
        assert small.shape == (1, 1, -(-400 // scale), -(-300 // scale)), least
        error = torch.nn.functional.adaptive_avg_pool2d(whole.float(), small.shape[2:]) - small
        assert error.abs().mean() < 2
    assert decode(tmp_path / "a.png", 1, least=10).shape == (1, 1, 300, 400)


def test_a_broken_profile_is_as_none(tmp_path: Path) -> None:
    image = Image.frombytes("CMYK", (8, 8), np.random.RandomState(0).bytes(256))
    image.save(tmp_path / "a.tif")
    for profile in (b"no profile", ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()):
        image.save(tmp_path / "b.tif", icc_profile=profile)
        assert torch.equal(decode(tmp_path / "b.tif", 3), decode(tmp_path / "a.tif", 3))


def test_formats_that_run_programs_are_not_opened(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.eps")
    with pytest.raises(ValueError, match=r"a\.eps: not an image that is read"):
        decode(tmp_path / "a.eps", 3)


def test_pages_and_drawings_are_told(tmp_path: Path) -> None:
    for text in ("<!DOCTYPE html><p>404", "  <html>", '<?xml version="1.0"?><svg/>', "<svg xmlns='x'/>"):
        (tmp_path / "a.jpg").write_text(text)
        with pytest.raises(ValueError, match=r"a\.jpg: not an image but a page or drawing as text$"):
            decode(tmp_path / "a.jpg", 3)


def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png: not a file$"):
        decode(tmp_path / "a.png", 3)


def test_names(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"^row 7: empty$"):
        decode(b"", 3, "row 7")
    with pytest.raises(ValueError, match=r"^image: empty$"):
        decode(b"", 3)
    with pytest.raises(ValueError, match=r"^it: no such file$"):
        decode(tmp_path / "a.png/b.png", 3, "it")


@pytest.mark.parametrize("size", [(10_000, 10_001), (65_500, 65_500)])
def test_the_header_is_enough_to_refuse(tmp_path: Path, size: tuple[int, int]) -> None:
    head = b"IHDR" + size[0].to_bytes(4) + size[1].to_bytes(4) + bytes((8, 2, 0, 0, 0))
    png = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4) + head + zlib.crc32(head).to_bytes(4) + b"\0\0\1\0IDAT"
    with pytest.raises(ValueError, match=r"x: too large: .* pixels, of which at most 100 million are read$"):
        decode(png, 3, "x")
    with pytest.raises(ValueError, match=r"^too large: .*, of which at most 100 million are read$"):
        header(png)


@pytest.mark.parametrize(("sides", "told"), [((2000, 1500), "3 million"), ((50, 50), "2,500")])
def test_fewer_pixels_may_be_asked_for(sides: tuple[int, int], told: str) -> None:
    most = sides[0] * sides[1]
    fits, larger = io.BytesIO(), io.BytesIO()
    Image.new("L", sides).save(fits, "png")
    Image.new("L", (sides[0] + 1, sides[1])).save(larger, "png")
    assert decode_array(fits.getvalue(), 1, most=most).size == most
    with pytest.raises(ValueError, match=rf"^x: too large: .* pixels, of which at most {told} are read$"):
        decode_array(larger.getvalue(), 1, "x", most=most)


def test_what_a_decoder_needs_bounds_the_size() -> None:
    photo_file = io.BytesIO()
    Image.new("RGB", (5200, 5200)).save(photo_file, "webp", method=0, quality=1)
    with pytest.raises(ValueError, match=r"^x: too large: 5200 × 5200 pixels, of which at most 26 million are read$"):
        decode(photo_file.getvalue(), 3, "x")


def test_headers(tmp_path: Path) -> None:
    colour, grey = photo(tmp_path / "a.jpg"), photo(tmp_path / "b.png", mode="L")
    assert header(colour) == ((70, 66), False, True)
    assert header(grey.read_bytes()) == ((70, 66), True, True)
    for file in (colour, grey):
        assert header(file.read_bytes()[:-20])[2] is False
    with pytest.raises(ValueError, match=r"^no such file$"):
        header(tmp_path / "c.png")
    with pytest.raises(ValueError, match=r"^not an image that is read"):
        header(b"text")


def test_threads_do_not_disturb_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    busy, most, really = [0], [0], Image.open

    def slow_open(*arguments: Any, **options: Any) -> Image.Image:
        busy[0] += 1
        most[0] = max(most[0], busy[0])
        time.sleep(0.001)
        busy[0] -= 1
        return really(*arguments, **options)

    monkeypatch.setattr(Image, "open", slow_open)
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff"  # one that Pillow warns of
    Image.new("RGB", (60, 60), (9, 99, 199)).save(tmp_path / "a.png", exif=exif)
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        for pixels in pool.map(lambda _: decode(tmp_path / "a.png", 3), range(200)):
            assert pixels.unique().tolist() == [9, 99, 199]
    assert warnings.filters == before
    assert most == [1]  # the filters are the process's, so nobody else may be among them


def test_nothing_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    photo(tmp_path / "a.tif")
    raw = bytearray((tmp_path / "a.tif").read_bytes())
    at = raw.index((277).to_bytes(2, "little") + (3).to_bytes(2, "little"))  # samples per pixel
    raw[at + 8] = 75
    with pytest.raises(ValueError, match=r"^image: "):
        decode(bytes(raw), 3)
    assert caplog.records == []


MEASURE = """
import resource, sys
from metaformer.data.decode import decode
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
decode(sys.argv[1], 3)  # a small one, so that what is loaded once is loaded
before = peak()
for file in sys.argv[2:]:
    try:
        decode(file, 3)
    except ValueError:
        pass
    print(peak() - before)
"""


def peaks(small: Path, files: list[Path]) -> list[float]:
    """MiB above what a process needs anyway, after each file."""
    command = [sys.executable, "-c", MEASURE, str(small), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return [float(line) for line in done.stdout.splitlines()]


@there
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
def test_memory_of_all_sixty(tmp_path: Path) -> None:
    needed = peaks(photo(tmp_path / "a.avif"), sorted((AWKWARD / "files").iterdir()))
    assert len(needed) == 60
    assert needed[-1] < 100


WORST = {  # formats at their greatest size, and what makes the most of them
    "rgba.png": ("RGBA", 99.9, {"compress_level": 1}),
    "grey.gif": ("L", 99.9, {"transparency": 3}),
    "colour.jpg": ("RGB", 69.9, {"progressive": True, "subsampling": 0}),
    "strip.tif": ("RGB", 52.4, {"compression": "tiff_adobe_deflate", "tiffinfo": {278: 10**6}}),
    "rgba.webp": ("RGBA", 26.1, {"method": 0}),
    "rgba.avif": ("RGBA", 26.1, {"speed": 10}),
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
@pytest.mark.parametrize("name", WORST)
def test_memory_at_the_limits(tmp_path: Path, name: str) -> None:
    mode, megapixels, options = WORST[name]
    side = int((megapixels * 1e6) ** 0.5)
    tile = np.random.RandomState(0).randint(0, 256, (64, 64, 4), np.uint8)
    image = Image.fromarray(np.tile(tile, (-(-side // 64), -(-side // 64), 1))[:side, :side]).convert(mode)
    image.save(tmp_path / name, **options)
    del image
    assert see(tmp_path / name).width * see(tmp_path / name).height <= 16e6
    assert peaks(photo(tmp_path / "a.avif"), [tmp_path / name])[0] < 512
