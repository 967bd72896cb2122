"""Attention against a loop over rows in float64, its masks against their definition."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from engram.nn.attention import (
    Attend,
    _written,
    attention_weights,
    causal_mask,
    document_mask,
    join_heads,
    lengths_mask,
    split_heads,
)


def loop(q: Tensor, k: Tensor, v: Tensor, may: Tensor, bias: Tensor, scale: float) -> Tensor:
    """Vaswani et al. 2017, Eq. 1, one query at a time; `may` and `bias` are (B, H, T, S)."""
    rows = []
    share = q.shape[1] // k.shape[1]
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            for t in range(q.shape[2]):
                seen = may[b, h, t].nonzero()[:, 0]
                e = torch.stack([(q[b, h, t] @ k[b, h // share, s]) * scale + bias[b, h, t, s] for s in seen]).exp()
                rows.append((e[:, None] / e.sum() * v[b, h // share, seen]).sum(0))
    return torch.stack(rows).view_as(q)


@pytest.mark.parametrize("scale", [None, 1.0])
@pytest.mark.parametrize("groups", [4, 2, 1])
@pytest.mark.parametrize("kind", ["none", "causal", "bool", "bool and causal", "bias", "bias and causal"])
def test_equals_a_loop(kind: str, groups: int, scale: float | None) -> None:
    """Fused and written out, and the gradients of the fused, to 1e-10."""
    torch.manual_seed(0)
    q = torch.randn(2, 4, 5, 6, dtype=torch.float64, requires_grad=True)
    k, v = (torch.randn(2, groups, 5, 6, dtype=torch.float64, requires_grad=True) for _ in range(2))
    causal, mask, bias = "causal" in kind, None, torch.zeros(1, 1, 5, 5, dtype=torch.float64)
    may = torch.ones(2, 4, 5, 5, dtype=torch.bool)
    if "bool" in kind:
        mask = lengths_mask(torch.tensor([3, 5]), 5)
        may = may & mask
    if "bias" in kind:
        mask = bias = torch.randn(1, 4, 5, 5, dtype=torch.float64)
    if causal:
        may = may.tril()
    expected = loop(q, k, v, may, bias.expand(2, 4, 5, 5), 1 / math.sqrt(6) if scale is None else scale)
    got = Attend(scale=scale)(q, k, v, mask, causal)
    torch.testing.assert_close(got, expected, atol=1e-10, rtol=1e-10)
    weights = attention_weights(q, k, mask, causal, scale)
    assert (weights[~may] == 0).all()
    torch.testing.assert_close(weights @ v.repeat_interleave(4 // groups, 1), expected, atol=1e-10, rtol=1e-10)
    for a, b in zip(*(torch.autograd.grad(y.pow(3).sum(), [q, k, v]) for y in (got, expected)), strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


def test_dropout_only_in_training() -> None:
    torch.manual_seed(0)
    q = torch.randn(1, 2, 6, 4)
    attend = Attend(dropout=0.5)
    assert not torch.equal(attend(q, q, q), attend(q, q, q))
    torch.testing.assert_close(attend.eval()(q, q, q), Attend()(q, q, q))


@pytest.mark.parametrize("scale", [None, 1.0])
@pytest.mark.parametrize("kind", ["none", "causal", "bool", "bool and causal"])
def test_written_out_in_bfloat16_equals_the_fused_kernel(kind: str, scale: float | None) -> None:
    """Value and gradients of training within bfloat16's rounding of float32's; a query that may look at nothing gets zeros."""
    torch.manual_seed(0)
    exact = [torch.randn(3, 4, 5, 8).bfloat16().float().requires_grad_() for _ in range(3)]
    rough = [x.detach().bfloat16().requires_grad_() for x in exact]
    mask, causal = lengths_mask(torch.tensor([0, 3, 5]), 5) if "bool" in kind else None, "causal" in kind
    assert _written(rough[0], rough[1], mask)
    assert not _written(exact[0], exact[1], mask)
    with torch.no_grad():
        assert not _written(rough[0], rough[1], mask)
        fused = Attend(scale=scale)(*rough, mask, causal)
    outputs = [Attend(scale=scale)(*x, mask, causal) for x in (exact, rough)]
    if mask is not None:
        assert not outputs[1][0].any()
    torch.testing.assert_close(outputs[1], fused, atol=0.03, rtol=0.03)
    torch.testing.assert_close(outputs[1].float(), outputs[0], atol=0.03, rtol=0.03)
    wanted, got = (torch.autograd.grad(y.float().square().sum(), x) for y, x in zip(outputs, (exact, rough), strict=True))
    for a, b in zip(got, wanted, strict=True):
        assert a.isfinite().all()
        assert (a.float() - b).norm() < 0.03 * b.norm()


def test_many_weights_are_not_written_out() -> None:
    q = torch.empty(2**7, 2, 2**8, 1, dtype=torch.bfloat16, requires_grad=True)
    assert _written(q, q, None)
    assert not _written(q, torch.empty(2**7, 2, 2**8 + 1, 1, dtype=torch.bfloat16), None)


def test_masks() -> None:
    assert lengths_mask(torch.tensor([0, 2, 3]), 3)[:, 0, 0].int().tolist() == [[0, 0, 0], [1, 1, 0], [1, 1, 1]]
    documents = torch.tensor([[4, 4, 4, 0, 0], [1, 2, 2, 2, 2]], dtype=torch.int32)
    for window in (0, 1, 2, 9):
        mask = document_mask(documents, window)
        assert mask.shape == (2, 1, 5, 5)
        for b in range(2):
            for i in range(5):
                for j in range(5):
                    near = j <= i and (window == 0 or i - j < window)
                    assert mask[b, 0, i, j] == (near and documents[b, i] == documents[b, j])
    seen = causal_mask(torch.tensor([[7, 8]]), torch.arange(5, 10)[None], 2)
    assert seen[0, 0].int().tolist() == [[0, 1, 1, 0, 0], [0, 0, 1, 1, 0]]


def test_heads_split_and_join() -> None:
    x = torch.randn(2, 3, 8)
    heads = split_heads(x, 4)
    assert torch.equal(heads[1, 3, 2], x[1, 2, 6:])
    assert torch.equal(join_heads(heads), x)
