"""Denoising: a network learns what is noise in a noisy picture, at every level of noise. Diffusion and flow matching.

Papers: Ho et al. 2020, Eq. 14; velocity, Salimans & Ho 2022; Karras et al. 2022, Eq. 8; flow matching,
Lipman et al. 2023, Eq. 23 (schedule flow, prediction flow); classes left out for guidance, Ho & Salimans 2022, Algorithm 1;
the bound in bits per number: Kingma et al. 2021. Which of them it is, the schedule says: the loss is one squared error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from engram.core.batch import Batch, Logs, rows
from engram.core.errors import DataError
from engram.core.task import Ctx, Phase, Task, batch_normed
from engram.nn.diffusion_bound import bound
from engram.nn.noise import RowNoise, row_normal
from engram.nn.schedule import Schedule

Network = Callable[[Tensor, Tensor, Tensor | None], Tensor]

EVALUATED = 2048  # rows that an evaluation looks at: the means of ten thousand say the same and cost a tenth of the training
SHOWN, SHOWN_STEPS = 16, 12  # pictures of the film of the training, and the steps of each


def squared_errors(
    network: Network,
    schedule: Schedule,
    x0: Tensor,
    noise: Tensor,
    t: Tensor,
    condition: Tensor | None = None,
    min_snr: float = 0.0,
) -> Tensor:
    """(B,) mean squared error per number of what the network predicts for x0 (B, ...) with noise (B, ...) at times (B,)."""
    x = schedule.noisy(x0, noise, t)
    error = network(schedule.network_input(x, t), t, condition).to(x0.dtype) - schedule.target(x0, noise, t)
    error = error.square().flatten(1).mean(1)
    return error * schedule.weight(t, min_snr) if min_snr else error


class Denoise(Task):
    """Pictures to a network of their noise: `network(x, t, condition)`, condition the class number or None.

    Batch: x (B, C, H, W); noise, like x, standard normal; t (B,) and drop (B,) uniform in [0, 1); y (B,) where the network
    knows `classes`. Without noise, t and drop the numbers of a fixed seed are taken.

    shape:    of a picture, (C, H, W)
    drop:     share of rows whose class is replaced by the number `classes`, which stands for none
    min_snr:  gamma of the weight by Hang et al. 2023; 0 = the plain squared error
    step:     between two of the 256 levels of a pixel, in units of x: for the bound
    power:    mean square of a number of x
    """

    overfits: ClassVar[float | None] = 0.5  # a repeated batch repeats its noise too, and noise is learned by heart slowly

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        shape: tuple[int, int, int],
        *,
        classes: int = 0,
        drop: float = 0.1,
        min_snr: float = 0.0,
        step: float = 2 / 255,
        power: float = 1.0,
    ) -> None:
        super().__init__()
        self.network, self.schedule, self.shape, self.classes = network, schedule, shape, classes
        self.drop, self.min_snr, self.step, self.power = drop, min_snr, step, power

    def phases(self) -> tuple[Phase, ...]:
        """One phase, `model`."""
        whole, why = batch_normed(self.network), "batch normalisation computes its statistics over the whole batch"
        return (Phase("model", self.loss, self.network, splits=not whole, why_whole=why),)

    def loss(self, batch: Batch, ctx: Ctx) -> tuple[Tensor, Logs]:
        """The mean squared error over rows, weighted as the schedule says."""
        return self._errors(batch, self.drop if self.training else 0.0).mean(), {}

    def chance_loss(self) -> float | None:
        """The loss of a network that answers zero: the mean square of its target."""
        if self.min_snr:
            return None
        t = self.schedule.training_time(torch.linspace(0.0005, 0.9995, 1000, dtype=torch.float64))[:, None]
        one, zero = torch.ones_like(t), torch.zeros_like(t)
        of_x, of_noise = (self.schedule.target(*pair, t[:, 0]).square().mean() for pair in ((one, zero), (zero, one)))
        return float(of_x * self.power + of_noise)

    def evaluate(self, batches: Iterable[Batch], ctx: Ctx) -> dict[str, float]:
        """`loss` as trained but with every class told, and `bits`: a bound on the bits per number of a picture.

        Over the first EVALUATED rows, with the noise that the batches bring. Raises DataError when there is no row.
        """
        count, loss, nats = 0, 0.0, 0.0
        for batch in batches:
            loss += float(self._errors(batch, 0.0).double().sum())
            noise, u, _ = self._drawn(batch)
            found = bound(self.network, self.schedule, batch["x"], noise, u, self.step, self._condition(batch, 0.0))
            nats += float(found.double().sum())
            count += rows(batch)
            if count >= EVALUATED:
                break
        if not count:
            raise DataError("there are no rows to evaluate; give the split some rows")
        return {"loss": loss / count, "bits": nats / count / math.prod(self.shape) / math.log(2)}

    def show(self, ctx: Ctx) -> Tensor | None:
        """Pictures of fixed noise by a dozen steps of DDIM, class after class."""
        device = next(self.network.parameters()).device
        x = row_normal(0, 0, SHOWN, self.shape, device)
        times = self.schedule.times(SHOWN_STEPS).to(device, torch.float32)
        x = self.schedule.noisy(torch.zeros_like(x), x, times[:1])
        condition = torch.arange(SHOWN, device=device) % self.classes if self.classes else None
        for here, there in pairwise(times):
            t = here.expand(SHOWN)
            output = self.network(self.schedule.network_input(x, t), t, condition).to(x.dtype)
            x0, noise = self.schedule.x0(output, x, t), self.schedule.noise(output, x, t)
            x = self.schedule.noisy(x0, noise, there[None])
        return x

    def _errors(self, batch: Batch, drop: float) -> Tensor:
        noise, u, _ = self._drawn(batch)
        condition, t = self._condition(batch, drop), self.schedule.training_time(u)
        return squared_errors(self.network, self.schedule, batch["x"], noise, t, condition, self.min_snr)

    def _condition(self, batch: Batch, drop: float) -> Tensor | None:
        """The classes, some of them replaced by none."""
        if not self.classes:
            return None
        return torch.where(self._drawn(batch)[2] < drop, self.classes, batch["y"])

    def _drawn(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Noise (B, ...), and uniform numbers (B,) for the time and for leaving the class out."""
        if "noise" in batch:
            return batch["noise"], batch["t"], batch["drop"]
        fixed = RowNoise(0, 0, rows(batch), batch["x"].device)
        return fixed.normal(*self.shape), fixed.uniform(), fixed.uniform()
