"""Starting weights: measured variances against the formulas, and signals that keep their size."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from engram.nn import ACTIVATIONS, activation, gain, initialise

# Each is wide enough that a measured variance lies within 5 % of the true one, and its fans counted by hand.
LAYERS = {
    "linear": (lambda: nn.Linear(300, 200), 300, 200),
    "conv": (lambda: nn.Conv2d(40, 60, 3), 40 * 9, 60 * 9),
    "grouped": (lambda: nn.Conv2d(40, 80, 5, groups=4), 10 * 25, 20 * 25),
    "conv1d": (lambda: nn.Conv1d(90, 70, 5), 90 * 5, 70 * 5),
    "transposed": (lambda: nn.ConvTranspose2d(50, 60, 4, stride=2), 50 * 4, 60 * 16),
}
VARIANCES = {
    "xavier_uniform": lambda i, o, g: 2 / (i + o),
    "xavier_normal": lambda i, o, g: 2 / (i + o),
    "he_uniform": lambda i, o, g: g**2 / i,
    "he_normal": lambda i, o, g: g**2 / i,
    "lecun_normal": lambda i, o, g: 1 / i,
}


@pytest.mark.parametrize("act", ["relu", "leaky_relu", "tanh"])
@pytest.mark.parametrize("scheme", VARIANCES)
@pytest.mark.parametrize("kind", LAYERS)
def test_variance_follows_the_formula(kind: str, scheme: str, act: str) -> None:
    make, fan_in, fan_out = LAYERS[kind]
    layer = make()
    initialise(layer, scheme, act, generator=torch.Generator().manual_seed(1))
    factor = {"relu": math.sqrt(2), "leaky_relu": math.sqrt(2 / 1.0001), "tanh": 1.0}[act]
    variance = VARIANCES[scheme](fan_in, fan_out, factor)
    weight = layer.weight.detach()
    assert weight.var().item() == pytest.approx(variance, rel=0.05)
    assert abs(weight.mean().item()) < 0.02 * math.sqrt(variance)
    if scheme.endswith("uniform"):
        assert weight.abs().max().item() == pytest.approx(math.sqrt(3 * variance), rel=0.01)
    else:
        assert weight.abs().max().item() > 3 * math.sqrt(variance)
    assert layer.bias.count_nonzero() == 0


def test_gain_of_leaky_relu_counts_its_slope() -> None:
    assert gain("leaky_relu") == pytest.approx(math.sqrt(2 / (1 + 0.01**2)), abs=1e-12)
    assert [gain(name) for name in ("relu", "linear")] == [math.sqrt(2), 1]
    assert all(gain(name) > 0 for name in ACTIVATIONS)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_auto_picks_the_scheme_that_suits(name: str) -> None:
    auto, named = nn.Linear(30, 20), nn.Linear(30, 20)
    initialise(auto, "auto", name, generator=torch.Generator().manual_seed(1))
    he = name in ("relu", "leaky_relu", "gelu", "silu", "elu")
    initialise(named, "he_normal" if he else "xavier_uniform", name, generator=torch.Generator().manual_seed(1))
    assert torch.equal(auto.weight, named.weight)


@pytest.mark.parametrize("name", ["relu", "leaky_relu"])
def test_he_keeps_the_second_moment_through_depth(name: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(*[m for _ in range(10) for m in (nn.Linear(512, 512), activation(name))])
    initialise(net, "he_normal", name)
    y = net(torch.randn(64, 512))
    assert 0.7 < y.square().mean().item() < 1.4  # unit in, unit out; without the gain it would be 2^-10


def test_transposed_convolution_keeps_the_variance() -> None:
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(64, 64, 4, stride=2, padding=1)
    initialise(layer, "lecun_normal")
    y = layer(torch.randn(4, 64, 16, 16))[:, :, 2:-2, 2:-2]
    assert y.var().item() == pytest.approx(1, rel=0.1)


def test_orthogonal_rows_times_gain_and_scale() -> None:
    layer = nn.Linear(30, 20).double()
    initialise(layer, "orthogonal", "relu", scale=0.5)
    product = layer.weight @ layer.weight.T
    torch.testing.assert_close(product, torch.eye(20, dtype=torch.float64) * 0.5, atol=1e-12, rtol=0)  # 2 * 0.5^2


def test_zeros_norms_and_scale() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.GroupNorm(2, 8), nn.Flatten(), nn.Linear(8, 4))
    net.append(nn.LayerNorm(4))
    for p in net.parameters():
        nn.init.constant_(p, 7)
    initialise(net, "zeros")
    ones = {"1.weight", "2.weight", "5.weight"}
    for name, p in net.named_parameters():
        assert torch.equal(p, torch.full_like(p, float(name in ones))), name
    a, b = nn.Linear(5, 5), nn.Linear(5, 5)
    initialise(a, "he_normal", "relu", torch.Generator().manual_seed(3))
    initialise(b, "he_normal", "relu", torch.Generator().manual_seed(3), scale=0.1)
    torch.testing.assert_close(a.weight * 0.1, b.weight)


def test_draws_come_from_the_global_generator_by_default() -> None:
    layers = [nn.Linear(6, 6), nn.Linear(6, 6)]
    for layer in layers:
        torch.manual_seed(5)
        initialise(layer)
    assert torch.equal(layers[0].weight, layers[1].weight)


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match="did you mean 'he_normal'"):
        initialise(nn.Linear(2, 2), "he_norml")
    with pytest.raises(ValueError, match="unknown activation"):
        initialise(nn.Linear(2, 2), "zeros", "rleu")
