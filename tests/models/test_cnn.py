"""CNN against functional calls in float64, against scipy's correlation, and on scikit-learn's digits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.signal import correlate
from sklearn.datasets import load_digits
from torch import Tensor

from engram.models.cnn import CNN


def functional(net: CNN, x: Tensor, weights: dict[str, Tensor], convs: int, pool: str) -> Tensor:
    """Batch norm, ReLU, one hidden layer of dense features; no dropout."""
    for stage in range(2):
        for conv in range(convs):
            name = f"stages.{stage}.{3 * conv}"
            x = F.conv2d(F.pad(x, (1, 1, 1, 1)), weights[f"{name}.weight"])
            name = f"stages.{stage}.{3 * conv + 1}"
            mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
            scale, shift = (weights[f"{name}.{p}"].view(1, -1, 1, 1) for p in ("weight", "bias"))
            x = ((x - mean) / (var + 1e-5).sqrt() * scale + shift).relu()
        b, c, h, w = x.shape
        tiles = x[:, :, : h // 2 * 2, : w // 2 * 2].reshape(b, c, h // 2, 2, w // 2, 2)
        x = tiles.amax((3, 5)) if pool == "max" else tiles.mean((3, 5))
    x = x.reshape(len(x), -1)
    x = (x @ weights["dense.1.weight"].T + weights["dense.1.bias"]).relu()
    return x @ weights["head.weight"].T + weights["head.bias"]


@pytest.mark.parametrize("convs", [1, 2])
@pytest.mark.parametrize("pool", ["max", "avg"])
def test_equals_functional_calls(pool: str, convs: int) -> None:
    """Outputs and every gradient to 1e-9, on a size that two pools do not divide."""
    torch.manual_seed(0)
    net = CNN(2, (11, 9), 3, (4, 5), (6,), pool=pool, dropout=0, convs_per_stage=convs).double()
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.5)
    x = torch.randn(4, 2, 11, 9, dtype=torch.float64)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    weights = {name: p.detach().clone().requires_grad_() for name, p in net.named_parameters()}
    y, expected = net(ours), functional(net, theirs, weights, convs, pool)
    torch.testing.assert_close(y, expected, atol=1e-10, rtol=1e-10)
    got = torch.autograd.grad(y.square().sum(), [ours, *net.parameters()])
    want = torch.autograd.grad(expected.square().sum(), [theirs, *weights.values()])
    for name, a, b in zip(["input", *weights], got, want, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9, msg=name)


def test_equals_scipy_correlation() -> None:
    """Without norm: bias, tanh, average pool and the mean over the map, to 1e-12."""
    torch.manual_seed(0)
    net = CNN(2, (6, 8), 3, (4,), (), "tanh", "none", "avg", dropout=0, kernel=5, average=True).double()
    x = torch.randn(2, 2, 6, 8, dtype=torch.float64)
    conv = net.stages.get_submodule("0.0")
    weight, bias = (p.detach().numpy() for p in conv.parameters())
    features = np.zeros((2, 4))
    for image, row in zip(x.numpy(), features, strict=True):
        for c in range(4):
            total = sum(correlate(image[i], weight[c, i], "same") for i in range(2))
            row[c] = np.tanh(total + bias[c]).mean()
    expected = features @ net.head.weight.detach().numpy().T + net.head.bias.detach().numpy()
    np.testing.assert_allclose(net(x).detach().numpy(), expected, atol=1e-12)


def test_default_is_two_convolutions_under_100_000_parameters() -> None:
    net = CNN(1, (28, 28), 10)
    convolutions = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == 2
    assert sum(p.numel() for p in net.parameters()) < 100_000


@pytest.mark.parametrize("size", [(4, 4), (5, 7), (8, 8), (28, 28), (33, 4)])
@pytest.mark.parametrize("average", [False, True])
def test_any_size_of_four_or_more(size: tuple[int, int], average: bool) -> None:
    net = CNN(3, size, 2, (4, 5, 6, 7), average=average)
    assert net(torch.randn(2, 3, *size)).shape == (2, 2)


def test_learns_digits_in_seconds() -> None:
    torch.manual_seed(0)
    pixels, labels = load_digits(return_X_y=True)
    x = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 8 - 1
    y = torch.tensor(labels)
    net = CNN(1, (8, 8), 10, (8, 16))
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(120):
        rows = torch.randint(0, 1400, (64,))
        optimizer.zero_grad()
        F.cross_entropy(net(x[rows]), y[rows]).backward()
        optimizer.step()
    net.eval()
    assert (net(x[1400:]).argmax(1) == y[1400:]).float().mean().item() > 0.9


def test_errors() -> None:
    with pytest.raises(ValueError, match="unknown pool 'mean'"):
        CNN(1, (8, 8), 2, pool="mean")
    with pytest.raises(ValueError, match="kernel must be odd"):
        CNN(1, (8, 8), 2, kernel=4)
