"""Noise by rows: its seeds, and that rows do not know of each other."""

from __future__ import annotations

import torch

from engram.nn.noise import RowNoise, _seed, row_normal


def test_rows_are_the_same_alone_and_among_others() -> None:
    whole, one = RowNoise(3, 0, 5), RowNoise(3, 2, 1)
    for draw in ("normal", "uniform"):
        assert torch.equal(getattr(whole, draw)(4, 2)[2:3], getattr(one, draw)(4, 2))
    assert torch.equal(whole.integers(9, 7)[2:3], one.integers(9, 7))
    assert torch.equal(torch.cat([row_normal(3, 0, 2, (6,)), row_normal(3, 2, 3, (6,))]), row_normal(3, 0, 5, (6,)))


def test_seeds_fit_what_the_generator_takes_of_them_and_differ() -> None:
    """The generator takes 32 bits; more would look like more different pictures than there are."""
    low, high = (torch.randn(20, generator=torch.Generator().manual_seed(5 + more)) for more in (0, 7 << 32))
    assert torch.equal(low, high)
    seeds = {_seed(0, row) for row in range(50_000)}
    assert len(seeds) == 50_000
    assert max(seeds) < 2**32


def test_a_seed_means_the_same_picture_in_every_version() -> None:
    assert [_seed(0, 0), _seed(123, 45)] == [2104740275, 3493112617]
