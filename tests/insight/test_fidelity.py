"""Fidelity figures against SciPy, closed forms and brute force, and that they answer what they are asked."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from engram.core.errors import DataError
from engram.insight import fidelity
from engram.insight.fidelity import density_coverage, fid, frechet, kid, mmd2, modes, moments, precision_recall, radii


def drawn(rows: int, width: int = 6, seed: int = 0, mean: float = 0.0, scale: float = 1.0) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)) * scale + mean


def blobs(rows: int, centres: int, spread: float = 0.3, seed: int = 0) -> Tensor:
    """Points around the corners of a simplex, in turn."""
    at = torch.eye(8)[torch.arange(rows) % centres] * 5
    return at + spread * drawn(rows, 8, seed)


@pytest.mark.parametrize("rows", [500, 4])  # 4: fewer rows than features, the covariances are singular
def test_fid_is_that_of_scipys_square_root(rows: int) -> None:
    x, y = (
        drawn(rows),
        drawn(rows + 1, seed=1, mean=0.3, scale=1.7) @ torch.randn(6, 6, generator=torch.Generator().manual_seed(2)),
    )
    a, b = (np.cov(t.double().numpy(), rowvar=False) for t in (x, y))
    root = np.real(scipy.linalg.sqrtm(a @ b))
    means = np.square(x.double().numpy().mean(0) - y.double().numpy().mean(0)).sum()
    assert fid(x, y) == pytest.approx(means + np.trace(a + b - 2 * root), rel=1e-6 if rows > 6 else 1e-4)


def test_frechet_has_its_closed_form_for_covariances_that_commute() -> None:
    m, n = torch.tensor([1.0, 2.0]).double(), torch.tensor([0.0, 4.0]).double()
    a, b = torch.diag(torch.tensor([4.0, 9.0])).double(), torch.diag(torch.tensor([1.0, 0.0])).double()
    assert frechet(m, a, n, b) == pytest.approx(5 + (2 - 1) ** 2 + 3**2, abs=1e-12)


def test_fid_of_samples_nears_that_of_their_gaussians() -> None:
    found = fid(drawn(20_000, 3), drawn(20_000, 3, seed=1, mean=1.0, scale=2.0))
    assert found == pytest.approx(3 * 1 + 3 * 1, rel=0.05)


def test_moments_do_not_depend_on_the_batches() -> None:
    x = drawn(1000, mean=50.0)
    whole, parts = moments(x), moments(x.split(37))
    assert parts.rows == 1000
    torch.testing.assert_close(parts.mean, x.double().mean(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(parts.covariance, torch.cov(x.double().T), rtol=1e-9, atol=1e-9)
    assert fid(whole, parts) < 1e-9


def test_mmd_is_unbiased_and_that_of_the_double_sum() -> None:
    x, y = drawn(7).double(), drawn(9, seed=1, mean=0.5).double()

    def kernel(a: Tensor, b: Tensor) -> float:
        return float((a @ b / 6 + 1) ** 3)

    same_x = [kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j]
    same_y = [kernel(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j]
    across = [kernel(a, b) for a in x for b in y]
    assert float(mmd2(x, y)) == pytest.approx(np.mean(same_x) + np.mean(same_y) - 2 * np.mean(across), rel=1e-12)
    both = [kid(drawn(60, seed=2 * s), drawn(60, seed=2 * s + 1), subsets=1)[0] for s in range(60)]
    error = np.std(both) / math.sqrt(60)
    assert abs(np.mean(both)) < 3 * error  # a biased estimate would be about 2 * E k(x, x) / 60 = 0.27 too large
    assert error < 0.02


def test_kid_repeats_takes_subsets_and_grows_with_the_distance() -> None:
    x, near, far = drawn(300), drawn(300, seed=1, mean=0.2), drawn(300, seed=2, mean=1.0)
    once = kid(x, near, subsets=10, size=100)
    assert once == kid(x, near, subsets=10, size=100)
    assert once != kid(x, near, subsets=10, size=100, seed=1)
    assert 0 < once[0] < kid(x, far, subsets=10, size=100)[0]
    assert once[1] > 0
    assert kid(x, near, subsets=3)[1] == pytest.approx(0, abs=1e-12)  # all pictures in every subset


def test_neighbours_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fidelity, "CHUNK", 17)  # a result must not depend on the chunks
    real, fake, k = drawn(90), drawn(70, seed=1, mean=0.8), 3
    reach_real, reach_fake = (
        NearestNeighbors(n_neighbors=k + 1).fit(t.numpy()).kneighbors(t.numpy())[0][:, k] for t in (real, fake)
    )
    np.testing.assert_allclose(radii(real, k).numpy(), reach_real, rtol=1e-5)
    apart = np.linalg.norm(real.numpy()[:, None] - fake.numpy()[None], axis=2)  # (real, fake)
    inside = apart <= reach_real[:, None]
    assert precision_recall(real, fake, k=k) == pytest.approx((inside.any(0).mean(), (apart <= reach_fake).any(1).mean()))
    assert density_coverage(real, fake, k=k) == pytest.approx((inside.sum(0).mean() / k, inside.any(1).mean()))
    assert 0 < inside.any(0).mean() < 1


def test_the_same_set_is_perfect() -> None:
    x = drawn(200)
    assert fid(x, x) == pytest.approx(0, abs=1e-9)
    assert kid(x, x, subsets=2)[0] <= 0  # unbiased: the pairs of a picture with itself count across, not within
    assert precision_recall(x, x) == (1.0, 1.0)
    assert density_coverage(x, x)[1] == 1.0
    twins = torch.cat([x[:50], x[:50], x[:50], x[:50]])  # every neighbour at distance 0
    assert precision_recall(twins, twins) == (1.0, 1.0)


def test_a_dropped_mode_lowers_recall_and_noise_lowers_precision() -> None:
    real, good = blobs(800, 8), blobs(800, 8, seed=1)
    half, noisy = blobs(800, 4, seed=1), blobs(800, 8, spread=1.5, seed=1)
    p, r = precision_recall(real, good)
    assert p > 0.75
    assert r > 0.75
    p_half, r_half = precision_recall(real, half)
    assert p_half > 0.75
    assert r_half < 0.6 * r
    assert precision_recall(real, noisy)[0] < 0.2
    assert fid(real, good) < 0.1 * min(fid(real, half), fid(real, noisy))
    assert density_coverage(real, half)[1] < 0.6 * density_coverage(real, good)[1]


def test_modes_count_classes_and_their_evenness() -> None:
    even = torch.full((4,), 0.25)
    all_four = modes(torch.arange(400) % 4, even)
    assert all_four.coverage == 1.0
    assert all_four.entropy == pytest.approx(math.log(4))
    two = modes(torch.arange(400) % 2, even)
    assert (two.coverage, two.shares) == (0.5, (0.5, 0.5, 0.0, 0.0))
    slip = modes(torch.tensor([0] * 396 + [1] * 4), even)  # one picture in a hundred is no mode
    assert slip.coverage == 0.25
    assert modes(torch.zeros(10, dtype=torch.int64), torch.tensor([1.0, 0.0])).coverage == 1.0  # nothing real of class 1


def test_too_few_or_broken_features_are_refused() -> None:
    with pytest.raises(DataError, match="at least 2 pictures, there are 1"):
        fid(drawn(1), drawn(9))
    with pytest.raises(DataError, match="3 pictures have no 3 neighbours"):
        precision_recall(drawn(3), drawn(9))
    with pytest.raises(DataError, match="not finite"):
        kid(drawn(9), drawn(9) / 0)
    with pytest.raises(DataError, match="must be"):
        fid(drawn(9)[0], drawn(9))
