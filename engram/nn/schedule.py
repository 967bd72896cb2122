"""Noise schedules of diffusion in continuous time, and what a network predicts about a noisy picture.

A picture x0 at time t in [0, 1] is x = alpha(t) x0 + sigma(t) noise: t = 0 is the picture, t = 1 is noise. Kinds:

    linear  Ho et al. 2020, "Denoising diffusion probabilistic models": beta from 1e-4 to 0.02 over 1000 steps, in the limit of
            many steps (Song et al. 2021, Eq. 33); alpha^2 + sigma^2 = 1
    cosine  Nichol & Dhariwal 2021, Eq. 17; t is stretched to end at 0.9946, where alpha is 0.008 and not 0, as DPM-Solver does
    edm     Karras et al. 2022: alpha = 1, sigma = 80 t^7, so that even times above 0.22 (sigma 0.002) are their grid of rho = 7
            (Eq. 5); training times make sigma log-normal (Table 1)
    flow    Liu et al. 2023 (rectified flow), Lipman et al. 2023 (flow matching): alpha = 1 - t, sigma = t

Every prediction is a sum p x0 + q noise (`mix`), so one pair of formulas turns an output into x0 and noise and back:

    noise     q = 1 (Ho et al., Eq. 14)             velocity  Salimans & Ho 2022, appendix D: alpha noise - sigma x0
    x0        p = 1                                 flow      noise - x0, the velocity of the straight path

Differs: `velocity` is taken of the pair scaled to unit variance for data of standard deviation `spread`. For alpha^2 + sigma^2
= 1 and spread 1 it is that of Salimans & Ho; for edm with spread 0.5 the network sees and predicts exactly what the
preconditioning of Karras et al. (Table 1) gives it, up to the sign, with their loss weight as a plain squared error. Their
noise levels are for that spread too: with another one, log sigma in training and the last sigma of their grid move with it, so
that noise is as strong beside the data as theirs. Sigma at t = 1 stays 80, because a time means one sigma to a trained network.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

Kind = Literal["linear", "cosine", "edm", "flow"]
Prediction = Literal["noise", "velocity", "x0", "flow"]
Spacing = Literal["time", "log_snr", "rho"]

KINDS = ("linear", "cosine", "edm", "flow")
PREDICTIONS = ("noise", "velocity", "x0", "flow")

BETA_FIRST, BETA_LAST = 0.1, 20.0  # 1000 times the betas of Ho et al.
OFFSET, END = 0.008, 0.9946  # cosine
SIGMA_MOST, RHO = 80.0, 7.0  # edm
LOG_NORMAL, SPREAD = (-1.2, 1.2), 0.5  # mean and deviation of log sigma in training, edm, for data of that deviation


class Schedule(nn.Module):
    """alpha(t) and sigma(t) of one kind, grids of times, and the meaning of a network's output. Has no weights.

    kind:        one of KINDS
    prediction:  what the network gives, one of PREDICTIONS
    spread:      standard deviation of the data, for edm and `velocity`; 0 = 0.5 for edm, else 1
    """

    def __init__(self, kind: str = "linear", prediction: str = "velocity", spread: float = 0.0) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"unknown schedule {kind!r}: choose from {', '.join(KINDS)}")
        if prediction not in PREDICTIONS:
            raise ValueError(f"unknown prediction {prediction!r}: choose from {', '.join(PREDICTIONS)}")
        self.kind, self.prediction = kind, prediction
        self.spread = spread or (SPREAD if kind == "edm" else 1.0)

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Times of any shape to alpha and sigma of that shape."""
        if self.kind == "flow":
            return 1 - t, t
        if self.kind == "edm":
            return torch.ones_like(t), SIGMA_MOST * t**RHO
        if self.kind == "linear":
            log_square = -t * (BETA_FIRST + 0.5 * (BETA_LAST - BETA_FIRST) * t)  # log alpha^2
            return (0.5 * log_square).exp(), (-torch.expm1(log_square)).sqrt()
        first, turn = 0.5 * math.pi * OFFSET / (1 + OFFSET), t * (0.5 * math.pi * END / (1 + OFFSET))
        # 1 - cos(first + turn)^2 / cos(first)^2 as a product: no difference of near numbers at small t.
        sigma = (torch.sin(2 * first + turn) * torch.sin(turn)).sqrt() / math.cos(first)
        return torch.cos(first + turn) / math.cos(first), sigma

    def log_snr(self, t: Tensor) -> Tensor:
        """log (alpha^2 / sigma^2) at times of any shape; infinite where sigma is 0."""
        alpha, sigma = self.alpha_sigma(t)
        return 2 * (alpha.log() - sigma.log())

    def time_of(self, log_snr: Tensor) -> Tensor:
        """The time in [0, 1] with that log signal-to-noise ratio; the nearest one outside the schedule's range."""
        if self.kind == "flow":
            return torch.sigmoid(-0.5 * log_snr)
        if self.kind == "edm":
            return _edm_time(torch.exp(-0.5 * log_snr))
        fall = nn.functional.softplus(-log_snr)  # -log alpha^2
        if self.kind == "linear":
            t = 2 * fall / (BETA_FIRST + (BETA_FIRST**2 + 2 * (BETA_LAST - BETA_FIRST) * fall).sqrt())
            return t.clamp(0, 1)
        first = 0.5 * math.pi * OFFSET / (1 + OFFSET)
        # sin(angle)^2 = 1 - alpha^2 cos(first)^2, in the form that keeps small sigma
        square = torch.sigmoid(-log_snr) * math.cos(first) ** 2 + math.sin(first) ** 2
        angle = torch.asin(square.clamp(0, 1).sqrt())
        return ((angle / (0.5 * math.pi) * (1 + OFFSET) - OFFSET) / END).clamp(0, 1)

    def training_time(self, u: Tensor) -> Tensor:
        """Uniform numbers in [0, 1) to the times that training sees: uniform, or of log-normal sigma for edm."""
        if self.kind != "edm":
            return 1 - u  # in (0, 1]: never without noise
        mean, deviation = LOG_NORMAL[0] + math.log(self.spread / SPREAD), LOG_NORMAL[1]
        return _edm_time((mean + deviation * torch.special.ndtri(u.double().clamp(1e-7, 1 - 1e-7))).exp()).to(u.dtype)

    def times(self, steps: int, spacing: str = "time", start: float = 1.0) -> Tensor:
        """(steps + 1,) float64 times that fall from `start` to 0.

        time: even in t; rho: even in (sigma / alpha)^(1/7), as Karras et al.; log_snr: even in the log-SNR. The last two reach
        sigma = 0.002 alpha (of edm 0.004 spread), or 0.02 alpha with log_snr, one step before the end, and jump to the picture
        from there.
        """
        first = torch.tensor([start], dtype=torch.float64)
        if spacing == "time" or steps == 1:
            return first * torch.linspace(1, 0, steps + 1, dtype=torch.float64)
        if spacing not in ("log_snr", "rho"):
            raise ValueError(f"unknown spacing {spacing!r}: choose from time, log_snr, rho")
        alpha, sigma = self.alpha_sigma(first)
        least = 0.02 if spacing == "log_snr" else 0.002 * (self.spread / SPREAD if self.kind == "edm" else 1.0)
        most = (sigma / alpha.clamp(min=1e-2)).clamp(max=SIGMA_MOST)
        place = torch.linspace(0, 1, steps, dtype=torch.float64)
        last = (most / 2).clamp(max=least)
        if spacing == "rho":
            ratio = (most ** (1 / RHO) + place * (last ** (1 / RHO) - most ** (1 / RHO))) ** RHO
        else:
            ratio = most ** (1 - place) * last**place
        inner = self.time_of(-2 * ratio.log())[1:]
        return torch.cat([first, inner.clamp(max=start), torch.zeros(1, dtype=torch.float64)])

    def noisy(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Pictures (B, ...) and noise (B, ...) at times (B,) to noisy pictures (B, ...)."""
        alpha, sigma = (_broadcast(c, x0) for c in self.alpha_sigma(t))
        return alpha * x0 + sigma * noise

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the network should give for `noisy(x0, noise, t)`: (B, ...)."""
        p, q = (_broadcast(c, x0) for c in mix(self.prediction, *self.alpha_sigma(t), self.spread))
        return p * x0 + q * noise

    def network_input(self, x: Tensor, t: Tensor) -> Tensor:
        """Noisy pictures (B, ...) as the network reads them: unit variance for edm, as they are otherwise."""
        if self.kind != "edm":
            return x
        return x / _broadcast((self.spread**2 + self.alpha_sigma(t)[1] ** 2).sqrt(), x)

    def x0(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The picture that a network's output (B, ...) at noisy pictures (B, ...) and times (B,) stands for."""
        alpha, sigma = (_broadcast(c, x) for c in self.alpha_sigma(t))
        return x0_of(self.prediction, output, x, alpha, sigma, self.spread)

    def noise(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The noise that a network's output stands for, shapes as in `x0`."""
        alpha, sigma = (_broadcast(c, x) for c in self.alpha_sigma(t))
        return noise_of(self.prediction, output, x, alpha, sigma, self.spread)

    def weight(self, t: Tensor, min_snr: float = 0.0) -> Tensor:
        """(B,) weights of the squared error of the output. 1, the plain error, unless `min_snr` is above 0.

        With `min_snr` = gamma the error counts like that of x0 times min(SNR, gamma): Hang et al. 2023, Eq. 9.
        """
        if min_snr <= 0:
            return torch.ones_like(t)
        alpha, sigma = self.alpha_sigma(t)
        p, q = mix(self.prediction, alpha, sigma, self.spread)
        snr_share = (sigma.square() * min_snr).minimum(alpha.square() * self.spread**2)  # sigma^2 min(SNR, gamma)
        return snr_share / (alpha * q - sigma * p).square().clamp(min=1e-12) / self.spread**2


def mix(prediction: str, alpha: Tensor, sigma: Tensor, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    """(p, q) such that the prediction is p x0 + q noise, in the shape of alpha."""
    one, zero = torch.ones_like(alpha), torch.zeros_like(alpha)
    if prediction == "noise":
        return zero, one
    if prediction == "x0":
        return one, zero
    if prediction == "flow":
        return -one, one
    size = (alpha.square() * spread**2 + sigma.square()).sqrt()
    return -sigma / (size * spread), alpha * spread / size


def x0_of(prediction: str, output: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor, spread: float = 1.0) -> Tensor:
    """The x0 with x = alpha x0 + sigma noise and output = p x0 + q noise. Noise says little of x0 where alpha is near 0."""
    if prediction == "x0":
        return output  # exact where sigma is nearly 0 too
    p, q = mix(prediction, alpha, sigma, spread)
    return (q * x - sigma * output) / _away_from_zero(alpha * q - sigma * p)


def noise_of(prediction: str, output: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor, spread: float = 1.0) -> Tensor:
    """The noise with x = alpha x0 + sigma noise and output = p x0 + q noise. x0 says little of it where sigma is near 0."""
    if prediction == "noise":
        return output
    p, q = mix(prediction, alpha, sigma, spread)
    return (alpha * output - p * x) / _away_from_zero(alpha * q - sigma * p)


def _away_from_zero(determinant: Tensor) -> Tensor:
    return torch.where(determinant < 0, determinant.clamp(max=-1e-4), determinant.clamp(min=1e-4))


def _broadcast(value: Tensor, like: Tensor) -> Tensor:
    """(B,) shaped to multiply (B, ...)."""
    return value.view(-1, *[1] * (like.dim() - 1))


def _edm_time(sigma: Tensor) -> Tensor:
    return (sigma / SIGMA_MOST).clamp(0, 1) ** (1 / RHO)
