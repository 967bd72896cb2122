"""Densities and divergences against torch.distributions, bounds against a model whose evidence is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli as Coin
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from engram.nn.gaussian import Bernoulli, Evidence, Gaussian, draw, evidence, kl_to_standard, log_normal


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def test_densities_and_divergence_equal_torch_distributions() -> None:
    """Values and gradients, to 1e-12."""
    torch.manual_seed(0)
    x, mean, log_var = numbers(5, 7), numbers(5, 7).requires_grad_(), numbers(5, 7).requires_grad_()
    theirs = Normal(mean, (0.5 * log_var).exp())
    pairs = [
        (log_normal(x, mean, log_var), theirs.log_prob(x)),
        (kl_to_standard(mean, log_var), kl_divergence(theirs, Normal(torch.zeros_like(mean), torch.ones_like(mean)))),
    ]
    for ours, expected in pairs:
        torch.testing.assert_close(ours, expected, atol=1e-12, rtol=1e-12)
        grads = [torch.autograd.grad((out * x).sum(), [mean, log_var], retain_graph=True) for out in (ours, expected)]
        for a, b in zip(*grads, strict=True):
            torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-10)
    assert (kl_to_standard(mean, log_var) >= 0).all()
    assert kl_to_standard(torch.zeros(3), torch.zeros(3)).tolist() == [0, 0, 0]


def test_divergence_is_the_mean_log_ratio() -> None:
    """The closed form against a million draws, within 4 standard errors."""
    torch.manual_seed(0)
    mean, log_var = torch.tensor(0.7).double(), torch.tensor(-0.9).double()
    z = draw(mean, log_var, torch.randn(1_000_000, dtype=torch.float64))
    ratio = log_normal(z, mean, log_var) - log_normal(z, torch.zeros(()), torch.zeros(()))
    assert abs(ratio.mean() - kl_to_standard(mean, log_var)) < 4 * ratio.std() / 1000


def test_draws_carry_gradients() -> None:
    """dz/dmean = 1 and dz/dlog_var = eps deviation / 2."""
    mean, log_var = numbers(6).requires_grad_(), numbers(6).requires_grad_()
    eps = numbers(6)
    a, b = torch.autograd.grad(draw(mean, log_var, eps).sum(), [mean, log_var])
    torch.testing.assert_close(a, torch.ones(6).double())
    torch.testing.assert_close(b, 0.5 * eps * (0.5 * log_var).exp())


def test_bernoulli() -> None:
    torch.manual_seed(0)
    coin, x, out = Bernoulli(), torch.randint(0, 2, (3, 1, 4, 5)).double(), numbers(3, 1, 4, 5)
    expected = Independent(Coin(logits=out), 3).log_prob(x)
    torch.testing.assert_close(coin.log_density(x, out), expected, atol=1e-12, rtol=1e-12)
    many = numbers(3, 6, 1, 4, 5)  # six decodings of each picture
    torch.testing.assert_close(coin.log_density(x[:, None], many)[:, 2], coin.log_density(x, many[:, 2]))
    grey = torch.rand(1, 1, 8, 8)
    assert (coin.observe(grey, torch.zeros(1, 1, 8, 8)) == (grey > 0)).all()
    share = torch.stack([coin.observe(grey, torch.rand(1, 1, 8, 8)) for _ in range(4000)]).mean(0)
    assert (share - grey).abs().max() < 0.05
    assert set(coin.observe(grey, torch.rand(1, 1, 8, 8)).unique().tolist()) <= {0, 1}
    assert coin.observe(torch.ones(1), torch.tensor([0.9999])).item() == 1
    assert coin.per_pixel(expected, 20) is expected


@pytest.mark.parametrize("sigma", [0.0, 0.2])
def test_gaussian(sigma: float) -> None:
    """The density with one deviation; fixed or learned, and best where it is the deviation of the errors."""
    torch.manual_seed(0)
    normal, x, out = Gaussian(sigma).double(), torch.rand(50, 1, 4, 5).double(), torch.rand(50, 1, 4, 5).double()
    expected = Independent(Normal(out, sigma or 0.3), 3).log_prob(x)
    torch.testing.assert_close(normal.log_density(x, out), expected, atol=1e-5, rtol=1e-5)
    assert len(list(normal.parameters())) == (sigma == 0)
    if not sigma:
        best = torch.optim.LBFGS(normal.parameters(), line_search_fn="strong_wolfe", max_iter=50)

        def closure() -> Tensor:
            best.zero_grad()
            loss = -normal.log_density(x, out).mean()
            loss.backward()
            return loss

        best.step(closure)
        torch.testing.assert_close(normal.log_var.exp(), (x - out).square().mean(), atol=1e-6, rtol=1e-5)


def test_the_density_of_levels_is_a_probability() -> None:
    """Sharp densities on grey levels: with the noise of a level, the log probability stays below 0, and near log 1/256 for
    pixels of any level and a wide density."""
    torch.manual_seed(0)
    normal = Gaussian(0.001)
    x = torch.randint(0, 256, (2000, 1, 1, 1)) / 255
    seen = normal.observe(x, torch.rand(2000, 1, 1, 1))
    assert (seen - x).abs().max() <= 0.5 / 255 + 1e-6
    assert normal.per_pixel(normal.log_density(seen, x), 1).mean() < 0
    wide = Gaussian(10.0)
    expected = -math.log(255 * 10.0 * math.sqrt(2 * math.pi))
    assert wide.per_pixel(wide.log_density(seen, x), 1).mean().item() == pytest.approx(expected, abs=1e-3)


def linear_gaussian(rows: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x = W z + noise of 0.5: pictures, W, a posterior that is not quite right, and the exact evidence."""
    torch.manual_seed(0)
    w = numbers(6, 3)
    x = numbers(rows, 3) @ w.T + 0.5 * numbers(rows, 6)
    exact = MultivariateNormal(torch.zeros(6).double(), w @ w.T + 0.25 * torch.eye(6)).log_prob(x)
    precision = torch.eye(3) + 4 * w.T @ w
    mean = 4 * x @ w @ torch.linalg.inv(precision)
    return x, w, mean, exact


def bounds(k: int, seed: int, rows: int = 40, chunk: int = 64) -> tuple[Evidence, Tensor]:
    x, w, mean, exact = linear_gaussian(rows)
    log_var = torch.full_like(mean, -2.0)

    def likelihood(z: Tensor) -> Tensor:
        return Independent(Normal(z @ w.T, 0.5), 1).log_prob(x[:, None])

    random = torch.Generator().manual_seed(seed)
    return evidence(
        mean, log_var, likelihood, lambda s: torch.randn(rows, s, 3, generator=random, dtype=torch.float64), k, chunk
    ), exact


def test_the_bound_grows_with_k_to_the_exact_evidence() -> None:
    """Means over 40 rows and 30 seeds: the bound of k draws rises with k, is below the truth, and is within 0.01 nats of it
    for k = 3000; the elbo stays where it is and equals the closed form."""
    means = []
    for k in (1, 2, 8, 64):
        found = [bounds(k, seed) for seed in range(30)]
        means.append(torch.stack([f.bound for f, _ in found]).mean().item())
    exact = bounds(1, 0)[1].mean().item()
    assert means == sorted(means)
    assert all(m < exact for m in means)
    assert means[-1] - means[0] > 0.2
    found, _ = bounds(3000, 99)
    assert (found.bound - bounds(1, 0)[1]).abs().max() < 0.1
    assert found.bound.mean().item() == pytest.approx(exact, abs=0.01)
    assert (found.elbo <= found.bound).all()
    x, w, mean, _ = linear_gaussian(40)
    closed = Independent(Normal(mean @ w.T, 0.5), 1).log_prob(x) - 0.5 * math.exp(-2) * w.square().sum() / 0.25
    closed = closed - kl_to_standard(mean, torch.full_like(mean, -2.0)).sum(1)
    assert found.elbo.mean().item() == pytest.approx(closed.mean().item(), abs=0.02)


def test_with_the_exact_posterior_one_draw_is_enough() -> None:
    torch.manual_seed(0)
    w, noise = torch.tensor([[1.5], [0.5]]).double(), 0.5
    x = numbers(20, 2)
    exact = MultivariateNormal(torch.zeros(2).double(), w @ w.T + noise**2 * torch.eye(2)).log_prob(x)
    precision = 1 + (w.square().sum() / noise**2)
    mean = x @ w / noise**2 / precision
    found = evidence(
        mean, torch.full_like(mean, -math.log(precision)),
        lambda z: Independent(Normal(z @ w.T, noise), 1).log_prob(x[:, None]), lambda s: numbers(20, s, 1), 1,
    )  # fmt: skip
    torch.testing.assert_close(found.bound, exact, atol=1e-9, rtol=1e-9)


def test_pieces_equal_the_whole() -> None:
    """Weights in pieces give what all at once give, also where they differ by hundreds of nats."""
    torch.manual_seed(0)
    weights = 300 * numbers(4, 50)
    whole, cut = Evidence(), Evidence()
    whole.add(weights)
    for piece in weights.split((1, 30, 19), 1):
        cut.add(piece)
    expected = torch.logsumexp(weights, 1) - math.log(50)
    for found in (whole, cut):
        torch.testing.assert_close(found.bound, expected, atol=1e-9, rtol=1e-12)
        torch.testing.assert_close(found.elbo, weights.mean(1), atol=1e-9, rtol=1e-12)
