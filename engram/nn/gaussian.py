"""What variational autoencoders compute with: draws that carry gradients, densities in nats, and bounds on the evidence.

Papers: Kingma & Welling 2014, "Auto-encoding variational Bayes": reparameterisation section 2.4, the KL divergence of Gaussians
appendix B, the two likelihoods appendix C; Burda et al. 2016, "Importance weighted autoencoders", Eq. 8; one learned variance
for all pixels: Rybkin et al. 2021, "Simple and effective VAE training with calibrated decoders".

Densities are sums over the last dimensions of a picture and means over nothing: one number per picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 255  # steps between black and white of a pixel of 8 bits
SMALLEST = 1 / (12 * LEVELS**2)  # variance of a pixel within its level
QUICK = 30.0  # Adam moves any number by its rate: one log variance for all must fall by 6 in a short run, and not by 1
LOG_2_PI = math.log(2 * math.pi)
LOUD = 5.0  # of a class among hundreds of numbers: said softly, the code learns to hold it, and samples disobey
ACTIVE = 0.01  # variance over pictures of a latent number's mean from which it is in use (Burda et al. 2016, section 2)


def draw(mean: Tensor, log_var: Tensor, eps: Tensor) -> Tensor:
    """A draw of N(mean, exp(log_var)) from the standard normal numbers `eps`; gradients reach mean and log_var."""
    return mean + (0.5 * log_var).exp() * eps


def log_normal(x: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """Log density of each number of x, in nats."""
    return -0.5 * (LOG_2_PI + log_var + (x - mean).square() * (-log_var).exp())


def kl_to_standard(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, exp(log_var)) || N(0, 1)) of each number, in nats, at least 0."""
    return 0.5 * (mean.square() + log_var.exp() - 1 - log_var)


def told(numbers: Tensor, y: Tensor | None, classes: int) -> Tensor:
    """(B, N) with the class y (B,) of each row said beside it, (B, N + classes); as they are without classes. Raises ValueError
    when there are classes and no y."""
    if not classes:
        return numbers
    if y is None:
        raise ValueError("a VAE that is told classes needs y")
    return torch.cat([numbers, LOUD * F.one_hot(y, classes).to(numbers)], 1)


class Bernoulli(nn.Module):
    """Pixels are black or white: the decoder gives the log-odds of white. Grey ones are the chance of white."""

    def observe(self, x: Tensor, u: Tensor) -> Tensor:
        """Pixels of 0 to 1 as 0 or 1, by uniform numbers u of the same shape."""
        return torch.lt(u, x.detach(), out=torch.empty_like(x, requires_grad=False))  # a third of (u < x).to(x.dtype)

    def log_density(self, x: Tensor, out: Tensor) -> Tensor:
        """(..., C, H, W) twice, broadcast, to (...): log p(x | z). Of grey pixels, the mean over what they may become."""
        x, out = x.flatten(-3), out.flatten(-3)
        return (x * out).sum(-1) - F.softplus(out).sum(-1)

    def picture(self, out: Tensor) -> Tensor:
        """What the decoder gives as pixels of 0 to 1."""
        return out.sigmoid()

    def per_pixel(self, log_density: Tensor, pixels: int) -> Tensor:
        """Log densities as log probabilities of what is stored: they are that already."""
        return log_density


class Gaussian(nn.Module):
    """Pixels are normal around what the decoder gives, with one deviation for all: `sigma`, or a learned one when it is 0.

    A learned variance does not fall below `floor`: what a fit of few pictures promises too much of those it has not seen.
    Pixels of 8 bits get uniform noise of one level, so that the density bounds the log probability of the levels
    (Theis et al. 2016, "A note on the evaluation of generative models").
    """

    level: Tensor
    floor: Tensor

    def __init__(self, sigma: float = 0.0) -> None:
        super().__init__()
        start = torch.tensor(2 * math.log(sigma or 0.3) / QUICK)  # 0.3 is about the deviation of the pixels themselves
        if sigma:
            self.register_buffer("level", start)
        else:
            self.level = nn.Parameter(start)
            self.register_buffer("floor", torch.tensor(0.0))

    @torch.no_grad()
    def start(self, variance: float, floor: float) -> None:
        """Where a learned variance begins, above its floor; a given one stays."""
        if isinstance(self.level, nn.Parameter):
            self.level.fill_(math.log(max(variance, SMALLEST)) / QUICK)
            self.floor.fill_(floor)

    @property
    def log_var(self) -> Tensor:
        """The log variance of a pixel."""
        log_var = QUICK * self.level
        return (log_var.exp() + self.floor).log() if isinstance(self.level, nn.Parameter) else log_var

    def observe(self, x: Tensor, u: Tensor) -> Tensor:
        """Pixels of 0 to 1 anywhere within their level, by uniform numbers u of the same shape."""
        return x + (u - 0.5) / LEVELS

    def log_density(self, x: Tensor, out: Tensor) -> Tensor:
        """(..., C, H, W) twice, broadcast, to (...): log p(x | z)."""
        return log_normal(x, out, self.log_var).flatten(-3).sum(-1)

    def picture(self, out: Tensor) -> Tensor:
        """What the decoder gives as pixels of 0 to 1."""
        return out.clamp(0, 1)

    def per_pixel(self, log_density: Tensor, pixels: int) -> Tensor:
        """Log densities of `pixels` numbers of 0 to 1 as log probabilities of levels."""
        return log_density - pixels * math.log(LEVELS)


Likelihood = Bernoulli | Gaussian


class Evidence:
    """Bounds on log p(x) from importance weights log w = log p(x, z) - log q(z | x), which come in pieces.

    With k weights: `elbo` is their mean, `bound` = log(1/k sum w) (Burda et al. 2016, Eq. 8), which grows with k in
    expectation and reaches log p(x) in the limit. Memory does not grow with k.
    """

    def __init__(self) -> None:
        self.count = 0
        self.total: Tensor | float = 0.0
        self.log_sum: Tensor | None = None

    def add(self, log_weights: Tensor) -> None:
        """More weights of the same rows: (B, S)."""
        log_weights = log_weights.double()
        self.count += log_weights.shape[1]
        self.total = self.total + log_weights.sum(1)
        new = log_weights.logsumexp(1)
        self.log_sum = new if self.log_sum is None else torch.logaddexp(self.log_sum, new)

    @property
    def elbo(self) -> Tensor:
        """(B,) float64 nats."""
        assert isinstance(self.total, Tensor)
        return self.total / self.count

    @property
    def bound(self) -> Tensor:
        """(B,) float64 nats, at least `elbo`."""
        assert self.log_sum is not None
        return self.log_sum - math.log(self.count)


def evidence(
    mean: Tensor, log_var: Tensor, log_likelihood: Callable[[Tensor], Tensor], normal: Callable[[int], Tensor], samples: int,
    chunk: int = 64,
) -> Evidence:  # fmt: skip
    """Bounds for rows whose posterior is N(mean, exp(log_var)), (B, L), under the prior N(0, 1).

    `log_likelihood` maps z (B, S, L) to log p(x | z) (B, S); `normal(S)` gives new standard normal numbers (B, S, L).
    """
    found = Evidence()
    mean, log_var = mean[:, None], log_var[:, None]
    for first in range(0, samples, chunk):
        eps = normal(min(chunk, samples - first))
        z = draw(mean, log_var, eps)
        # log p(z) - log q(z | x): the constants cancel, and (z - mean) / deviation is eps
        ratio = 0.5 * (eps.square() + log_var - z.square()).sum(-1)
        found.add(log_likelihood(z) + ratio)
    return found


class LatentUse:
    """Whether the latent numbers say anything about the pictures, over any number of pieces. Holds sums alone."""

    def __init__(self, latent: int) -> None:
        self.count = 0
        self.sums = torch.zeros(3, latent, dtype=torch.float64)  # of KL, mean, and squared mean

    def add(self, mean: Tensor, kl: Tensor) -> None:
        """Posterior means and KL divergences (B, latent) of more pictures."""
        mean, kl = mean.detach().double(), kl.detach().double()
        self.sums += torch.stack([kl.sum(0), mean.sum(0), mean.square().sum(0)]).cpu()
        self.count += len(mean)

    @property
    def kl(self) -> Tensor:
        """Mean KL of each number in nats per picture, (latent,)."""
        return self.sums[0] / max(self.count, 1)

    @property
    def active(self) -> Tensor:
        """Which numbers are in use (latent,): their mean differs from picture to picture."""
        _, first, second = self.sums / max(self.count, 1)
        return second - first.square() > ACTIVE

    @property
    def collapsed(self) -> bool:
        """Whether the code says nothing: no number is in use, or all together say less than one bit."""
        return not self.active.any() or self.kl.sum().item() < math.log(2)

    def words(self) -> str:
        """In one clause; collapse is called by its name, with what helps."""
        used, total = int(self.active.sum()), len(self.active)
        if self.collapsed:
            bits = self.kl.sum().item() / math.log(2)
            return (
                f"posterior collapse: the {total} latent numbers together say {bits:.2g} bits of a picture, the decoder does "
                "without them; try warmup=0.3, free_bits=0.1 or a smaller beta"
            )
        return f"{used} of {total} latent numbers are in use"


__all__ = [
    "Bernoulli",
    "Evidence",
    "Gaussian",
    "LatentUse",
    "Likelihood",
    "draw",
    "evidence",
    "kl_to_standard",
    "log_normal",
    "told",
]
