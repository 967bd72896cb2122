"""How near one picture is to another: squared error, the share of the variance that is missed, and decibels."""

from __future__ import annotations

from torch import Tensor

FLAT = 1e-4  # the least variance that a picture counts with: a deviation of one hundredth of the way from black to white


def squared_error(y: Tensor, x: Tensor) -> Tensor:
    """(B, ...) twice to (B,): the mean squared difference of each row's numbers, in float32 at least."""
    wide = y.float() if y.element_size() < 4 else y
    return (wide - x).square().flatten(1).mean(1)


def unexplained(error: Tensor, x: Tensor) -> Tensor:
    """Squared errors (B,) as shares of the variance of the numbers of each row of x (B, ...); 1 is no better than its mean."""
    return error / x.flatten(1).var(1, correction=0).clamp(min=FLAT)


def psnr(error: Tensor, peak: float = 1.0) -> Tensor:
    """Decibels, 10 log10(peak^2 / error), of mean squared errors; at most 100, which equal pictures have."""
    return 10 * (peak**2 / error.clamp(min=peak**2 * 1e-10)).log10()
