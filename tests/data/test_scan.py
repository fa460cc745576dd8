"""The look at every image: what is found, how closely, and that it can be stopped."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.photos import photo

from metaformer.data import scan as module
from metaformer.data.scan import digest, scan


def everything(count: int) -> torch.Tensor:
    return torch.ones(count, dtype=torch.bool)


def by_numpy(files: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation per channel, every image weighing the same."""
    pixels = [np.asarray(Image.open(file).convert("RGB")).reshape(-1, 3) / 255 for file in files]
    mean = np.mean([p.mean(0) for p in pixels], 0)
    return mean, np.sqrt(np.mean([(p**2).mean(0) for p in pixels], 0) - mean**2)


@pytest.mark.parametrize("side", [20, 90])
def test_statistics_of_what_counts(tmp_path: Path, side: int) -> None:
    files = [photo(tmp_path / f"{i}.png", i, size=(side, side + 3)) for i in range(50)]
    if side > module.SMALL:
        files[7] = photo(tmp_path / "larger.png", 50, size=(200, 150))
    counts = torch.arange(50) < 40
    found = scan(files, counts)
    mean, std = by_numpy(files[:40])
    assert found.mean == pytest.approx(mean)
    assert found.std == pytest.approx(std)
    assert (found.unreadable, found.channels) == ({}, 3)
    assert (found.pixels is not None) == (side <= module.SMALL)


def test_grey_has_one_channel(tmp_path: Path) -> None:
    for size in ((20, 20), (90, 90)):
        files = [photo(tmp_path / f"{size[0]}-{i}.png", i, size=size, mode="L") for i in range(5)]
        found = scan(files, everything(5))
        assert (found.channels, len(found.mean), len(found.std)) == (1, 1, 1)
        assert found.mean == pytest.approx(by_numpy(files)[0][:1])


def test_pixels_are_the_images(tmp_path: Path) -> None:
    files = [photo(tmp_path / f"{i}.png", i, size=(9, 7)) for i in range(70)]
    files[33].write_bytes(b"no image")
    found = scan(files, everything(70))
    assert found.unreadable.keys() == {33}
    assert found.pixels is not None
    assert found.pixels.shape == (70, 3, 7, 9)
    for i in (0, 32, 34, 69):
        assert torch.equal(found.pixels[i].permute(1, 2, 0), torch.from_numpy(np.array(Image.open(files[i]))))


def test_only_one_small_size_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [photo(tmp_path / f"{i}.png", i, size=(64, 64)) for i in range(70)]
    assert scan(files, everything(70)).pixels is not None
    files[41] = photo(tmp_path / "other.png", size=(63, 64))  # not among those that are tried first
    mixed = scan(files, everything(70))
    assert mixed.pixels is None
    mean, std = by_numpy(files)
    assert mixed.mean == pytest.approx(mean, abs=0.01)
    assert mixed.std == pytest.approx(std, abs=0.01)
    monkeypatch.setattr(module, "MEMORY", 70 * 3 * 64 * 64 - 1)
    files[41] = photo(tmp_path / "other.png", size=(64, 64))
    assert scan(files, everything(70)).pixels is None


def test_of_many_a_sample_is_decoded_and_every_header_and_end_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [photo(tmp_path / f"{i}.jpg", i) for i in range(40)]
    monkeypatch.setattr(module, "ALL", 39)
    monkeypatch.setattr(module, "SAMPLE", 8)
    decoded: list[Path] = []
    see = module.see
    monkeypatch.setattr(module, "see", lambda item: (decoded.append(item), see(item))[1])
    found = scan(files, torch.arange(40) < 30)
    assert len(decoded) == 8 + 10  # of those that count a sample, of those that judge every one
    sample = [file for file in decoded if files.index(file) < 30]
    assert len(sample) == 8
    assert found.mean == pytest.approx(by_numpy(sample)[0])
    assert found.digests == {}

    decoded.clear()
    scan(files, everything(40), closely=everything(40))
    assert sorted(decoded) == sorted(files)

    files[3].write_bytes(files[3].read_bytes()[:-30])
    files[31].write_bytes(files[31].read_bytes()[:900])
    files[35].write_bytes(b"no image")
    (tmp_path / "36.jpg").unlink()
    found = scan(files, torch.arange(40) < 30)
    assert found.unreadable.keys() == {3, 31, 35, 36}
    assert found.unreadable[3].startswith("cut off")
    assert found.unreadable[36] == "no such file"


def test_progress_is_told_to_the_end(tmp_path: Path) -> None:
    files = [photo(tmp_path / f"{i}.png", i) for i in range(70)]
    told: list[tuple[str, int, int]] = []
    scan(files, everything(70), progress=lambda *what: told.append(what))
    assert told == [("checking images", done, 70) for done in (32, 64, 70)]


def test_ctrl_c_does_not_wait_for_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = photo(tmp_path / "a.png")
    seen: list[Path] = []
    see = module.see
    monkeypatch.setattr(module, "see", lambda item: (seen.append(item), see(item))[1])

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        scan([file] * 6400, everything(6400), progress=stop)
    assert len(seen) < 3200
    assert threading.active_count() <= before


def test_digest_tells_copies(tmp_path: Path) -> None:
    one, other = photo(tmp_path / "a.png", 1), photo(tmp_path / "b.png", 2)
    assert digest(one) == digest(one.read_bytes()) != digest(other)
