"""The built-in set "shapes": one coloured shape on dark ground, with a caption in plain words. Drawn here, nothing to download.

Six shapes, eight colours, nine places, three sizes; a little jitter in place, size and shade. The combinations of shape, colour
and place are dealt to the splits like a Latin square: (shape + colour + place) mod 9 says which. So every pair of shape and
colour, and nearly every pair with a place, is seen in training, but no combination of the test split is: what a network draws
for those it has put together itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
COLOURS = {
    "red": (230, 40, 40), "green": (40, 190, 60), "blue": (60, 90, 245), "yellow": (245, 225, 40),
    "orange": (250, 140, 20), "purple": (165, 60, 215), "pink": (250, 150, 195), "white": (245, 245, 245),
}  # fmt: skip
PLACES = {  # row, column of a grid of 3 x 3, and how people say it
    "top left": ("at the top left", "in the top left corner"),
    "top": ("at the top", "near the top"),
    "top right": ("at the top right", "in the top right corner"),
    "left": ("on the left", "on the left side"),
    "middle": ("in the middle", "in the centre"),
    "right": ("on the right", "on the right side"),
    "bottom left": ("at the bottom left", "in the bottom left corner"),
    "bottom": ("at the bottom", "near the bottom"),
    "bottom right": ("at the bottom right", "in the bottom right corner"),
}
SIZES = {"small": ("small", "little"), "medium": ("", "medium"), "big": ("big", "large")}
SIDE = 32
GROUND = (22, 22, 26)
_RADIUS = (4.2, 5.5, 7.0)  # of a picture of 32 pixels; places are 8 pixels apart
_COLOUR_NAMES, _PLACE_NAMES, _SIZE_NAMES = tuple(COLOURS), tuple(PLACES), tuple(SIZES)


class Scene(NamedTuple):
    """What a picture shows, as numbers into SHAPES, COLOURS, PLACES and SIZES."""

    shape: int
    colour: int
    place: int
    size: int = 1


@dataclass(frozen=True)
class Drawn:
    """Pictures uint8 (N, 3, H, W), their captions, and what they show: int64 (N, 4) as in Scene."""

    pixels: np.ndarray
    captions: list[str]
    scenes: np.ndarray


def combinations(split: str) -> list[Scene]:
    """Shape, colour and place of every combination of a split: 336 for train, 48 each for val and test."""
    kept = {"train": range(7), "val": (7,), "test": (8,)}[split]
    return [
        Scene(s, c, p)
        for s in range(len(SHAPES))
        for c in range(len(COLOURS))
        for p in range(len(PLACES))
        if (s + c + p) % 9 in kept
    ]


def draw(split: str, rows: int, seed: int = 0, side: int = SIDE) -> Drawn:
    """`rows` pictures of the combinations of a split, all equally often, in random order. A pure function of its arguments."""
    rng = np.random.default_rng([seed, ("train", "val", "test").index(split)])
    combos = np.array(combinations(split), np.int64)[:, :3]
    turns = np.concatenate([rng.permutation(len(combos)) for _ in range(-(-rows // len(combos)))])[:rows]
    scenes = np.concatenate([combos[turns], rng.integers(len(SIZES), size=(rows, 1))], 1)
    jitter = rng.random((rows, 6), np.float32)
    words = rng.integers(1 << 30, size=(rows, 3))
    captions = [caption(Scene(*s), w) for s, w in zip(scenes.tolist(), words.tolist(), strict=True)]
    return Drawn(render(scenes, jitter, side), captions, scenes)


def caption(scene: Scene, choose: Sequence[int] = (0, 0, 0)) -> str:
    """A caption of a scene; three numbers choose the phrasing and the words for size and place."""
    shape, colour = SHAPES[scene.shape], _COLOUR_NAMES[scene.colour]
    sizes, places = SIZES[_SIZE_NAMES[scene.size]], PLACES[_PLACE_NAMES[scene.place]]
    size, place = sizes[choose[1] % len(sizes)], places[choose[2] % len(places)]
    thing = f"{size} {colour} {shape}".strip()
    article = "an" if thing[0] in "aeiou" else "a"
    plain = f"{size} {shape}".strip()
    return (
        f"{article} {thing} {place}",
        f"{place}, {article} {thing}",
        f"the {plain} {place} is {colour}",
        f"there is {article} {thing} {place}",
    )[choose[0] % 4]


def render(scenes: np.ndarray, jitter: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Scenes int (N, 4) and jitter (N, 6) in 0..1 (place 2, size 1, shade 3) to uint8 (N, 3, side, side), edges smoothed."""
    out = np.empty((len(scenes), 3, side, side), np.uint8)
    colours = np.array(list(COLOURS.values()), np.float32)
    for start in range(0, len(scenes), 1024):
        some, j = scenes[start : start + 1024], jitter[start : start + 1024].astype(np.float32) * 2 - 1
        scale = side / SIDE
        radius = (np.array(_RADIUS, np.float32)[some[:, 3]] + 0.3 * j[:, 2]) * scale
        centre_y = (8 + 8 * (some[:, 2] // 3) + 0.7 * j[:, 0]) * scale
        centre_x = (8 + 8 * (some[:, 2] % 3) + 0.7 * j[:, 1]) * scale
        at = np.arange(side, dtype=np.float32) + 0.5
        x = at[None, None, :] - centre_x[:, None, None].astype(np.float32)  # (n, 1, W)
        y = at[None, :, None] - centre_y[:, None, None].astype(np.float32)  # (n, H, 1), downwards
        edge = np.empty((len(some), side, side), np.float32)
        for shape in range(len(SHAPES)):
            of = np.flatnonzero(some[:, 0] == shape)
            edge[of] = _distance(SHAPES[shape], x[of], y[of], radius[of, None, None])
        cover = np.clip(0.5 - edge, 0, 1)[:, None]  # share of each pixel that the shape covers
        colour = np.clip(colours[some[:, 1]] + 8 * j[:, 3:6], 0, 255)[:, :, None, None]
        ground = np.array(GROUND, np.float32)[None, :, None, None]
        out[start : start + 1024] = np.rint(ground + cover * (colour - ground)).astype(np.uint8)
    return out


def _distance(shape: str, x: np.ndarray, y: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Signed distance to the edge in pixels, below 0 inside (exact or nearly so close to the edge); r is about the radius."""
    if shape == "circle":
        return np.hypot(x, y) - 0.95 * r
    if shape == "ring":
        return np.abs(np.hypot(x, y) - 0.75 * r) - 0.23 * r
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.85 * r
    if shape == "cross":
        x, y = np.abs(x), np.abs(y)
        wide = 0.3 * r
        return np.minimum(np.maximum(x - wide, y - r), np.maximum(x - r, y - wide))
    if shape == "triangle":
        y = y - 0.2 * r
        return np.maximum(np.abs(x) * 0.8660254 - y * 0.5, y) - 0.6 * r
    # A five-pointed star: folded into one of its ten equal slices, where the edge is a straight line from tip to notch.
    y = y - 0.05 * r
    length, slice_ = np.hypot(x, y), np.pi / 5
    angle = np.abs(np.mod(np.arctan2(x, -y) + slice_, 2 * slice_) - slice_)
    tip, notch = 1.12 * r, 0.45 * r
    across, along = tip - notch * np.cos(slice_), notch * np.sin(slice_)
    norm = np.hypot(across, along)
    return ((length * np.cos(angle) - tip) * along + length * np.sin(angle) * across) / norm
