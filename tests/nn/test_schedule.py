"""Noise schedules against the papers' own formulas, and predictions turned into x0 and noise and back."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from engram.nn.schedule import KINDS, PREDICTIONS, Schedule, mix, noise_of, x0_of

T = torch.linspace(0.01, 1, 100, dtype=torch.float64)


def test_linear_is_the_limit_of_the_betas_of_ddpm() -> None:
    """1000 steps of beta 1e-4 to 0.02: the product of Ho et al. within 8 % up to the end, where alpha^2 is 4e-5."""
    product = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    alpha, sigma = Schedule("linear").alpha_sigma(torch.arange(1, 1001, dtype=torch.float64) / 1000)
    np.testing.assert_allclose(alpha.square()[:300], product[:300], rtol=5e-3)
    np.testing.assert_allclose(alpha.square(), product, rtol=8e-2)
    torch.testing.assert_close(alpha.square() + sigma.square(), torch.ones(1000, dtype=torch.float64))


def test_cosine_is_that_of_nichol_and_dhariwal() -> None:
    def f(t: np.ndarray) -> np.ndarray:
        return np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2

    t = T.numpy() * 0.9946
    alpha, sigma = Schedule("cosine").alpha_sigma(T)
    np.testing.assert_allclose(alpha.square(), f(t) / f(np.zeros(1)), rtol=1e-12)
    np.testing.assert_allclose(sigma.square(), 1 - f(t) / f(np.zeros(1)), rtol=1e-9)


def test_edm_is_that_of_karras() -> None:
    """The grid of Eq. 5 for 18 steps, and Table 1's preconditioning: c_in, c_skip, c_out, and their weight of the loss."""
    schedule = Schedule("edm", "velocity")
    i = np.arange(18)
    grid = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    times = schedule.times(18, "rho")
    np.testing.assert_allclose(schedule.alpha_sigma(times)[1][:-1], grid, rtol=1e-9)
    assert times[-1] == 0
    sigma, spread = torch.tensor([0.01, 0.5, 3.0]).double(), 0.5
    t = (sigma / 80) ** (1 / 7)
    output, x = torch.randn(2, 3, 4, dtype=torch.float64).unbind()
    c_skip = (spread**2 / (sigma**2 + spread**2))[:, None]
    c_out = (sigma * spread / (sigma**2 + spread**2).sqrt())[:, None]
    torch.testing.assert_close(schedule.x0(output, x, t), c_skip * x - c_out * output)  # the sign of the output is free
    torch.testing.assert_close(schedule.network_input(x, t), x / (sigma**2 + spread**2).sqrt()[:, None])
    x0, noise = torch.randn(2, 3, 4, dtype=torch.float64).unbind()
    x = schedule.noisy(x0, noise, t)
    weight = ((sigma**2 + spread**2) / (sigma * spread) ** 2)[:, None]
    theirs = weight * (schedule.x0(output, x, t) - x0).square()
    torch.testing.assert_close((output - schedule.target(x0, noise, t)).square(), theirs)
    u = torch.rand(20_000, generator=torch.Generator().manual_seed(0)).double()
    logs = schedule.alpha_sigma(schedule.training_time(u))[1].log()
    assert abs(float(logs.mean()) + 1.2) < 0.03
    assert abs(float(logs.std()) - 1.2) < 0.03


@pytest.mark.parametrize("spread", [0.25, 1.0])
def test_edm_of_another_spread_is_that_of_karras_with_the_data_in_its_unit(spread: float) -> None:
    """Sigma over spread is as with 0.5: in training, in the input, the target, and at the end of the grid."""
    u = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    own, plain = Schedule("edm", "velocity", spread=spread), Schedule("edm", "velocity")
    times = own.training_time(u), plain.training_time(u)
    sigma, usual = own.alpha_sigma(times[0])[1], plain.alpha_sigma(times[1])[1]
    torch.testing.assert_close(sigma / spread, usual / 0.5)
    x0, noise = torch.randn(2, 50, 3, dtype=torch.float64).unbind()
    for a, b in (
        (own.target(spread * x0, noise, times[0]), plain.target(0.5 * x0, noise, times[1])),
        (own.network_input(own.noisy(spread * x0, noise, times[0]), times[0]),
         plain.network_input(plain.noisy(0.5 * x0, noise, times[1]), times[1])),
    ):  # fmt: skip
        torch.testing.assert_close(a, b)
    ends = own.alpha_sigma(own.times(18, "rho"))[1]
    assert float(ends[0]) == pytest.approx(80)
    assert float(ends[-2]) == pytest.approx(0.002 * spread / 0.5)


def test_flow_is_a_straight_line() -> None:
    alpha, sigma = Schedule("flow").alpha_sigma(T)
    torch.testing.assert_close(alpha, 1 - T)
    torch.testing.assert_close(sigma, T)


def test_velocity_is_that_of_salimans_and_ho() -> None:
    alpha, sigma = Schedule("cosine").alpha_sigma(T)
    p, q = mix("velocity", alpha, sigma)
    torch.testing.assert_close(p, -sigma)
    torch.testing.assert_close(q, alpha)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_output_to_x0_and_noise_and_back(kind: str, prediction: str) -> None:
    """The right answer gives back the picture and the noise, at times away from where it says nothing of one of them."""
    schedule = Schedule(kind, prediction)
    t = schedule.time_of(torch.linspace(-8, 8, 17, dtype=torch.float64))
    x0, noise = torch.randn(2, 17, 2, 3, dtype=torch.float64).unbind()
    x, output = schedule.noisy(x0, noise, t), schedule.target(x0, noise, t)
    torch.testing.assert_close(schedule.x0(output, x, t), x0, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(schedule.noise(output, x, t), noise, atol=1e-9, rtol=1e-9)
    alpha, sigma = (c[:, None, None] for c in schedule.alpha_sigma(t))
    torch.testing.assert_close(x0_of(prediction, output, x, alpha, sigma, schedule.spread), x0)
    torch.testing.assert_close(noise_of(prediction, output, x, alpha, sigma, schedule.spread), noise)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_predicted_itself_is_exact_at_both_ends(kind: str) -> None:
    """The time of a late step of edm has sigma 1e-9, that of the first of flow alpha 0."""
    x, output, t = torch.randn(2, 3), torch.randn(2, 3), torch.tensor([0.03, 1.0])
    assert torch.equal(Schedule(kind, "x0").x0(output, x, t), output)
    assert torch.equal(Schedule(kind, "noise").noise(output, x, t), output)


@pytest.mark.parametrize("kind", KINDS)
def test_noise_grows_with_time(kind: str) -> None:
    schedule = Schedule(kind)
    snr = schedule.log_snr(T[:-1])
    assert (snr.diff() < 0).all()
    torch.testing.assert_close(schedule.time_of(snr), T[:-1], atol=1e-9, rtol=1e-9)
    start = schedule.alpha_sigma(torch.zeros(1, dtype=torch.float64))
    assert start[0] == 1
    assert start[1] == 0
    float32 = schedule.log_snr(torch.linspace(0.001, 0.999, 500))
    assert (float32.diff() < 0).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spacing", ["time", "rho", "log_snr"])
@pytest.mark.parametrize("start", [1.0, 0.4])
def test_grids_fall_to_zero(kind: str, spacing: str, start: float) -> None:
    for steps in (1, 2, 7):
        times = Schedule(kind).times(steps, spacing, start)
        assert len(times) == steps + 1
        assert times[0] == start
        assert times[-1] == 0
        assert (times.diff() < 0).all()


def test_min_snr_weights() -> None:
    """Hang et al.: min(SNR, 5) of the error of x0, min(SNR, 5) / SNR of noise, min(SNR, 5) / (SNR + 1) of velocity."""
    for prediction, power in (("x0", lambda s: torch.ones_like(s)), ("noise", lambda s: s), ("velocity", lambda s: s + 1)):
        schedule = Schedule("cosine", prediction)
        snr = schedule.log_snr(T).exp()
        torch.testing.assert_close(schedule.weight(T, 5.0), snr.clamp(max=5) / power(snr))
    assert (Schedule().weight(T) == 1).all()


def test_errors() -> None:
    with pytest.raises(ValueError, match="unknown schedule 'quadratic'"):
        Schedule("quadratic")
    with pytest.raises(ValueError, match="unknown prediction 'score'"):
        Schedule("linear", "score")
    with pytest.raises(ValueError, match="unknown spacing"):
        Schedule().times(5, "even")
    assert math.isclose(Schedule("edm").spread, 0.5)
