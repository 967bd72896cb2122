"""Both variational autoencoders against functional calls in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.models.conv_vae import ConvVAE
from engram.models.vae import VAE


def dense(w: dict[str, Tensor], x: Tensor, y: Tensor | None, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    def layer(name: str, x: Tensor) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    told = 5 * torch.eye(classes).double()[y] if y is not None else x.new_zeros(len(x), 0)
    h = torch.cat([x.reshape(len(x), -1), told], 1)
    h = layer("posterior", layer("encoder.2", layer("encoder.0", h).tanh()).tanh())
    mean, log_var = h[:, :4], h[:, 4:]
    g = layer("decoder.2", layer("decoder.0", torch.cat([mean, told], 1)).tanh()).tanh()
    return mean, log_var, layer("pixels", g).reshape(x.shape)


def conv(w: dict[str, Tensor], x: Tensor, y: Tensor | None, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    told = 5 * torch.eye(classes).double()[y] if y is not None else x.new_zeros(len(x), 0)
    h = x
    for n in (0, 3):
        h = F.conv2d(h, w[f"encoder.{n}.weight"], w[f"encoder.{n}.bias"], 2, 1)
        h = F.silu(F.group_norm(h, h.shape[1] // 2, w[f"encoder.{n + 1}.weight"], w[f"encoder.{n + 1}.bias"]))
    h = torch.cat([h.flatten(1), told], 1) @ w["posterior.weight"].T + w["posterior.bias"]
    mean, log_var = h[:, :4], h[:, 4:]
    g = torch.cat([mean, told], 1) @ w["start.weight"].T + w["start.bias"]
    g = g.reshape(len(x), 8, 2, 1)
    for n, odd in ((0, (0, 1)), (3, (1, 0))):
        g = F.silu(F.group_norm(g, g.shape[1] // 2, w[f"decoder.{n}.weight"], w[f"decoder.{n}.bias"]))
        g = F.conv_transpose2d(g, w[f"decoder.{n + 2}.weight"], w[f"decoder.{n + 2}.bias"], 2, 1, output_padding=odd)
    return mean, log_var, g


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_equals_functional_calls(kind: str, classes: int) -> None:
    """Posterior, decoding and every gradient to 1e-9."""
    torch.manual_seed(0)
    net: nn.Module = (
        VAE(2, 9, 6, 4, (7, 5), classes=classes) if kind == "dense" else ConvVAE(2, 9, 6, 4, (6, 8), classes=classes)
    )
    net = net.double()
    for p in net.parameters():
        nn.init.normal_(p, std=0.3)
    x, y = torch.rand(5, 2, 9, 6).double(), torch.randint(0, 3, (5,)) if classes else None
    weights = {name: p.detach().clone().requires_grad_() for name, p in net.named_parameters()}
    expected = (dense if kind == "dense" else conv)(weights, x, y, classes)
    mean, log_var = net.encode(x, y)  # type: ignore[operator]
    ours = (mean, log_var, net.decode(mean, y))  # type: ignore[operator]
    torch.testing.assert_close(net(x, y), ours[2])
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)
    got = torch.autograd.grad(sum(t.square().sum() for t in ours), list(net.parameters()))  # type: ignore[arg-type]
    want = torch.autograd.grad(sum(t.square().sum() for t in expected), list(weights.values()))  # type: ignore[arg-type]
    for name, a, b in zip(weights, got, want, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9, msg=name)


@pytest.mark.parametrize("net", [VAE(1, 28, 28), ConvVAE(1, 28, 28), ConvVAE(3, 17, 30, widths=(4, 8, 8))])
def test_cost_counts_the_multiplications(net: VAE | ConvVAE) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.zeros(1, *net.shape))
    assert net.cost() == counter.get_total_flops() // 2


@pytest.mark.parametrize("kind", [VAE, ConvVAE])
def test_untrained_is_near_even_odds(kind: type[VAE | ConvVAE]) -> None:
    torch.manual_seed(0)
    net = kind(1, 28, 28)
    assert net(torch.rand(8, 1, 28, 28)).abs().mean() < 0.3
    mean, log_var = net.encode(torch.rand(8, 1, 28, 28))
    assert mean.shape == log_var.shape == (8, net.latent)
    assert log_var.abs().max() < 4


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (33, 4)])
def test_any_size_comes_back(size: tuple[int, int]) -> None:
    assert ConvVAE(3, *size)(torch.rand(2, 3, *size)).shape == (2, 3, *size)
    assert VAE(3, *size)(torch.rand(2, 3, *size)).shape == (2, 3, *size)


def test_errors() -> None:
    with pytest.raises(ValueError, match="needs y"):
        VAE(1, 4, 4, classes=2)(torch.rand(2, 1, 4, 4))
    with pytest.raises(ValueError, match="needs y"):
        ConvVAE(1, 4, 4, classes=2)(torch.rand(2, 1, 4, 4))
    with pytest.raises(ValueError, match="use fewer widths"):
        ConvVAE(1, 4, 4, widths=(4, 4, 4))
