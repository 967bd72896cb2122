"""A bound on the log-likelihood of pictures under a diffusion, in nats.

Paper: Kingma et al. 2021, "Variational diffusion models", Eq. 11-15. In the log-SNR l, from `least` at full noise to `most`,

    -log p(x) <= KL(q(z at least | x) || N(0, 1)) + (most - least) / 2 E |noise - guessed noise|^2 - E log p(x | z at most)

with l uniform, so the schedule cancels and one call of the network per picture gives an unbiased estimate. `most` is where the
noise is a quarter of the step between two of the 256 levels of a pixel; the last term counts the levels near the picture's.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from engram.nn.schedule import Schedule

LEAST = -10.0  # log-SNR of full noise, where a schedule goes that far
NEAR = 3  # levels on each side that the last noise may confuse with the true one

Network = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def bound(
    network: Network, schedule: Schedule, x0: Tensor, noise: Tensor, u: Tensor, step: float, condition: Tensor | None = None
) -> Tensor:
    """Nats (B,) of pictures x0 (B, ...): an unbiased estimate of an upper bound on -log p(x0 | condition).

    noise: (B, ...) standard normal; u: (B,) uniform in [0, 1); step: between two of the 256 levels, in units of x0
    """
    most = -2 * math.log(step / 4)
    least = max(LEAST, float(schedule.log_snr(torch.ones((), dtype=torch.float64))))
    t = schedule.time_of(least + u.double() * (most - least)).to(x0.dtype)
    x = schedule.noisy(x0, noise, t)
    guess = schedule.noise(network(schedule.network_input(x, t), t, condition).to(x0.dtype), x, t)
    diffusion = 0.5 * (most - least) * (noise - guess).square().flatten(1).sum(1)
    square, variance = 1 / (1 + math.exp(-least)) * x0.square(), 1 / (1 + math.exp(least))
    prior = 0.5 * (variance + square - 1 - math.log(variance)).flatten(1).sum(1)
    levels = torch.arange(-NEAR, NEAR + 1, device=x0.device, dtype=x0.dtype) * 4  # in units of the last noise
    away = -0.5 * (noise[..., None] - levels).square()  # log of how well each level explains x0 + noise
    reading = (away.logsumexp(-1) + 0.5 * noise.square()).flatten(1).sum(1)
    return prior + diffusion + reading


__all__ = ["LEAST", "bound"]
