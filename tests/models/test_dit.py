"""DiT against functional calls and torch's own attention, with the same weights; and what its paper promises."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from engram.models.dit import DiT, grid_positions


def small(**knobs: int) -> DiT:
    torch.manual_seed(0)
    return DiT(3, (8, 12), **{"classes": 5, "patch": 2, "width": 32, "layers": 2, "heads": 4, **knobs})


def awake(net: DiT) -> DiT:
    """Nothing zero, so that every branch counts."""
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.1)
    return net.double()


def reference(net: DiT, x: Tensor, t: Tensor, y: Tensor, w: dict[str, Tensor]) -> Tensor:
    """Patches by hand, positions by loops, attention by torch.nn.functional's multi-head function."""
    b, c, height, width = x.shape
    p, d = net.patch, net.embed.out_channels
    patches = [x[:, :, i : i + p, j : j + p].reshape(b, -1) for i in range(0, height, p) for j in range(0, width, p)]
    tokens = torch.stack(patches, 1) @ w["embed.weight"].reshape(d, -1).T + w["embed.bias"]
    places = []
    for i in range(height // p):
        for j in range(width // p):
            angle = [place / 10000 ** (k / (d // 4)) for place in (j, i) for k in range(d // 4)]
            q = d // 4
            sines, cosines = [math.sin(a) for a in angle], [math.cos(a) for a in angle]
            places.append(sines[:q] + cosines[:q] + sines[q:] + cosines[q:])
    tokens = tokens + torch.tensor(places, dtype=x.dtype)
    rates = torch.tensor([10000 ** (-k / 128) for k in range(128)], dtype=x.dtype)
    angle = 1000 * t[:, None].to(x.dtype) * rates
    wave = torch.cat([angle.cos(), angle.sin()], 1)
    given = F.linear(F.silu(F.linear(wave, w["time.0.weight"], w["time.0.bias"])), w["time.2.weight"], w["time.2.bias"])
    given = given + w["label.weight"][y]

    def normed(z: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return F.layer_norm(z, (d,), eps=1e-6) * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)

    for n in range(len(net.blocks)):
        at = f"blocks.{n}."
        six = F.linear(F.silu(given), w[at + "modulate.1.weight"], w[at + "modulate.1.bias"]).split(d, 1)
        h = normed(tokens, six[0], six[1]).transpose(0, 1)
        heads: int = net.blocks[n].heads  # type: ignore[assignment]
        h, _ = F.multi_head_attention_forward(
            h, h, h, d, heads, w[at + "qkv.weight"], w[at + "qkv.bias"], None, None, False, 0.0,
            w[at + "join.weight"], w[at + "join.bias"], need_weights=True,
        )  # fmt: skip
        tokens = tokens + six[2].unsqueeze(1) * h.transpose(0, 1)
        h = F.linear(normed(tokens, six[3], six[4]), w[at + "ffn.0.weight"], w[at + "ffn.0.bias"])
        h = F.linear(F.gelu(h, approximate="tanh"), w[at + "ffn.2.weight"], w[at + "ffn.2.bias"])
        tokens = tokens + six[5].unsqueeze(1) * h
    shift, scale = F.linear(F.silu(given), w["modulate.1.weight"], w["modulate.1.bias"]).split(d, 1)
    tokens = F.linear(normed(tokens, shift, scale), w["out.weight"], w["out.bias"])  # (B, N, p p C)
    out = torch.empty_like(x)
    for n in range(tokens.shape[1]):
        i, j = n // (width // p) * p, n % (width // p) * p
        out[:, :, i : i + p, j : j + p] = tokens[:, n].reshape(b, p, p, c).permute(0, 3, 1, 2)
    return out


def test_equals_functional_calls() -> None:
    """Outputs and every gradient to 1e-5; times in single precision set the limit."""
    net = awake(small())
    x = torch.randn(4, 3, 8, 12, dtype=torch.float64)
    t, y = torch.tensor([0.0, 0.31, 0.5, 1.0]), torch.tensor([0, 4, 5, 2])
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    weights = {name: p.detach().clone().requires_grad_() for name, p in net.named_parameters()}
    got, want = net(ours, t, y), reference(net, theirs, t, y, weights)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    assert got.abs().mean() > 0.05
    first = torch.autograd.grad(got.square().mean(), [ours, *net.parameters()])
    second = torch.autograd.grad(want.square().mean(), [theirs, *weights.values()])
    for name, a, b in zip(["input", *weights], first, second, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5, msg=name)


def test_starts_at_zero_with_blocks_that_do_nothing() -> None:
    net = small()
    x, t, y = torch.randn(2, 3, 8, 12), torch.rand(2), torch.tensor([1, 2])
    assert net(x, t, y).abs().max() == 0
    tokens, given = torch.randn(2, 24, 32), torch.randn(2, 32)
    assert torch.equal(net.blocks[0](tokens, given), tokens)


def test_no_class_is_a_class_of_its_own() -> None:
    net = awake(small())
    x, t = torch.randn(2, 3, 8, 12, dtype=torch.float64), torch.rand(2)
    none = net(x, t)
    assert torch.equal(none, net(x, t, torch.tensor([5, 5])))
    assert not torch.allclose(none, net(x, t, torch.tensor([0, 5])))
    assert DiT(1, (4, 4), 0, width=8, layers=1, heads=2).label is None


def test_positions_tell_rows_from_columns() -> None:
    table = grid_positions(3, 5, 16)
    assert table.shape == (15, 16)
    assert len(table.unique(dim=0)) == 15
    torch.testing.assert_close(table[1, 8:], table[0, 8:])  # the next column: the half of the rows stays
    torch.testing.assert_close(table[5, :8], table[0, :8])  # the next row: the half of the columns stays


def test_cost_counts_what_runs() -> None:
    net = small()
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        net(torch.randn(1, 3, 8, 12), torch.rand(1))
    assert net.cost() == counter.get_total_flops() // 2


def test_errors() -> None:
    with pytest.raises(ValueError, match="patch must divide"):
        DiT(1, (8, 7))
    with pytest.raises(ValueError, match="divisible by heads"):
        DiT(1, (8, 8), width=30, heads=4)
