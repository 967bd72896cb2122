"""Positions against the formulas of their papers, term by term, and RMSNorm against its own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from engram.nn.positions import restart, rotate, sinusoidal, turns
from engram.nn.rms import RMSNorm


@pytest.mark.parametrize("width", [8, 7])
def test_sinusoids(width: int) -> None:
    """PE(pos, 2i) = sin(pos / 10000^(2i / d)), PE(pos, 2i + 1) = cos(the same), within 1e-5."""
    table = sinusoidal(30, width)
    for pos in (0, 1, 29):
        for column in range(width):
            angle = pos / 10000 ** ((column - column % 2) / width)
            want = math.sin(angle) if column % 2 == 0 else math.cos(angle)
            assert table[pos, column].item() == pytest.approx(want, abs=1e-5)


def test_rotation_is_multiplication_by_a_complex_number() -> None:
    """Numbers i and i + D / 2 are one complex number, turned by position * 10000^(-2i / D), within 1e-5."""
    torch.manual_seed(0)
    x, positions = torch.randn(2, 3, 4, 6), torch.tensor([[0, 5, 9], [7, 1, 2]])
    y = rotate(x, *turns(positions, 6)).numpy()
    complex_x = x[..., :3].numpy() + 1j * x[..., 3:].numpy()
    rate = 10000.0 ** (-np.arange(0, 6, 2) / 6)
    want = complex_x * np.exp(1j * positions.numpy()[:, :, None, None] * rate)
    np.testing.assert_allclose(y[..., :3] + 1j * y[..., 3:], want, atol=1e-5)


def test_products_depend_on_the_distance_only() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(1, 1, 1, 16, dtype=torch.float64), torch.randn(1, 1, 1, 16, dtype=torch.float64)

    def product(a: int, b: int) -> float:
        turned = (rotate(x, *turns(torch.tensor([[p]]), 16, dtype=torch.float64)) for x, p in ((q, a), (k, b)))
        return float((next(turned) * next(turned)).sum())

    assert product(5, 2) == pytest.approx(product(105, 102), abs=1e-4)
    assert product(5, 2) != pytest.approx(product(5, 3), abs=1e-3)


def test_turns_are_computed_in_float32_for_half_precision() -> None:
    """bfloat16 has no 1001: positions rounded before the cosine would be far off."""
    cos, _ = turns(torch.tensor([[1001]]), 4, dtype=torch.bfloat16)
    assert cos.dtype == torch.bfloat16
    assert cos[0, 0, 0].item() == pytest.approx(math.cos(1001), abs=0.01)


def test_restart_counts_from_zero_in_each_document() -> None:
    documents = torch.tensor([[7, 7, 7, 2, 2, 7], [0, 1, 2, 3, 3, 3]], dtype=torch.int32)
    positions = restart(documents)
    assert positions.dtype == torch.int64
    assert positions.tolist() == [[0, 1, 2, 0, 1, 0], [0, 0, 0, 0, 1, 2]]


def test_rms_norm() -> None:
    """x / sqrt(mean(x^2) + eps) * weight, outputs and gradients to 1e-12."""
    torch.manual_seed(0)
    norm = RMSNorm(5, eps=0.1).double()
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    want = x / (x.pow(2).mean(-1, keepdim=True) + 0.1).sqrt() * norm.weight
    got = norm(x)
    torch.testing.assert_close(got, want, atol=1e-12, rtol=1e-12)
    for a, b in zip(*(torch.autograd.grad(y.pow(3).sum(), [x, norm.weight]) for y in (got, want)), strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)
