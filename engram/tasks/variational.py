"""Variational autoencoding: the evidence lower bound, its two sides weighed, and what becomes of the latent numbers.

Papers: Kingma & Welling 2014, Eq. 3; beta: Higgins et al. 2017, "beta-VAE", Eq. 4; warm-up: Bowman et al. 2016, section 3.1;
free bits: Kingma et al. 2016, "Improving variational inference with inverse autoregressive flow"; active units: Burda et al.
2016, section 2. Differs: free bits are granted to every number of every picture, not to the mean over a batch, so that a row's
loss does not depend on its neighbours and micro-batches equal one batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from engram.core.batch import Batch, Logs, rows
from engram.core.task import Ctx, Phase, Task, batch_normed
from engram.nn.gaussian import Bernoulli, LatentUse, Likelihood, draw, kl_to_standard
from engram.nn.noise import RowNoise, row_normal

SHOWN = 16  # pictures of the film of the training


class Coder(Protocol):
    """What the task asks of a model; y (B,) is given when `classes` is not 0."""

    shape: tuple[int, int, int]
    latent: int
    classes: int

    def encode(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]: ...  # mean and log variance, (B, latent)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor: ...  # (B, C, H, W)


class Variational(Task):
    """Pictures to a bound on their log probability, in nats per picture.

    Batch: x (B, C, H, W), pixels of 0 to 1; eps (B, latent) standard normal and u (B, C, H, W) uniform numbers; y (B,) when the
    model is told classes. Without eps and u the numbers of a fixed seed are taken.
    The loss is -log p(x | z) + beta KL(q(z | x) || p(z)); beta rises from 0 in the first share `warmup` of the run, and each
    latent number's KL below `free_bits` nats costs nothing more.
    """

    overfits: ClassVar[float | None] = 0.7  # the KL alone is a good part of the loss of a picture learned by heart

    def __init__(
        self,
        model: torch.nn.Module,
        likelihood: Likelihood,
        *,
        beta: float = 1.0,
        warmup: float = 0.0,
        free_bits: float = 0.0,
    ):
        super().__init__()
        self.model, self.likelihood = model, likelihood
        self.beta, self.warmup, self.free_bits = beta, warmup, free_bits

    @property
    def coder(self) -> Coder:
        """The model, as what it does."""
        return self.model  # type: ignore[return-value]

    def phases(self) -> tuple[Phase, ...]:
        """One phase, `model`; a learned deviation of the pixels belongs to it."""
        whole, why = batch_normed(self.model), "batch normalisation computes its statistics over the whole batch"
        return (Phase("model", self.loss, self, splits=not whole, why_whole=why),)

    def loss(self, batch: Batch, ctx: Ctx) -> tuple[Tensor, Logs]:
        """The mean over rows; logs elbo, distortion (-log p(x | z)) and kl, in nats per picture."""
        distortion, kl, _ = self.terms(batch)
        paid = kl.clamp(min=self.free_bits) if self.free_bits else kl
        loss = (distortion + self.weight(ctx) * paid.sum(1)).mean()
        rate = kl.detach().sum(1)
        return loss, {"elbo": -(distortion.detach() + rate).mean(), "distortion": distortion.mean(), "kl": rate.mean()}

    def weight(self, ctx: Ctx) -> float:
        """Beta at this step."""
        return self.beta * min(1.0, ctx.progress / self.warmup) if self.warmup else self.beta

    def terms(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """-log p(x | z) (B,), KL of each latent number (B, latent), and the means of these (B, latent)."""
        coder, y = self.coder, batch["y"] if self.coder.classes else None
        fixed = RowNoise(0, 0, rows(batch), batch["x"].device) if "u" not in batch else None
        u = fixed.uniform(*coder.shape) if fixed else batch["u"]
        eps = fixed.normal(coder.latent) if fixed else batch["eps"]
        x = self.likelihood.observe(batch["x"], u)
        mean, log_var = coder.encode(x, y)
        out = coder.decode(draw(mean, log_var, eps), y)
        return -self.likelihood.log_density(x, out), kl_to_standard(mean, log_var), mean

    def chance_loss(self) -> float | None:
        """Even odds for every pixel that is black or white."""
        return math.prod(self.coder.shape) * math.log(2) if isinstance(self.likelihood, Bernoulli) else None

    def evaluate(self, batches: Iterable[Batch], ctx: Ctx) -> dict[str, float]:
        """loss (at full beta, without free bits), elbo, distortion, kl in nats per picture; active: latent numbers in use.

        `collapsed` is 1 when the code says nothing: the decoder has learned to do without it, and all samples are alike.
        """
        use, total = LatentUse(self.coder.latent), 0.0
        for batch in batches:
            distortion, kl, mean = self.terms(batch)
            total += distortion.double().sum().item()
            use.add(mean, kl)
        distortion, rate = total / max(use.count, 1), use.kl.sum().item()
        return {
            "loss": distortion + self.beta * rate,
            "elbo": -(distortion + rate),
            "distortion": distortion,
            "kl": rate,
            "active": float(use.active.sum()),
            "collapsed": float(use.collapsed),
        }

    def show(self, ctx: Ctx) -> Tensor | None:
        """Pictures of fixed codes, one class after the other where there are classes."""
        device = next(self.parameters()).device
        z = row_normal(0, 0, SHOWN, (self.coder.latent,), device)
        y = torch.arange(SHOWN, device=device) % self.coder.classes if self.coder.classes else None
        return self.likelihood.picture(self.coder.decode(z, y))
