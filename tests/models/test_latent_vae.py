"""The autoencoder of latent diffusion against functional calls with the same weights; what its measured codes promise."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from engram.models.latent_vae import LatentVAE
from engram.nn.norm import norm


def small() -> LatentVAE:
    torch.manual_seed(0)
    return LatentVAE(3, (8, 12), 2, (4, 6)).double()


def test_equals_functional_calls() -> None:
    """Mean, log variance, the decoded picture and every gradient to 1e-9, with another way to fold pixels."""
    net = small()
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.3)
    w = {name: p.detach().clone().requires_grad_() for name, p in net.named_parameters()}

    def conv(x: Tensor, at: str) -> Tensor:
        return F.conv2d(x, w[f"{at}.weight"], w[f"{at}.bias"], padding=w[f"{at}.weight"].shape[2] // 2)

    def act(x: Tensor, at: str) -> Tensor:
        groups: int = norm("group", x.shape[1]).num_groups  # type: ignore[assignment]
        y = F.group_norm(x, groups, w[f"{at}.weight"], w[f"{at}.bias"])
        return y * torch.sigmoid(y)

    def residual(x: Tensor, at: str) -> Tensor:
        y = conv(act(x, f"{at}.norm1"), f"{at}.conv1")
        return x + conv(act(y, f"{at}.norm2"), f"{at}.conv2")

    def fold(x: Tensor) -> Tensor:
        b, c, h, v = x.shape
        return x.reshape(b, c, h // 2, 2, v // 2, 2).permute(0, 1, 3, 5, 2, 4).reshape(b, 4 * c, h // 2, v // 2)

    def unfold(x: Tensor) -> Tensor:
        b, c, h, v = x.shape
        return x.reshape(b, c // 4, 2, 2, h, v).permute(0, 1, 4, 2, 5, 3).reshape(b, c // 4, 2 * h, 2 * v)

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        y = residual(conv(fold(x), "down.1"), "down.2")
        y = residual(conv(fold(y), "down.4"), "down.5")
        y = conv(act(y, "down.6"), "down.8")
        return y[:, :2], y[:, 2:].clamp(-20, 10)

    def decode(z: Tensor) -> Tensor:
        y = unfold(conv(act(residual(conv(z, "up.0"), "up.1"), "up.2"), "up.4"))
        return unfold(conv(act(residual(y, "up.6"), "up.7"), "up.9"))

    x = torch.randn(3, 3, 8, 12, dtype=torch.float64)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    got, want = (*net.encode(ours), net.decode(net.encode(ours)[0])), (*encode(theirs), decode(encode(theirs)[0]))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)
    first = torch.autograd.grad(sum((g.square().mean() for g in got), torch.zeros(())), [ours, *net.parameters()])
    second = torch.autograd.grad(sum((g.square().mean() for g in want), torch.zeros(())), [theirs, *w.values()])
    for name, a, b in zip(["input", *w], first, second, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9, msg=name)


def test_measured_codes_have_mean_0_and_deviation_1() -> None:
    net = small()
    x = torch.randn(64, 3, 8, 12, dtype=torch.float64) * 3 + 1
    mean = net.encode(x)[0]
    torch.testing.assert_close(net(x), mean)  # nothing measured: as they are
    net.moments += torch.stack([torch.full((2,), 64 * 6.0), mean.sum((0, 2, 3)), mean.square().sum((0, 2, 3))]).detach()
    codes = net(x)
    torch.testing.assert_close(codes.mean((0, 2, 3)), torch.zeros(2).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(codes.var((0, 2, 3), correction=0), torch.ones(2).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(net.pictures(codes), net.decode(mean))


def test_untrained_pictures_are_small_and_codes_hardly_noisy() -> None:
    net = LatentVAE(3, (32, 32))
    x = torch.randn(4, 3, 32, 32)
    mean, log_var = net.encode(x)
    assert mean.shape == (4, 4, 8, 8)
    assert net.decode(mean).square().mean() < 0.4
    assert log_var.mean().item() == pytest.approx(-4, abs=0.3)


def test_cost_counts_what_runs() -> None:
    net = small().float()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.decode(net.encode(torch.randn(1, 3, 8, 12))[0])
    assert net.cost() == counter.get_total_flops() // 2


def test_sides_must_be_divisible() -> None:
    with pytest.raises(ValueError, match="whose sides 4 divides; got 8 x 6"):
        LatentVAE(1, (8, 6), 2, (4, 4))
