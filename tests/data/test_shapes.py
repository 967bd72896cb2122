"""The generated shapes: which combinations are held out, and that pictures show what captions say."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from engram.data import shapes
from engram.data.shapes import COLOURS, PLACES, SHAPES, Scene, caption, combinations, draw, render


def test_no_combination_is_in_two_splits() -> None:
    found = {split: set(combinations(split)) for split in ("train", "val", "test")}
    assert [len(found[s]) for s in found] == [336, 48, 48]
    assert not found["train"] & found["test"]
    assert not found["train"] & found["val"]
    assert not found["val"] & found["test"]


def test_every_pair_that_is_tested_is_seen_in_training() -> None:
    train = combinations("train")
    for a, b in ((0, 1), (0, 2), (1, 2)):
        seen = {(s[a], s[b]) for s in train}
        assert {(s[a], s[b]) for s in combinations("test")} <= seen


def test_every_word_is_in_training() -> None:
    heard = {w for text in draw("train", 2000).captions for w in text.replace(",", "").split()}
    assert {w for text in draw("test", 500).captions for w in text.replace(",", "").split()} <= heard
    assert {*SHAPES, *COLOURS} <= heard


def test_combinations_are_drawn_equally_often() -> None:
    drawn = draw("test", 96)
    assert set(Counter(map(tuple, drawn.scenes[:, :3].tolist())).values()) == {2}


def test_captions_say_what_is_shown() -> None:
    drawn = draw("train", 300, seed=3)
    for text, (shape, colour, place, size) in zip(drawn.captions, drawn.scenes.tolist(), strict=True):
        said = text.replace(",", "").split()
        assert [w for w in said if w in SHAPES] == [SHAPES[shape]]
        assert [w for w in said if w in COLOURS] == [list(COLOURS)[colour]]
        assert any(way in text for way in list(PLACES.values())[place])
        assert all((w in said) <= (size == s) for w, s in (("small", 0), ("little", 0), ("big", 2), ("large", 2)))
    assert caption(Scene(0, 4, 4), (0, 0, 1)) == "an orange circle in the centre"


@pytest.mark.parametrize("side", [16, 32, 48])
def test_pictures_have_the_colour_at_the_place(side: int) -> None:
    scenes = np.array([(0, c, p, 1) for c in range(len(COLOURS)) for p in range(9)])
    pixels = render(scenes, np.full((len(scenes), 6), 0.5), side)
    ground = np.array(shapes.GROUND)[:, None, None]
    for picture, (_, colour, place, _) in zip(pixels, scenes.tolist(), strict=True):
        y, x = ((8 + 8 * at) * side // 32 for at in (place // 3, place % 3))
        assert tuple(picture[:, y, x]) == list(COLOURS.values())[colour]
        rows, columns = np.nonzero((picture != ground).any(0))
        assert abs(rows.mean() + 0.5 - y) < 0.5
        assert abs(columns.mean() + 0.5 - x) < 0.5


def test_edges_are_smooth_and_areas_right() -> None:
    still = np.full((6, 6), 0.5)
    pixels = render(np.array([(s, 7, 4, 2) for s in range(6)]), still, 128).astype(float)  # white, big, 7 of 32 -> 28 of 128
    cover = ((pixels - 22) / (245 - 22))[:, 0].sum((1, 2)) / 28**2
    circle, square, triangle, star, cross, ring = cover
    assert circle == pytest.approx(np.pi * 0.95**2, rel=0.01)
    assert square == pytest.approx(1.7**2, rel=0.01)
    assert triangle == pytest.approx(0.6**2 * 3 * 3**0.5, rel=0.01)
    assert star == pytest.approx(5 * 1.12 * 0.45 * np.sin(np.pi / 5), rel=0.01)
    assert cross == pytest.approx(2 * 2 * 0.6 - 0.6**2, rel=0.01)
    assert ring == pytest.approx(np.pi * (0.98**2 - 0.52**2), rel=0.01)


def test_same_seed_same_pictures() -> None:
    a, b, other = draw("val", 40, 1), draw("val", 40, 1), draw("val", 40, 2)
    assert (a.pixels == b.pixels).all()
    assert a.captions == b.captions
    assert (a.pixels != other.pixels).any()
