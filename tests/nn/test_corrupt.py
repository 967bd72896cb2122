"""Corruptions against numpy, entry by entry, and their rates."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engram.nn.corrupt import CORRUPTIONS, corrupt, noise_of

G = torch.Generator().manual_seed(0)
X = torch.rand(5, 3, 6, 4, generator=G)


def draw(kind: str, rows: int = 5, shape: tuple[int, int, int] = (3, 6, 4)) -> torch.Tensor:
    name, wanted = noise_of(kind, shape)
    return (torch.randn if name == "normal" else torch.rand)(rows, *wanted, generator=G)


def test_each_follows_its_formula() -> None:
    noise = draw("gaussian")
    np.testing.assert_array_equal(
        corrupt(X, "gaussian", 0.3, noise).numpy(), np.clip(X.numpy() + np.float32(0.3) * noise.numpy(), 0, 1)
    )
    u = draw("masking").numpy()
    assert u.shape == (5, 1, 6, 4)  # all colours of a pixel together
    masked = corrupt(X, "masking", 0.4, torch.from_numpy(u)).numpy()
    np.testing.assert_array_equal(masked, np.where(u < 0.4, 0, X.numpy()))
    salted = corrupt(X, "salt_and_pepper", 0.4, torch.from_numpy(u)).numpy()
    np.testing.assert_array_equal(salted, np.where(u < 0.2, 0, np.where(u < 0.4, 1, X.numpy())))


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_nothing_is_hit_at_zero_and_pixels_stay_in_range(kind: str) -> None:
    before = X.clone()
    assert torch.equal(corrupt(X, kind, 0.0, draw(kind)), X)
    hit = corrupt(X, kind, 0.7, draw(kind))
    assert 0 <= hit.min() < hit.max() <= 1
    assert torch.equal(X, before)


def test_rates() -> None:
    """Shares of 40,000 pixels, and the deviation of the noise where nothing is clipped."""
    grey = torch.full((100, 1, 20, 20), 0.5)
    salted = corrupt(grey, "salt_and_pepper", 0.3, draw("salt_and_pepper", 100, (1, 20, 20)))
    assert float((salted == 0).float().mean()) == pytest.approx(0.15, abs=0.01)
    assert float((salted == 1).float().mean()) == pytest.approx(0.15, abs=0.01)
    masked = corrupt(grey, "masking", 0.3, draw("masking", 100, (1, 20, 20)))
    assert float((masked == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    noisy = corrupt(grey, "gaussian", 0.1, draw("gaussian", 100, (1, 20, 20)))
    assert float((noisy - grey).std()) == pytest.approx(0.1, abs=0.002)


def test_unknown_kinds_are_refused() -> None:
    for call in (lambda: corrupt(X, "gausian", 0.1, X), lambda: noise_of("gausian", (1, 2, 2))):
        with pytest.raises(ValueError, match="did you mean 'gaussian'"):
            call()
