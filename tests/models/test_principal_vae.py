"""The VAE that starts from principal axes: it begins as probabilistic PCA, whose evidence is known in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from engram.models.conv_vae import ConvVAE
from engram.models.principal_vae import PrincipalVAE
from engram.models.vae import VAE
from engram.nn.gaussian import Gaussian, draw, kl_to_standard
from engram.nn.principal import principal


def pictures(n: int = 300) -> Tensor:
    g = torch.Generator().manual_seed(0)
    wide = torch.randn(3, 48, generator=torch.Generator().manual_seed(1))
    return (0.5 + 0.05 * (torch.randn(n, 3, generator=g) @ wide) + 0.02 * torch.randn(n, 48, generator=g)).view(n, 3, 4, 4)


def silent(net: nn.Module) -> None:
    for last in net.last():  # type: ignore[operator]
        for p in last.parameters():
            nn.init.zeros_(p)


@pytest.mark.parametrize("kind", [VAE, ConvVAE])
def test_begins_as_probabilistic_pca(kind: type[VAE | ConvVAE]) -> None:
    """The bound equals the evidence of Tipping & Bishop's model: the posterior is exact."""
    torch.manual_seed(0)
    x = pictures()
    found = principal(x.flatten(1), 3)
    net: nn.Module = kind(3, 4, 4, 3, (8,))
    model, pixels = PrincipalVAE(net), Gaussian()
    model.start(found)
    pixels.start(found.seen, found.unseen - found.seen)
    silent(net)
    variance = found.unseen
    assert pixels.log_var.exp().item() == pytest.approx(variance, rel=1e-4)
    w = (found.axes.T * (found.spread - variance).sqrt()).double()
    evidence = MultivariateNormal(found.mean[0].double(), w @ w.T + variance * torch.eye(48).double())
    expected = evidence.log_prob(x[:50].flatten(1).double()).mean()
    mean, log_var = model.encode(x[:50])
    eps = torch.randn(2000, 50, 3)
    fits = pixels.log_density(x[:50], model.decode(draw(mean, log_var, eps).flatten(0, 1)).unflatten(0, (2000, 50)))
    bound = (fits.mean(0) - kl_to_standard(mean, log_var).sum(1)).mean()
    assert bound.item() == pytest.approx(expected.item(), abs=0.1)


@pytest.mark.parametrize("kind", [VAE, ConvVAE])
def test_the_network_begins_as_a_small_correction_and_learns(kind: type[VAE | ConvVAE]) -> None:
    torch.manual_seed(0)
    x = pictures()
    model = PrincipalVAE(kind(3, 4, 4, 3, (8,)))
    model.start(principal(x.flatten(1), 3))
    near = model(x)
    assert (near - x).square().mean().sqrt() < 0.03
    near.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for n, p in model.named_parameters() if "posterior" not in n)
    assert {n for n, _ in model.named_buffers()} == {"mean", "axes", "into", "out", "log_var", "deviation"}


def test_without_axes_it_is_the_network() -> None:
    torch.manual_seed(0)
    net = VAE(3, 4, 4, 3, (8,))
    model, x = PrincipalVAE(net), pictures(5)
    torch.testing.assert_close(model(x), net(x))
    for a, b in zip(model.encode(x), net.encode(x), strict=True):
        torch.testing.assert_close(a, b)
    assert model.cost() == net.cost() + 2 * 3 * 48


def test_class_means() -> None:
    """A class moves the picture by its mean, so that the code need not hold it."""
    torch.manual_seed(0)
    x, y = pictures(), torch.arange(300) % 2
    x = x + 0.3 * y.view(-1, 1, 1, 1)
    net = VAE(3, 4, 4, 3, (8,), classes=2)
    model = PrincipalVAE(net)
    model.start(principal(x.flatten(1), 3, y, 2))
    silent(net)
    z = torch.randn(4, 3)
    one, two = (model.decode(z, torch.full((4,), k)) for k in (0, 1))
    assert (two - one).mean().item() == pytest.approx(0.3, abs=0.02)
    with pytest.raises(ValueError, match="needs y"):
        model.decode(z)


def test_pictures_that_are_all_alike() -> None:
    model = PrincipalVAE(VAE(1, 4, 4, 3, (8,)))
    model.start(principal(torch.full((9, 16), 0.4), 3))
    mean, log_var = model.encode(torch.full((2, 1, 4, 4), 0.4))
    out = model.decode(draw(mean, log_var, torch.randn(2, 3)))
    assert torch.isfinite(out).all()
    assert (out - 0.4).abs().max() < 0.01
    assert math.isfinite(log_var.sum().item())
