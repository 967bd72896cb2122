"""Principal axes of pictures, and what a fit of few rows promises too much: where an autoencoder of normal pixels may begin.

Papers: Tipping & Bishop 1999, "Probabilistic principal component analysis"; Lucas et al. 2019, "Don't blame the ELBO": its
solution is the best variational autoencoder that is linear. Differs: the variance beside the axes is also measured on rows that
the axes were not fitted to, since few rows of many pixels leave next to nothing of themselves beside their own axes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FITTED = 0.75  # share of the rows whose axes are tried on the others


@dataclass(frozen=True)
class Principal:
    """Rows (N, D) as a mean and a few axes; variances are those of the codes, and per number beside the axes."""

    mean: Tensor  # (classes or 1, D)
    axes: Tensor  # (L, D), of length 1; 0 from the rank of the rows on
    spread: Tensor  # (L,) variance of the rows along each axis
    seen: float  # variance per number beside the axes
    unseen: float  # the same of rows that the axes were not fitted to, at least `seen`


@torch.no_grad()
def principal(x: Tensor, latent: int, y: Tensor | None = None, classes: int = 0) -> Principal:
    """The `latent` widest axes of rows x (N, D), around the mean of all, or around that of each class y (N,)."""
    whole = _fit(x, latent, y, classes)
    cut = int(FITTED * len(x))
    if not 0 < cut < len(x):
        return whole
    part = _fit(x[:cut], latent, None if y is None else y[:cut], classes)
    rest = x[cut:] - (part.mean if y is None or not classes else part.mean[y[cut:]])
    beside = rest.square().sum(1) - (rest @ part.axes.T).square().sum(1)
    unseen = beside.double().mean().item() / max(1, x.shape[1] - latent)
    return Principal(whole.mean, whole.axes, whole.spread, whole.seen, max(whole.seen, unseen))


def _fit(x: Tensor, latent: int, y: Tensor | None, classes: int) -> Principal:
    mean = x.mean(0, keepdim=True)
    if y is not None and classes:
        counts = torch.bincount(y, minlength=classes)[:, None]
        sums = torch.zeros(classes, x.shape[1], dtype=x.dtype, device=x.device).index_add_(0, y, x)
        mean = torch.where(counts > 0, sums / counts.clamp(min=1), mean)
    centred = (x - (mean if len(mean) == 1 else mean[y])).double()
    rows, numbers = centred.shape
    # The smaller of the two matrices of products has the same eigenvalues.
    wide = numbers > rows
    values, vectors = torch.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    kept = int((values[:latent] > 1e-9 * max(values[0].item(), 1e-9)).sum())
    found = (centred.T @ vectors[:, :kept] / values[:kept].sqrt() if wide else vectors[:, :kept]).T
    found = found * found.sum(1, keepdim=True).sign().where(found.sum(1, keepdim=True) != 0, 1.0)  # one of two signs, always
    axes = torch.zeros(latent, numbers, dtype=x.dtype, device=x.device)
    axes[:kept] = found.to(x.dtype)
    spread = torch.zeros(latent, dtype=x.dtype, device=x.device)
    spread[:kept] = (values[:kept] / rows).to(x.dtype)
    beside = max(0.0, values[kept:].sum().item()) / rows / max(1, numbers - latent)
    return Principal(mean, axes, spread, beside, beside)


__all__ = ["FITTED", "Principal", "principal"]
