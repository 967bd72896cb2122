"""How near generated pictures are to real ones, from features of both: pure functions on (N, D).

- fid: squared Frechet distance of two Gaussians (Heusel et al. 2017, eq. 6; Dowson and Landau 1982).
- kid: squared maximum mean discrepancy, polynomial kernel of degree 3, unbiased (Binkowski et al. 2018, section 3.2).
- precision_recall: share of generated within the manifold of the real and the other way round (Kynkaanniemi et al. 2019,
  eq. 1 and 2); density_coverage: the same question, less moved by single outliers (Naeem et al. 2020, eq. 3 and 4).

Differs: the trace of the matrix square root is a sum of singular values, so nothing complex or negative has to be cut off
when there are fewer pictures than features. All is float64; distances are made in chunks, so memory does not grow with N * N.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from engram.core.errors import DataError

CHUNK = 1024  # rows of a distance matrix held at once


class Moments:
    """Mean (D,) and covariance (D, D) of features that come in batches (N, D), merged as in Chan et al. 1979, eq. 2.1."""

    def __init__(self) -> None:
        self.rows = 0
        self.mean = torch.zeros(0, dtype=torch.float64)
        self._squares = torch.zeros(0, 0, dtype=torch.float64)

    def add(self, features: Tensor) -> Moments:
        """Take in features (N, D)."""
        x = _checked(features)
        rows, mean = len(x), x.mean(0)
        squares = (x - mean).T @ (x - mean)
        if not self.rows:
            self.rows, self.mean, self._squares = rows, mean, squares
            return self
        total, off = self.rows + rows, mean - self.mean
        self._squares = self._squares + squares + torch.outer(off, off) * (self.rows * rows / total)
        self.mean = self.mean + off * (rows / total)
        self.rows = total
        return self

    @property
    def covariance(self) -> Tensor:
        """(D, D), divided by N - 1. Raises DataError for fewer than two rows."""
        if self.rows < 2:
            raise DataError(f"a covariance needs at least 2 pictures, there are {self.rows}")
        return self._squares / (self.rows - 1)


def moments(features: Tensor | Iterable[Tensor]) -> Moments:
    """Moments of features (N, D), or of an iterable of such batches."""
    found = Moments()
    for batch in [features] if isinstance(features, Tensor) else features:
        found.add(batch)
    return found


def frechet(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """|a - b|^2 + tr(A + B - 2 (A B)^(1/2)) of two Gaussians: means (D,), covariances (D, D).

    The eigenvalues of A B are the squared singular values of A^(1/2) B^(1/2), so the trace of its root is their sum.
    """
    shared = torch.linalg.svdvals(_root(cov_a) @ _root(cov_b)).sum()
    return float((mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * shared)


def fid(real: Tensor | Moments, fake: Tensor | Moments) -> float:
    """Frechet distance between features (N, D) and (M, D), or their moments: 0 for the same set; too large for few pictures."""
    a, b = (m if isinstance(m, Moments) else moments(m) for m in (real, fake))
    return max(0.0, frechet(a.mean, a.covariance, b.mean, b.covariance))


def kid(real: Tensor, fake: Tensor, *, subsets: int = 100, size: int = 1000, seed: int = 0) -> tuple[float, float]:
    """(mean, standard deviation) of the unbiased MMD^2 over `subsets` random subsets of at most `size` pictures of each.

    Kernel (x . y / D + 1)^3. May be slightly negative, since it is unbiased. The subsets overlap, so the deviation says how
    much the figure moves with the pictures, and is not a standard error.
    """
    x, y = _checked(real), _checked(fake)
    size = min(size, len(x), len(y))
    if size < 2:
        raise DataError(f"KID needs at least 2 pictures of each kind, there are {len(x)} real and {len(y)} generated")
    random = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(subsets):
        a, b = (t[torch.randperm(len(t), generator=random)[:size].to(t.device)] for t in (x, y))
        values.append(mmd2(a, b))
    found = torch.stack(values)
    return float(found.mean()), float(found.std()) if subsets > 1 else 0.0


def mmd2(x: Tensor, y: Tensor) -> Tensor:
    """Unbiased squared MMD of (M, D) and (N, D), a scalar (Gretton et al. 2012, eq. 3)."""
    within = [(k.sum() - k.diagonal().sum()) / (len(k) * (len(k) - 1)) for k in (_cubic(x, x), _cubic(y, y))]
    return within[0] + within[1] - 2 * _cubic(x, y).mean()


def precision_recall(real: Tensor, fake: Tensor, *, k: int = 3) -> tuple[float, float]:
    """(share of fake within reach of a real picture, share of real within reach of a fake one), both 0 to 1.

    Within reach: no further from a picture than its own k-th nearest neighbour of its kind.
    """
    return _held(real, radii(real, k), fake)[0], _held(fake, radii(fake, k), real)[0]


def density_coverage(real: Tensor, fake: Tensor, *, k: int = 5) -> tuple[float, float]:
    """(density, coverage): balls of the real pictures around a fake one over k, about 1 at best but unbounded; and the share
    of real pictures whose ball holds a fake one, 0 to 1."""
    _, balls, reached = _held(real, radii(real, k), fake)
    return balls / k, reached


def radii(features: Tensor, k: int) -> Tensor:
    """(N,): the distance of every row to its k-th nearest neighbour among the others. Raises DataError for N <= k."""
    x = _checked(features)
    if len(x) <= k:
        raise DataError(f"{len(x)} pictures have no {k} neighbours each; take at least {k + 1}")
    # the row itself is among the nearest, at distance 0
    return torch.cat([_distances(part, x).kthvalue(k + 1, dim=1).values for part in x.split(CHUNK)])


@dataclass(frozen=True)
class Modes:
    """Classes among generated pictures, as a classifier sees them."""

    shares: tuple[float, ...]  # of each class
    coverage: float  # share of the classes that occur, see `modes`
    entropy: float  # of the shares, nats; the logarithm of the number of classes when all are equally frequent


def modes(labels: Tensor, real_shares: Tensor) -> Modes:
    """Class numbers (N,) of generated pictures beside the shares (C,) of the classes among real ones.

    A class counts as covered from a tenth of its real share on: a classifier's few mistakes must not count as a mode.
    """
    shares = torch.bincount(labels, minlength=len(real_shares)).double() / max(len(labels), 1)
    there = real_shares > 0
    covered = (shares >= real_shares.double() / 10) & (shares > 0)
    return Modes(tuple(shares.tolist()), float(covered[there].double().mean()), float(torch.special.entr(shares).sum()))


def _held(centres: Tensor, reach: Tensor, points: Tensor) -> tuple[float, float, float]:
    """Share of the points in at least one ball, mean number of balls around a point, share of balls that hold a point."""
    x, y = _checked(centres), _checked(points)
    inside, balls = 0, 0
    holds = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for part in y.split(CHUNK):
        within = _distances(part, x) <= reach + 1e-9 * (1 + reach)  # equal points differ by rounding
        inside += int(within.any(1).sum())
        balls += int(within.sum())
        holds |= within.any(0)
    return inside / len(y), balls / len(y), float(holds.double().mean())


def _distances(x: Tensor, y: Tensor) -> Tensor:
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def _cubic(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1).pow(3)


def _root(covariance: Tensor) -> Tensor:
    """Symmetric square root of a covariance, whose eigenvalues below 0 are rounding."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def _checked(features: Tensor) -> Tensor:
    """Features as float64 (N, D). Raises DataError when they are none or not finite."""
    if features.dim() != 2 or not len(features):
        raise DataError(f"features must be (N, D) with N of at least 1, got {tuple(features.shape)}")
    if not bool(features.isfinite().all()):
        raise DataError("some features are not finite; the network that made the pictures or the one that looks has diverged")
    return features.detach().double()


__all__ = [
    "Modes",
    "Moments",
    "density_coverage",
    "fid",
    "frechet",
    "kid",
    "mmd2",
    "modes",
    "moments",
    "precision_recall",
    "radii",
]
