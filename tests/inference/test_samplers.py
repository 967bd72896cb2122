"""Samplers against the closed form: on a mixture of Gaussians the best guess of the clean point is known exactly."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from engram.inference.guidance import guided
from engram.inference.samplers import SAMPLERS, Guess, Known, sample, start
from engram.nn.noise import RowNoise
from engram.nn.schedule import KINDS, PREDICTIONS, Schedule

WEIGHTS = torch.tensor([0.3, 0.7], dtype=torch.float64)
MEANS = torch.tensor([[1.0, -0.5], [-0.8, 0.6]], dtype=torch.float64)
COVARIANCES = torch.tensor([[[0.2, 0.05], [0.05, 0.1]], [[0.1, -0.04], [-0.04, 0.3]]], dtype=torch.float64)
MEAN = WEIGHTS @ MEANS
COVARIANCE = torch.einsum("k,kij->ij", WEIGHTS, COVARIANCES + MEANS[:, :, None] * MEANS[:, None]) - torch.outer(MEAN, MEAN)


def exact(schedule: Schedule) -> Guess:
    """E[x0 | x] of the mixture: each part is a Gaussian, weighed by how well it explains x."""

    def guess(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (c[0] for c in schedule.alpha_sigma(t.double()))
        logs, means = [], []
        for weight, mean, covariance in zip(WEIGHTS, MEANS, COVARIANCES, strict=True):
            noisy = alpha**2 * covariance + sigma**2 * torch.eye(2, dtype=torch.float64)
            away = x.double() - alpha * mean
            solved = torch.linalg.solve(noisy, away.T).T
            logs.append(weight.log() - 0.5 * torch.logdet(noisy) - 0.5 * (away * solved).sum(1))
            means.append(mean + alpha * solved @ covariance)
        return (torch.stack(logs).softmax(0)[..., None] * torch.stack(means)).sum(0)

    return guess


def last(schedule: Schedule, x: Tensor, times: Tensor, sampler: str, noise: RowNoise | None = None) -> Tensor:
    *_, step = sample(schedule, exact(schedule), x, times, sampler, noise=noise)
    return step.x


# Steps, and the largest error of the mean and of the covariance (the largest number of which is 0.81).
STEPS = {"ddpm": (200, 0.06, 0.09), "ddim": (150, 0.01, 0.05), "euler": (150, 0.01, 0.05), "heun": (20, 0.01, 0.02),
         "dpm++": (25, 0.01, 0.045)}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_mean_and_covariance_of_a_mixture(kind: str, sampler: str) -> None:
    """From 2,048 points of noise, spread evenly, to points whose mean and covariance are those of the mixture."""
    schedule, (steps, mean, covariance) = Schedule(kind), STEPS[sampler]
    even = torch.quasirandom.SobolEngine(2, scramble=True, seed=0).draw(2048, dtype=torch.float64)
    x = start(schedule, torch.special.ndtri(even.clamp(1e-9, 1 - 1e-9)))
    points = last(schedule, x, schedule.times(steps, "rho"), sampler, RowNoise(0, 0, 2048))
    torch.testing.assert_close(points.mean(0), MEAN, atol=mean, rtol=0)
    torch.testing.assert_close(torch.cov(points.T), COVARIANCE, atol=covariance, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("sampler", "order"), [("ddim", 1), ("euler", 1), ("heun", 2), ("dpm++", 2)])
def test_order_of_convergence(kind: str, sampler: str, order: int) -> None:
    """Twice the steps leave a half or a quarter of the error, against Heun with 1,000 steps."""
    schedule = Schedule(kind)
    x = RowNoise(1, 0, 64).normal(2).double()

    def ends(sampler: str, steps: int) -> Tensor:
        times = schedule.time_of(torch.linspace(-4, 4, steps + 1, dtype=torch.float64))
        return last(schedule, start(schedule, x, torch.zeros(1, 2).double(), float(times[0])), times, sampler)

    true = ends("heun", 1000)
    coarse, fine = ((ends(sampler, n) - true).square().mean().sqrt() for n in (40, 80))
    slope = math.log2(coarse / fine)
    assert order - 0.1 < slope < order + 0.2, slope


def test_equalities() -> None:
    """Euler is DDIM without new noise, DDPM is DDIM with eta 1, and for `flow` a step is x + (change of t) (noise - x0)."""
    x, times = RowNoise(0, 0, 8).normal(2).double(), Schedule("linear").times(10)
    schedule = Schedule("linear")
    torch.testing.assert_close(last(schedule, x, times, "euler"), last(schedule, x, times, "ddim"), atol=1e-9, rtol=0)
    *_, ddim = sample(schedule, exact(schedule), x, times, "ddim", noise=RowNoise(3, 0, 8), eta=1.0)
    torch.testing.assert_close(last(schedule, x, times, "ddpm", RowNoise(3, 0, 8)), ddim.x, atol=1e-12, rtol=0)
    flow = Schedule("flow")
    step = next(sample(flow, exact(flow), x, [0.8, 0.7], "euler"))
    x0 = exact(flow)(x, torch.full((8,), 0.8))
    torch.testing.assert_close(step.x, x - 0.1 * ((x - 0.2 * x0) / 0.8 - x0), atol=1e-6, rtol=0)


def test_ddpm_is_the_posterior() -> None:
    """Ho et al., Eq. 6-7, with alpha_bar = alpha^2: mean of x0 and x, and the variance beta~, by 4,000 draws of one step."""
    schedule = Schedule("linear")
    x = torch.full((4000, 1), 0.7, dtype=torch.float64)
    (bar, bar_next) = schedule.alpha_sigma(torch.tensor([0.5, 0.4], dtype=torch.float64))[0].square().tolist()
    beta = 1 - bar / bar_next
    x0 = -0.4
    mean = bar_next**0.5 * beta / (1 - bar) * x0 + (1 - beta) ** 0.5 * (1 - bar_next) / (1 - bar) * 0.7
    deviation = math.sqrt((1 - bar_next) / (1 - bar) * beta)
    step = next(sample(schedule, lambda x, t: torch.full_like(x, x0), x, [0.5, 0.4], "ddpm", noise=RowNoise(0, 0, 4000)))
    assert abs(float(step.x.mean()) - mean) < 4 * deviation / 4000**0.5
    assert abs(float(step.x.std()) / deviation - 1) < 0.04


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("kind", KINDS)
def test_last_step_is_the_guess(kind: str, sampler: str) -> None:
    """At time 0 there is no noise: the picture is the last guess, and the steps count down to it."""
    schedule = Schedule(kind)
    noise = RowNoise(0, 0, 4)
    steps = list(sample(schedule, exact(schedule), noise.normal(2).double(), schedule.times(5), sampler, noise=noise))
    assert [s.number for s in steps] == [0, 1, 2, 3, 4]
    assert steps[-1].t == 0
    torch.testing.assert_close(steps[-1].x, steps[-1].guess)


def test_rows_do_not_depend_on_chunks() -> None:
    """Two and six points drawn apart are the eight drawn together, also with new noise at every step."""
    schedule = Schedule("cosine")

    def drawn(first: int, rows: int) -> Tensor:
        noise = RowNoise(5, first, rows)
        return last(schedule, start(schedule, noise.normal(2)), schedule.times(10), "ddpm", noise)

    torch.testing.assert_close(torch.cat([drawn(0, 2), drawn(2, 6)]), drawn(0, 8))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_known_numbers_stay_and_the_rest_fits(sampler: str) -> None:
    """Given the first number of a correlated Gaussian, the second has its conditional mean, which RePaint only approaches."""
    covariance = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
    schedule = Schedule("cosine")

    def guess(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (c[0] for c in schedule.alpha_sigma(t.double()))
        return alpha * x @ torch.linalg.inv(alpha**2 * covariance + sigma**2 * torch.eye(2)) @ covariance

    noise = RowNoise(0, 0, 1000)
    x, picture = start(schedule, noise.normal(2).double()), torch.tensor([[1.5, 9.0]], dtype=torch.float64)
    known = Known(picture, torch.tensor([[False, True]]), repeats=4)
    *_, step = sample(schedule, guess, x, schedule.times(40), sampler, noise=noise, known=known)
    assert (step.x[:, 0] - 1.5).abs().max() < 1e-9
    assert 0.9 < float(step.x[:, 1].mean()) < 1.35  # 1.2 is exact; blind to the first number it would be 0


def test_start_from_a_picture() -> None:
    """A little noise leaves points near where they were; all of it leaves nothing of them."""
    schedule, noise = Schedule("flow"), RowNoise(0, 0, 500)
    point = MEANS[:1]
    moved = []
    for strength in (0.1, 1.0):
        x = start(schedule, noise.normal(2).double(), point, strength)
        moved.append((last(schedule, x, schedule.times(10, "rho", strength), "heun") - point).square().mean())
    assert moved[0] < 0.1 * moved[1]


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_guidance(prediction: str) -> None:
    """One call on twice the rows; 1 is the condition alone, 0 the null condition, 3 three times the difference."""
    schedule, calls = Schedule("cosine", prediction), []

    def network(x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        calls.append(len(x))
        assert condition is not None
        return x * condition[:, None].to(x) + t[:, None]

    x, t = torch.randn(4, 2), torch.full((4,), 0.5)
    asked, none = torch.full((4,), 2), torch.zeros(4, dtype=torch.int64)

    def guess(strength: float) -> Tensor:
        return guided(network, schedule, asked, none, strength)(x, t)

    alone, without = (schedule.x0(network(x, t, c), x, t) for c in (asked, none))
    calls.clear()
    torch.testing.assert_close(guess(1.0), alone)
    assert calls == [4]
    torch.testing.assert_close(guess(0.0), without)
    torch.testing.assert_close(guess(3.0), without + 3 * (alone - without), rtol=1e-4, atol=1e-5)
    assert calls == [4, 8, 8]
    limited = guided(network, schedule, asked, none, 3.0, (-0.1, 0.1))(x, t)
    assert limited.abs().max() <= 0.1


def test_errors() -> None:
    schedule, x = Schedule(), torch.zeros(1, 2)
    with pytest.raises(ValueError, match="unknown sampler 'plms'"):
        next(sample(schedule, exact(schedule), x, [1.0, 0.0], "plms"))
    with pytest.raises(ValueError, match="source of noise"):
        next(sample(schedule, exact(schedule), x, [1.0, 0.5], "ddpm"))
    with pytest.raises(ValueError, match="needs a condition"):
        guided(lambda x, t, c: x, schedule, guidance=2.0)
