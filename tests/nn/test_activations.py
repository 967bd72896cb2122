"""Every activation against its formula in numpy, value and derivative, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import erf

from engram.nn import ACTIVATIONS, activation

X = np.array([-3.0, -1.5, -0.7, -0.1, 0.2, 0.9, 1.3, 4.0])
SIGMOID = 1 / (1 + np.exp(-X))
NORMAL = (1 + erf(X / np.sqrt(2))) / 2
DENSITY = np.exp(-(X**2) / 2) / np.sqrt(2 * np.pi)
FORMULAS = {  # name: value, derivative
    "linear": (X, np.ones_like(X)),
    "sigmoid": (SIGMOID, SIGMOID * (1 - SIGMOID)),
    "tanh": (np.tanh(X), 1 - np.tanh(X) ** 2),
    "relu": (np.maximum(X, 0), (X > 0) * 1.0),
    "leaky_relu": (np.where(X > 0, X, 0.01 * X), np.where(X > 0, 1, 0.01)),
    "gelu": (X * NORMAL, NORMAL + X * DENSITY),
    "silu": (X * SIGMOID, SIGMOID * (1 + X * (1 - SIGMOID))),
    "elu": (np.where(X > 0, X, np.exp(X) - 1), np.where(X > 0, 1, np.exp(X))),
    "step": ((X > 0) * 1.0, (np.abs(X) <= 1) * 1.0),  # the derivative is the straight-through one
}


@pytest.mark.parametrize("name", FORMULAS)
def test_value_and_derivative_follow_the_formula(name: str) -> None:
    x = torch.tensor(X, requires_grad=True)
    y = activation(name)(x)
    y.sum().backward()
    value, derivative = FORMULAS[name]
    np.testing.assert_allclose(y.detach().numpy(), value, atol=1e-12)
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), derivative, atol=1e-12)


def test_every_name_is_tested() -> None:
    assert {*FORMULAS, "softmax"} == set(ACTIVATIONS)


@pytest.mark.parametrize("shape", [(3, 5), (2, 5, 4, 3)])
def test_softmax_normalises_dimension_one(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(shape, dtype=torch.float64)
    y = activation("softmax")(x)
    (y * weight).sum().backward()
    e = np.exp(x.detach().numpy())
    p = e / e.sum(1, keepdims=True)
    np.testing.assert_allclose(y.detach().numpy(), p, atol=1e-12)
    w = weight.numpy()  # d/dx sum(w p) = p (w - sum(w p))
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), p * (w - (w * p).sum(1, keepdims=True)), atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_step_is_exactly_zero_or_one_and_clips_its_gradient(dtype: torch.dtype) -> None:
    x = torch.tensor([-2.0, -1.0, -0.3, 0.0, 0.3, 1.0, 2.0], dtype=dtype, requires_grad=True)
    upstream = torch.arange(1.0, 8.0, dtype=dtype)
    y = activation("step")(x)
    y.backward(upstream)
    assert y.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert x.grad is not None
    assert x.grad.tolist() == [0, 2, 3, 4, 5, 6, 0]
    assert activation("step")(torch.tensor([float("nan")])).isnan().item()


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match="unknown activation 'leaky-relu': did you mean 'leaky_relu'"):
        activation("leaky-relu")
    with pytest.raises(ValueError, match="choose from step, linear"):
        activation("qqq")
