"""The likelihood of black and white pixels against torch's own formula: values, first and second gradients, extremes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from engram.nn.coin import log_coin


def plain(x: Tensor, logit: Tensor) -> Tensor:
    return (x * logit).sum(-1) - F.softplus(logit).sum(-1)


@pytest.mark.parametrize("pixels", [48, 21])  # in groups, and a number that groups do not divide
@pytest.mark.parametrize("shape", [(5,), (5, 3)])
def test_values_and_gradients_are_those_of_softplus(pixels: int, shape: tuple[int, ...]) -> None:
    """To 1e-12 in float64, grey pixels too, with x broadcast over several decodings; the second gradient to 1e-8."""
    torch.manual_seed(0)
    x = torch.rand(5, *[1] * (len(shape) - 1), pixels, dtype=torch.float64, requires_grad=True)
    logit = (4 * torch.randn(*shape, pixels, dtype=torch.float64)).requires_grad_()
    weight = torch.randn(shape, dtype=torch.float64)
    found, expected = log_coin(x, logit), plain(x, logit)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
    firsts = [torch.autograd.grad((out * weight).sum(), [x, logit], create_graph=True) for out in (found, expected)]
    for a, b in zip(*firsts, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)
    seconds = [torch.autograd.grad(first[0].square().sum() + first[1].square().sum(), [x, logit]) for first in firsts]
    for a, b in zip(*seconds, strict=True):
        torch.testing.assert_close(a, b, atol=1e-8, rtol=1e-8)


def test_large_log_odds_stay_finite() -> None:
    logit = torch.tensor([-1e4, -200.0, -60.0, 60.0, 200.0, 1e4]).repeat(16)[None].requires_grad_()
    for value in (0.0, 1.0):
        x = torch.full_like(logit, value)
        found = log_coin(x, logit)
        torch.testing.assert_close(found, plain(x, logit))
        (slope,) = torch.autograd.grad(found.sum(), logit)
        torch.testing.assert_close(slope, x - logit.sigmoid(), atol=1e-7, rtol=1e-6)


def test_half_precision_is_computed_in_the_wider_dtype() -> None:
    """bf16 log-odds of fp32 pixels: the sum keeps fp32's digits, and the gradient comes back as bf16."""
    torch.manual_seed(0)
    x, logit = torch.randint(0, 2, (3, 784)).float(), torch.randn(3, 784).bfloat16().requires_grad_()
    found = log_coin(x, logit)
    torch.testing.assert_close(found, plain(x, logit.float()), rtol=1e-6, atol=1e-4)
    assert torch.autograd.grad(found.sum(), logit)[0].dtype == torch.bfloat16


def test_rows_do_not_depend_on_each_other() -> None:
    torch.manual_seed(0)
    x, logit = torch.rand(7, 784), torch.randn(7, 784)
    assert torch.equal(log_coin(x, logit)[2:5], log_coin(x[2:5], logit[2:5]))
