"""The bound on the log-likelihood against a case where the likelihood is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from engram.nn.diffusion_bound import bound
from engram.nn.schedule import KINDS, Schedule

STEP = 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_is_tight_for_gaussian_data_and_the_exact_network(kind: str) -> None:
    """Numbers of deviation 0.7 in levels of 0.02: with the best guess of the noise the bound is their entropy within 2 %."""
    spread = 0.7
    schedule = Schedule(kind, "noise", spread=1.0)
    generator = torch.Generator().manual_seed(0)
    x0 = (spread * torch.randn(400, 100, generator=generator, dtype=torch.float64) / STEP).round() * STEP
    noise, u = torch.randn(400, 100, generator=generator, dtype=torch.float64), torch.arange(400).double() / 400

    def network(x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        alpha, sigma = (c[:, None] for c in schedule.alpha_sigma(t))
        x = x * (1 + sigma**2).sqrt() if kind == "edm" else x  # undo network_input
        return sigma * x / (alpha**2 * spread**2 + sigma**2)

    nats = bound(network, schedule, x0, noise, u, STEP) / 100
    entropy = 0.5 * math.log(2 * math.pi * math.e * spread**2) - math.log(STEP)
    assert -0.01 < float(nats.mean()) / entropy - 1 < 0.03, (float(nats.mean()), entropy)


def test_a_worse_network_has_a_worse_bound() -> None:
    schedule = Schedule("cosine", "noise")
    x0, noise = torch.randn(2, 50, 20, generator=torch.Generator().manual_seed(0)).unbind()
    u = torch.arange(50) / 50
    nothing = bound(lambda x, t, c: torch.zeros_like(x), schedule, x0, noise, u, STEP)
    blind = bound(lambda x, t, c: x, schedule, x0, noise, u, STEP)  # all of it is noise: right only at the end
    exact = bound(lambda x, t, c: schedule.alpha_sigma(t)[1][:, None] * x, schedule, x0, noise, u, STEP)
    assert exact.mean() < blind.mean()
    assert exact.mean() < nothing.mean()


def test_rows_are_their_own() -> None:
    schedule = Schedule("linear")
    x0, noise = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)).unbind()
    u = torch.rand(5, generator=torch.Generator().manual_seed(1))

    def network(x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        return 0.3 * x

    whole = bound(network, schedule, x0, noise, u, STEP)
    parts = [bound(network, schedule, x0[i : i + 1], noise[i : i + 1], u[i : i + 1], STEP) for i in range(5)]
    torch.testing.assert_close(whole, torch.cat(parts))
