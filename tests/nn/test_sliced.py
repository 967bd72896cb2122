"""Sliced Wasserstein distance against SciPy along every direction, and what it sees."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import wasserstein_distance

from engram.nn.sliced import directions, transport


def test_directions_are_fixed_windows_of_length_one() -> None:
    along = directions((3, 12, 9), 50)
    assert along.shape == (3 * 12 * 9, 50)
    torch.testing.assert_close(along.norm(dim=0), torch.ones(50))
    torch.testing.assert_close(along, directions((3, 12, 9), 50))
    assert not torch.allclose(along, directions((3, 12, 9), 50, seed=1))
    used = (along.view(3, 12, 9, 50) != 0).all(0)
    pixels = used.sum((0, 1))
    assert pixels.min() < 20
    assert pixels.max() > 60
    assert used.any(2).all()  # every pixel is looked at
    assert directions((1, 1, 2), 4).shape == (2, 4)


def test_equals_scipy() -> None:
    torch.manual_seed(0)
    real, fake = torch.randn(40, 5, dtype=torch.float64), torch.randn(40, 5, dtype=torch.float64) * 2 + 1
    expected = sum(wasserstein_distance(real[:, p].numpy(), fake[:, p].numpy()) for p in range(5)) / 5
    assert transport(real, fake).mean().item() == pytest.approx(expected, rel=1e-12)


def test_ways_belong_to_their_rows() -> None:
    """A real row that no made one matches is the one with the long way."""
    real, fake = torch.tensor([[3.0], [0.0], [1.0]]), torch.tensor([[0.0], [1.0], [9.0]])
    assert transport(real, fake).tolist() == [6.0, 0.0, 0.0]


def test_sees_a_missing_mode_and_noise() -> None:
    """Half of the kinds missing, or speckles of a tenth, cost more than another draw of the same kinds."""
    torch.manual_seed(0)
    kinds = torch.randn(4, 64).sign()
    along = directions((1, 8, 8))

    def drawn(few: int) -> torch.Tensor:
        return kinds[torch.randint(few, (500,))] + 0.05 * torch.randn(500, 64)

    real = drawn(4)
    again, two = (float(transport(real @ along, drawn(n) @ along).mean()) for n in (4, 2))
    noisy = float(transport(real @ along, (drawn(4) + 0.3 * torch.randn(500, 64)) @ along).mean())
    assert two > 4 * again
    assert noisy > 1.2 * again


def test_sets_of_unequal_size() -> None:
    with pytest.raises(ValueError, match="sets of equal size"):
        transport(torch.zeros(3, 2), torch.zeros(4, 2))
