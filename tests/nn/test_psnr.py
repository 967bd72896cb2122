"""Closeness of pictures against numpy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_squared_error, r2_score

from engram.nn.psnr import psnr, squared_error, unexplained

G = torch.Generator().manual_seed(0)
X, Y = torch.rand(4, 3, 5, 5, generator=G), torch.rand(4, 3, 5, 5, generator=G)


def test_error_and_share_against_scikit_learn() -> None:
    error = squared_error(Y, X)
    for row, (x, y) in enumerate(zip(X.flatten(1).numpy(), Y.flatten(1).numpy(), strict=True)):
        assert float(error[row]) == pytest.approx(mean_squared_error(x, y), rel=1e-5)
        assert float(unexplained(error, X)[row]) == pytest.approx(1 - r2_score(x, y), rel=1e-5)


def test_decibels() -> None:
    """Half a grey level of error everywhere is 20 log10(510) dB; equal pictures stop at 100."""
    assert float(psnr(squared_error(X + 0.5 / 255, X))[0]) == pytest.approx(20 * np.log10(510), abs=1e-3)
    assert psnr(squared_error(X, X)).tolist() == [100.0] * 4
    assert float(psnr(torch.tensor(4.0), peak=2.0)) == pytest.approx(0.0, abs=1e-6)


def test_low_precision_is_widened_and_flat_pictures_count() -> None:
    assert squared_error(Y.bfloat16(), X).dtype == torch.float32
    flat = torch.full((1, 1, 4, 4), 0.5)
    assert float(unexplained(squared_error(flat + 0.01, flat), flat)) == pytest.approx(1.0, rel=1e-4)
