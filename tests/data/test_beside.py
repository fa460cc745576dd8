"""Labels and groups beside the images: found by name, and what is wrong with a file is said."""

import json
from pathlib import Path

import pytest
import torch

from metaformer.data.beside import read_groups, read_real
from metaformer.data.splits import Encoded

FILES = [Path(f"/data/val/n01440764/ILSVRC2012_val_0000000{i}.JPEG") for i in (3, 1, 4)]
SPLIT = Encoded(FILES, torch.zeros(3, dtype=torch.int64), 3)


def real(folder: Path, rows: object) -> Path:
    file = folder / "real.json"
    file.write_text(json.dumps(rows))
    return file


def test_real_labels_go_by_the_number_in_the_name(tmp_path: Path) -> None:
    file = real(tmp_path, [[1], [2], [], [3, 4], [5]])
    assert read_real(file, SPLIT, 1000) == [(), (1,), (3, 4)]
    longer = Encoded([Path("ILSVRC2012_val_00000004_n01440764.JPEG")], torch.zeros(1, dtype=torch.int64), 3)
    assert read_real(file, longer, 1000) == [(3, 4)]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ({"a": [1]}, "is not a list of lists of class numbers"),
        ([[1], ["cat"]], "is not a list of lists of class numbers"),
        ([[1], [True], [1], [1]], "is not a list of lists of class numbers"),
        ([[1], [2], [3]], "ILSVRC2012_val_00000004 is no image that .* has labels for"),
        ([[1], [2], [3], [1000]], "has class 1000, and the model knows 1,000"),
    ],
)
def test_what_is_wrong_with_real_labels_is_said(tmp_path: Path, rows: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_real(real(tmp_path, rows), SPLIT, 1000)


def test_groups_go_by_the_end_of_the_path(tmp_path: Path) -> None:
    file = tmp_path / "groups.csv"
    file.write_text(
        f"image,group\nILSVRC2012_val_00000001.JPEG,day\nn01440764/ILSVRC2012_val_00000003.JPEG,night\n{FILES[1]},small\n"
    )
    assert read_groups(file, SPLIT) == {"day": [1], "night": [0], "small": [1]}
    rows = Encoded([b"", b""], torch.zeros(2, dtype=torch.int64), 3, ["test.parquet row 0", "test.parquet row 1"])
    file.write_text("image,group\ntest.parquet row 1,one\n")
    assert read_groups(file, rows) == {"one": [1]}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is not a list of groups"),
        ("a,b\n1,2\n", "is not a list of groups"),
        ("image,group\n1\n", "is not a list of groups"),
        ("image,group\nnothing.jpg,day\n", "names nothing.jpg: no such image judges"),
        ("image,group\na.jpg,day\n", "names a.jpg: 2 images are called so: give more of the path"),
    ],
)
def test_what_is_wrong_with_groups_is_said(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "groups.csv"
    file.write_text(text)
    split = Encoded([Path("/x/one/a.jpg"), Path("/x/two/a.jpg")], torch.zeros(2, dtype=torch.int64), 3)
    with pytest.raises(ValueError, match=sentence):
        read_groups(file, split)
