"""What the pictures of `explain` say: labels, figures, ramps."""

from types import SimpleNamespace
from typing import Any

import torch
from matplotlib.figure import Figure
from PIL import Image

from metaformer.lab.explain_pictures import Tile, above_even, cam_grid, grid_figure, lost_shades, ramps, similarity_figure


def texts(made: Figure) -> list[str]:
    return [text.get_text() for axis in made.axes for text in [axis.title, axis.xaxis.label, axis.yaxis.label, *axis.texts]]


def test_a_grid_has_its_heads_notes_and_ramp() -> None:
    tile = Image.new("RGB", (8, 8))
    made = grid_figure(["image", "mine"], [[Tile(tile), Tile(tile, "bee 93%")], [Tile(tile), Tile(tile, "$5")]], ramps()["cam"])
    found = texts(made)
    assert [found.count(text) for text in ("image", "mine", "bee 93%", r"\$5")] == [1] * 4
    assert [label.get_text() for label in made.axes[-1].get_xticklabels()] == ["0", "the map's maximum"]
    assert [axis.get_images() != [] for axis in made.axes] == [True] * 5


def test_what_costs_next_to_nothing_is_not_red() -> None:
    lost = torch.tensor([[[0.4, 0.2], [-0.3, 0.0]], [[0.02, 0.01], [0.0, -0.5]]])
    expected = torch.tensor([[[1.0, 0.5], [0.0, 0.0]], [[0.2, 0.1], [0.0, 0.0]]])
    assert torch.allclose(lost_shades(lost), expected)


def test_attention_that_is_all_but_even_is_not_red() -> None:
    assert torch.allclose(above_even(torch.tensor([[1.02, 0.98]])), torch.tensor([[0.04, 0.0]]), atol=1e-6)
    assert torch.allclose(above_even(torch.tensor([[3.0, 2.0, 0.5]])), torch.tensor([[1.0, 0.5, 0.0]]))


def test_a_map_without_anything_says_so() -> None:
    cam, fed = torch.stack([torch.zeros(2, 2), torch.eye(2)]), torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    one: Any = SimpleNamespace(cam=cam, fed=fed, classes=("bee", "ant"), sure=(0.5, 0.6), name="mine", truth=("ant", ""))
    _, (blank, full) = cam_grid([one])
    assert (blank[0].note, full[0].note) == ("is ant", "")
    assert (blank[1].note, full[1].note) == ("bee, 50%\nnothing speaks for it", "ant, 60%")


def test_letters_are_of_one_size() -> None:
    tile, long = Image.new("RGB", (8, 8)), "a name that is far too long for the picture above it"
    made = grid_figure(["image", long], [[Tile(tile, "short"), Tile(tile, long)]], ramps()["cam"])
    assert len({axis.title.get_fontsize() for axis in made.axes[:2]}) == 1
    assert len({axis.xaxis.label.get_fontsize() for axis in made.axes[:2]}) == 1


def test_ramps_go_from_the_least_to_the_most() -> None:
    for name, ramp in ramps().items():
        first, last = (ramp.image.getpixel((at, 6)) for at in (0, ramp.image.width - 1))
        assert first != last, name
        assert [at for at, _ in ramp.marks] == sorted(at for at, _ in ramp.marks)
    assert [round(at**4, 6) for at, _ in ramps()["reach"].marks] == [1e-4, 0.01, 0.1, 1]  # the scale of fourth roots


def test_similarity_has_each_value_in_its_cell() -> None:
    pair = {"one": "runs/a", "other": "runs/b", "rows": ["stage 1"], "columns": ["act1", "layer1"], "values": [[0.25, -0.01]]}
    made = similarity_figure([pair])
    assert {"0.25", "-0.01", "a", "b", "linear CKA"} <= set(texts(made))
    cells = {text.get_text(): text.get_position() for text in made.axes[0].texts}
    assert cells == {"0.25": (0, 0), "-0.01": (1, 0)}
    assert [label.get_text() for label in made.axes[0].get_xticklabels()] == ["act1", "layer1"]
