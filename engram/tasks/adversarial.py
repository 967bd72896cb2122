"""Adversarial training (Goodfellow et al. 2014): a discriminator tells real pictures from made ones, a generator fools it.

With scores r = D(x) of real and f = D(G(z)) of made pictures, high for real:

    ns        D: softplus(-r) + softplus(f)         G: softplus(-f)     non-saturating: Goodfellow et al. 2014, section 3
    hinge     D: relu(1 - r) + relu(1 + f)          G: -f               Miyato et al. 2018, Eq. 16 and 17
    wgan_gp   D: f - r + gp (|grad D(x')| - 1)^2    G: -f               Gulrajani et al. 2017, Eq. 3 and algorithm 1,
                                                                        x' = u x + (1 - u) G(z), u uniform per row

R1 (Mescheder et al. 2018, Eq. 9), r1 / 2 |grad D(x)|^2 on real pictures, is a phase of its own, run every few steps and
scaled by that interval (Karras et al. 2020, section 3.1, appendix B): it keeps ns and hinge from circling for little time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.core.batch import Batch, Logs, rows
from engram.core.errors import DataError
from engram.core.task import Ctx, Phase, Task, batch_normed
from engram.nn.noise import RowNoise, row_normal
from engram.nn.sliced import directions, transport

Objective = Literal["ns", "hinge", "wgan_gp"]
BATCH_NORM = "batch normalisation computes its statistics over the whole batch"
SHOWN = 40  # pictures of the film: four rows of ten


class Adversarial(Task):
    """A generator z -> x and a discriminator x -> score; both also take y when there are `classes`.

    Batch: `x` (B, C, H, W) real pictures, `y` (B,) their classes where the networks know some, `z` (B, latent) standard normal
    and, for wgan_gp, `u` (B, 1) uniform: all that is random comes with the batch. Every phase draws a batch of its own.

    latent:    numbers that a picture is made from
    r1:        weight of R1, gamma in the paper; 0 = none
    r1_every:  steps between two R1 phases
    gp:        weight of the gradient penalty of wgan_gp
    repeat:    updates of the discriminator per step
    """

    overfits = None  # the losses play against each other

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent: int,
        *,
        objective: Objective = "ns",
        classes: int = 0,
        r1: float = 1.0,
        r1_every: int = 16,
        gp: float = 10.0,
        repeat: int = 1,
    ):
        super().__init__()
        self.generator, self.discriminator, self.latent, self.classes = generator, discriminator, latent, classes
        self.objective, self.r1, self.r1_every, self.gp, self.repeat = objective, r1, r1_every, gp, repeat

    def phases(self) -> tuple[Phase, ...]:
        """`discriminator`, `r1` (which steps the same optimizer) when it has a weight, then `generator`."""
        other, parts = self.discriminator, not batch_normed(self)
        found = [Phase("discriminator", self.judge, other, repeat=self.repeat, splits=parts, why_whole=BATCH_NORM)]
        if self.r1:
            key, every = "discriminator", self.r1_every
            found.append(Phase("r1", self.smooth, other, optim=key, every=every, splits=parts, why_whole=BATCH_NORM))
        return (*found, Phase("generator", self.fool, self.generator, splits=parts, why_whole=BATCH_NORM))

    def judge(self, batch: Batch, ctx: Ctx) -> tuple[Tensor, Logs]:
        """The loss of the discriminator, the mean over rows. Logs: mean scores `real` and `fake`, and `right`, the share of
        rows whose real picture has the higher score (0.5 = it cannot tell, 1 = the generator has lost)."""
        x, y = batch["x"], self._classes(batch)
        with torch.no_grad():
            fake = self._made(batch).to(x.dtype)
        both = self._score(torch.cat([x, fake]), None if y is None else torch.cat([y, y]))
        real, made = both.chunk(2)
        match self.objective:
            case "ns":
                loss = F.softplus(-real).mean() + F.softplus(made).mean()
            case "hinge":
                loss = F.relu(1 - real).mean() + F.relu(1 + made).mean()
            case "wgan_gp":
                u = (batch["u"] if "u" in batch else RowNoise(0, 0, rows(batch), x.device).uniform(1)).view(-1, 1, 1, 1)
                steep = torch.linalg.vector_norm(self._slope(u * x + (1 - u) * fake, y), dim=1)  # sqrt has no slope at 0
                loss = (made - real).mean() + self.gp * (steep - 1).square().mean()
        return loss, {"real": real.mean(), "fake": made.mean(), "right": (real > made).float().mean()}

    def smooth(self, batch: Batch, ctx: Ctx) -> tuple[Tensor, Logs]:
        """R1 scaled by the interval. Logs: `slope`, the mean of |grad D(x)|^2."""
        slope = self._slope(batch["x"], self._classes(batch)).square().sum(1).mean()
        return 0.5 * self.r1 * self.r1_every * slope, {"slope": slope}

    def fool(self, batch: Batch, ctx: Ctx) -> tuple[Tensor, Logs]:
        """The loss of the generator, the mean over rows. Logs: the mean score `fake`."""
        made = self._score(self._made(batch), self._classes(batch))
        return (F.softplus(-made) if self.objective == "ns" else -made).mean(), {"fake": made.mean()}

    def chance_loss(self) -> float:
        """The discriminator's loss while every score is 0."""
        return {"ns": 2 * math.log(2), "hinge": 2.0, "wgan_gp": self.gp}[self.objective]

    def evaluate(self, batches: Iterable[Batch], ctx: Ctx) -> dict[str, float]:
        """`swd`, the sliced Wasserstein distance of as many made pictures to the real ones (smaller is better), and the mean
        scores `real` and `fake` and their order `right`, as in training. Keeps some 128 numbers per picture."""
        sums, real, fake = torch.zeros(4, dtype=torch.float64), [], []
        along: Tensor | None = None
        for batch in batches:
            x, y, made = batch["x"], self._classes(batch), self._made(batch).to(batch["x"].dtype)
            along = directions((x.shape[1], x.shape[2], x.shape[3])).to(x.device) if along is None else along
            with torch.autocast(x.device.type, enabled=False):
                real.append(x.flatten(1).float() @ along)
                fake.append(made.flatten(1).float() @ along)
            r, f = self._score(x, y), self._score(made, y)
            sums += torch.stack([r.sum(), f.sum(), (r > f).float().sum(), r.new_tensor(len(r))]).double().cpu()
        if not real:
            raise DataError("there are no rows to evaluate; give the split some rows")
        distance = transport(torch.cat(real), torch.cat(fake)).mean()
        return {"swd": float(distance)} | dict(zip(("real", "fake", "right"), (sums[:3] / sums[3]).tolist(), strict=True))

    def show(self, ctx: Ctx) -> Tensor:
        """(40, C, H, W) made from fixed latents; with classes, column by column one class (the first ten)."""
        device = next(self.parameters()).device
        z = row_normal(0, 0, SHOWN, (self.latent,), device)
        if not self.classes:
            return self.generator(z).float()
        return self.generator(z, torch.arange(SHOWN, device=device) % 10 % self.classes).float()

    def _made(self, batch: Batch) -> Tensor:
        """Pictures made from the latents of a batch, of its rows' classes."""
        z = batch["z"] if "z" in batch else row_normal(0, 0, rows(batch), (self.latent,), batch["x"].device)
        y = self._classes(batch)
        return self.generator(z) if y is None else self.generator(z, y)

    def _score(self, x: Tensor, y: Tensor | None) -> Tensor:
        """(B,) in float32 at least: losses in fewer digits would lose small differences."""
        score = self.discriminator(x) if y is None else self.discriminator(x, y)
        return score.float() if score.dtype in (torch.bfloat16, torch.float16) else score

    def _slope(self, x: Tensor, y: Tensor | None) -> Tensor:
        """grad D(x) of every row, (B, numbers), itself differentiable. A row's score depends on that row alone, so the gradient
        of the sum holds the gradient of each."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self._score(x, y).sum(), x, create_graph=True)
        return slope.flatten(1)

    def _classes(self, batch: Batch) -> Tensor | None:
        return batch["y"] if self.classes else None


__all__ = ["Adversarial", "Objective"]
