"""Augmentation: a pure function of the draws, image by image, with the geometry that it promises."""

from __future__ import annotations

import math

import pytest
import torch

from engram.core.knobs import build
from engram.data.augment import DRAWS, Augment, erased, shifted, turned

torch.set_num_threads(1)
ALL = Augment(shift=2, flip=True, rotate=20, scale=0.1, erase=0.5)


def batch(rows: int = 8, channels: int = 3, height: int = 10, width: int = 12) -> torch.Tensor:
    g = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (rows, channels, height, width), generator=g, dtype=torch.uint8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(x: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return torch.rand(len(x), DRAWS, generator=seeded(seed))


@pytest.mark.parametrize("fill", ["zero", "reflect"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_pure_function_of_the_draws(fill: str, dtype: torch.dtype) -> None:
    x = batch().to(dtype)
    before = x.clone()
    augment = Augment(shift=2, flip=True, rotate=20, scale=0.1, erase=0.5, fill=fill)  # type: ignore[arg-type]
    one, two, other = augment(x, drawn(x)), augment(x, drawn(x)), augment(x, drawn(x, 1))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(x, before)
    assert one.shape == x.shape
    assert one.dtype == dtype


def test_every_image_has_its_own_draws_and_none_sees_another() -> None:
    same = batch(1).expand(8, -1, -1, -1).contiguous()
    out = ALL(same, drawn(same))
    assert len({row.numpy().tobytes() for row in out}) > 6
    x = batch()
    changed = x.clone()
    changed[3] = 0
    a, b = ALL(x, drawn(x)), ALL(changed, drawn(changed))
    others = [i for i in range(8) if i != 3]
    assert torch.equal(a[others], b[others])


def test_the_default_changes_nothing() -> None:
    assert not Augment()
    assert all([Augment(shift=1), Augment(flip=True), Augment(rotate=1), Augment(scale=0.1), Augment(erase=0.1)])
    assert torch.equal(Augment()(batch(), drawn(batch())), batch())


def test_one_option_does_not_change_the_draws_of_another() -> None:
    x = batch(32)
    mirrored = Augment(flip=True)(x, drawn(x))
    both = Augment(flip=True, shift=1)(x, drawn(x))
    shift = Augment(shift=1)(x, drawn(x))
    flips = [bool((mirrored[i] != x[i]).any()) for i in range(32)]
    assert 8 < sum(flips) < 24
    for i, flipped in enumerate(flips):
        assert torch.equal(both[i], shift[i].flip(2) if flipped else shift[i])


def test_which_images_are_mirrored_erased_and_enlarged_is_independent() -> None:
    x = torch.zeros(400, 1, 8, 8)
    x[..., 0] = 1  # a bar on the left
    flipped = Augment(flip=True)(x, drawn(x))[..., 7].sum((1, 2)) > 4
    erased = (Augment(erase=0.5)(x, drawn(x)) != x).flatten(1).any(1)
    for a in (flipped, ~flipped):
        assert 0.15 < (a & erased).float().mean() < 0.35
    square = torch.zeros(100, 1, 16, 16)
    square[..., 6:10, 6:10] = 1
    areas = Augment(scale=0.5)(square, drawn(square)).sum((1, 2, 3))
    assert areas.min() < 8
    assert areas.max() > 30


@pytest.mark.parametrize("fill", ["zero", "reflect"])
def test_shift_moves_by_the_given_pixels(fill: str) -> None:
    x = batch(2)
    out = shifted(x, torch.tensor([3, 2]), torch.tensor([0, 2]), 2, fill)  # 1 down and 2 left; nowhere
    assert torch.equal(out[1], x[1])
    assert torch.equal(out[0, :, 1:, :-2], x[0, :, :-1, 2:])
    if fill == "zero":
        assert (out[0, :, 0] == 0).all()
        assert (out[0, :, :, -2:] == 0).all()
    else:
        assert torch.equal(out[0, :, 0, :-2], x[0, :, 1, 2:])
        assert torch.equal(out[0, :, 1:, -1], x[0, :, :-1, -3])


def test_shift_reaches_all_places_up_to_k() -> None:
    x = torch.zeros(200, 1, 9, 9)
    x[:, :, 4, 4] = 1
    at = Augment(shift=2)(x, drawn(x))[:, 0].flatten(1).argmax(1)
    assert {(int(i) // 9 - 4, int(i) % 9 - 4) for i in at} == {(a, b) for a in range(-2, 3) for b in range(-2, 3)}


def test_a_shift_larger_than_the_image_reflects_without_error() -> None:
    assert Augment(shift=9, fill="reflect")(batch(4, 1, 4, 4), drawn(torch.zeros(4))).shape == (4, 1, 4, 4)


@pytest.mark.parametrize(("height", "width"), [(9, 9), (6, 10)])
def test_rotation_turns_counter_clockwise_and_keeps_the_proportions(height: int, width: int) -> None:
    x = torch.rand(1, 2, height, width, generator=seeded())
    half = turned(x, torch.tensor([math.pi]), torch.ones(1), "zero")
    torch.testing.assert_close(half, x.flip(2, 3), atol=1e-4, rtol=0)
    quarter = turned(x, torch.tensor([math.pi / 2]), torch.ones(1), "zero")
    middle = min(height, width)
    top, left = (height - middle) // 2, (width - middle) // 2
    square = (..., slice(top, top + middle), slice(left, left + middle))
    torch.testing.assert_close(quarter[square], x[square].rot90(1, (2, 3)), atol=1e-4, rtol=0)


def test_scale_enlarges() -> None:
    x = torch.zeros(1, 1, 12, 12)
    x[..., 4:8, 4:8] = 1
    larger = turned(x, torch.zeros(1), torch.tensor([2.0]), "zero")
    assert float(larger.sum()) == pytest.approx(4 * float(x.sum()), rel=0.05)


def test_erased_is_one_square_in_the_mean_colour() -> None:
    x = batch(64)
    out = erased(x, torch.arange(64) % 2 == 0, torch.rand(64), torch.rand(64), torch.rand(64))
    assert torch.equal(out[1::2], x[1::2])
    for before, after in zip(x[::2], out[::2], strict=True):
        changed = (before != after).any(0)
        rows, columns = changed.any(1).nonzero().flatten(), changed.any(0).nonzero().flatten()
        patch = after[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert patch.shape[1] <= 5
        assert torch.equal(patch, before.float().mean((1, 2)).round().byte()[:, None, None].expand_as(patch))


@pytest.mark.parametrize("chance", [0.0, 0.25, 1.0])
def test_erase_is_a_chance(chance: float) -> None:
    x = batch(400, 1, 8, 8)
    hit = (Augment(erase=chance, shift=0)(x, drawn(x)) != x).flatten(1).any(1).float().mean()
    assert abs(hit - chance) < 0.08


def test_it_is_a_set_of_knobs() -> None:
    assert build(Augment, {"shift": "2", "flip": "true", "fill": "reflect"}) == Augment(shift=2, flip=True, fill="reflect")
