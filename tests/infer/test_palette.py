import numpy as np
import pytest

from metaformer.infer.palette import FIRST, ink, palette, seen


def apart(count: int) -> float:
    """The least distance in Oklab between two of so many colours, for the eyes for which it is least."""
    places = seen(np.array(palette(count), float))
    distance = np.linalg.norm(places[:, :, None] - places[:, None], axis=3) + np.eye(count)
    return float(distance.min())


@pytest.mark.parametrize(("count", "least"), [(2, 0.25), (7, 0.07), (12, 0.07), (20, 0.07), (64, 0.03)])
def test_colours_stay_apart_for_colour_blind_eyes(count: int, least: float) -> None:
    assert apart(count) > least


def test_a_class_keeps_its_colour() -> None:
    assert palette(3) == FIRST[:3] == palette(90)[:3]
    assert palette(64) == palette(255)[:64]
    assert len(set(palette(255))) == 255
    assert palette(0) == ()
    assert all(0 <= part <= 255 for colour in palette(255) for part in colour)


def test_eyes_without_red_cones_see_red_and_green_alike() -> None:
    red, green, blue = 0, 1, 2
    places = seen(np.array([[200, 60, 60], [110, 105, 40], [60, 60, 200]], float))
    normal, protan = places[0], places[1]
    assert np.linalg.norm(protan[red] - protan[green]) < 0.4 * np.linalg.norm(normal[red] - normal[green])
    assert np.linalg.norm(protan[red] - protan[blue]) > 0.15


def test_names_can_be_read() -> None:
    assert [ink(colour) for colour in ((0, 0, 0), (255, 255, 255), FIRST[0], FIRST[6])] == ["white", "black", "white", "black"]
