"""Principal axes against a singular value decomposition, around class means, and what they promise of rows not seen."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engram.nn.principal import principal


def rows(n: int, numbers: int = 40, seed: int = 0) -> Tensor:
    """Three wide directions and noise, around a mean that is not 0."""
    g = torch.Generator().manual_seed(seed)
    wide = torch.randn(3, numbers, generator=torch.Generator().manual_seed(9))
    return 2 + torch.randn(n, 3, generator=g) @ wide + 0.1 * torch.randn(n, numbers, generator=g)


@pytest.mark.parametrize("n", [20, 200])
def test_equals_svd(n: int) -> None:
    """Fewer rows than numbers, and more: mean, axes up to their sign, variances, what is left."""
    x = rows(n)
    found = principal(x, 5)
    _, s, v = torch.linalg.svd(x.double() - x.double().mean(0), full_matrices=False)
    torch.testing.assert_close(found.mean, x.mean(0, keepdim=True))
    torch.testing.assert_close((found.axes.double() @ v[:5].T).abs(), torch.eye(5).double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.spread.double(), s[:5].square() / n, rtol=1e-4, atol=1e-6)
    assert found.seen == pytest.approx((s[5:].square().sum() / n / 35).item(), rel=1e-4)
    assert torch.equal(principal(x, 5).axes, found.axes)


def test_unseen_is_what_other_rows_show() -> None:
    """Forty rows leave less beside five axes than new rows do; `unseen` says how much, from the forty alone."""
    few, many = principal(rows(40), 5), principal(rows(2000), 5)
    new = rows(1000, seed=5) - few.mean
    left = (new.square().sum(1) - (new @ few.axes.T).square().sum(1)).mean().item() / 35
    assert few.seen < 0.9 * left
    assert few.unseen == pytest.approx(left, rel=0.15)
    assert many.unseen == pytest.approx(many.seen, rel=0.05)


def test_around_the_mean_of_the_class() -> None:
    """What tells classes apart is in the means, and no axis; a class without rows takes the mean of all."""
    x, y = rows(200), torch.arange(200) % 2
    far = torch.zeros(40)
    far[0] = 100
    shifted = x + far * y[:, None]
    found = principal(shifted, 3, y, 3)
    torch.testing.assert_close(found.mean[1] - found.mean[0], far + x[1::2].mean(0) - x[::2].mean(0), atol=1e-3, rtol=0)
    torch.testing.assert_close(found.mean[2], shifted.mean(0))
    torch.testing.assert_close(found.spread, principal(x, 3).spread, rtol=0.05, atol=0)
    assert principal(shifted, 3).spread[0] > 2000


def test_more_axes_than_rows_can_show() -> None:
    for x in (rows(4), torch.ones(6, 10), rows(1), rows(2)):
        found = principal(x, 8)
        assert all(torch.isfinite(t).all() for t in (found.mean, found.axes, found.spread))
        assert found.axes.shape == (8, x.shape[1])
        assert (found.spread > 0).sum() < len(x)
        assert 0 <= found.seen <= found.unseen
