"""The U-Net that reads words against functional calls and torch's own attention, with the same weights."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from engram.models.text_unet import TextUNet
from engram.nn.attention import attention_weights
from engram.nn.norm import norm
from engram.nn.strided import Strided


def small() -> TextUNet:
    torch.manual_seed(0)
    return TextUNet(3, (5, 6), 8, widths=(8, 12), heads=2)


def words(rows: int = 2) -> Tensor:
    """Captions of three vectors, the last of which is padding in row 0."""
    torch.manual_seed(1)
    out = torch.randn(rows, 3, 9)
    out[..., -1] = 1
    out[0, 2, -1] = 0
    return out


def reference(w: dict[str, Tensor], x: Tensor, t: Tensor, told: Tensor) -> Tensor:
    """Two resolutions, heads of two."""

    def linear(y: Tensor, at: str) -> Tensor:
        return F.linear(y, w[f"{at}.weight"], w.get(f"{at}.bias"))

    def conv(y: Tensor, at: str, stride: int = 1) -> Tensor:
        return F.conv2d(y, w[f"{at}.weight"], w[f"{at}.bias"], stride, w[f"{at}.weight"].shape[2] // 2)

    def group(y: Tensor, at: str) -> Tensor:
        groups: int = norm("group", y.shape[1]).num_groups  # type: ignore[assignment]
        return F.group_norm(y, groups, w[f"{at}.weight"], w[f"{at}.bias"])

    def layer(y: Tensor, at: str) -> Tensor:
        return F.layer_norm(y, y.shape[-1:], w[f"{at}.weight"], w[f"{at}.bias"])

    def look(y: Tensor, z: Tensor, at: str, absent: Tensor | None) -> Tensor:
        width = y.shape[-1]
        k, v = w[f"{at}.kv.weight"].chunk(2)
        out, _ = F.multi_head_attention_forward(
            y.transpose(0, 1), z.transpose(0, 1), z.transpose(0, 1), width, 2, None, torch.zeros(3 * width).double(), None,
            None, False, 0.0, w[f"{at}.join.weight"], w[f"{at}.join.bias"], key_padding_mask=absent,
            use_separate_proj_weight=True, q_proj_weight=w[f"{at}.q.weight"], k_proj_weight=k, v_proj_weight=v,
        )  # fmt: skip
        return out.transpose(0, 1)

    def stage(y: Tensor, at: str) -> Tensor:
        r = f"{at}.residual"
        inner = conv(F.silu(group(y, f"{r}.norm1")), f"{r}.conv1")
        scale, shift = linear(given, f"{r}.time")[..., None, None].chunk(2, 1)
        inner = conv(F.silu(group(inner, f"{r}.norm2") * (scale + 1) + shift), f"{r}.conv2")
        y = (conv(y, f"{r}.skip") if f"{r}.skip.weight" in w else y) + inner
        s, (b, c, h, v) = f"{at}.transformer", y.shape
        p = y.reshape(b, c, h * v).transpose(1, 2)
        if f"{s}.own.q.weight" in w:
            p = p + look(layer(p, f"{s}.norm1"), layer(p, f"{s}.norm1"), f"{s}.own", None)
        p = p + look(layer(p, f"{s}.norm2"), told[..., :-1], f"{s}.cross", told[..., -1] == 0)
        p = p + linear(F.gelu(linear(layer(p, f"{s}.norm3"), f"{s}.ffn.0")), f"{s}.ffn.2")
        return p.transpose(1, 2).reshape(b, c, h, v)

    angle = 1000 * t[:, None] * torch.tensor([math.exp(-k * math.log(10000) / 4) for k in range(4)], dtype=x.dtype)
    given = linear(torch.cat([angle.cos(), angle.sin()], 1), "time.0")
    given = F.silu(linear(F.silu(given), "time.2"))
    a = stage(conv(x, "first") + w["places"], "down.0")
    b = stage(conv(a, "shrink.0", 2), "down.1")
    y = stage(torch.cat([stage(b, "middle"), b], 1), "up.0")
    y = conv(y.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, :5], "grow.0")  # rows 0 0 1 1 2 of 3
    return conv(F.silu(group(stage(torch.cat([y, a], 1), "up.1"), "norm")), "out")


def test_equals_functional_calls() -> None:
    """Outputs and every gradient to 1e-5 on an odd grid; times in single precision set the limit."""
    net = small().double()
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.2)
    x, t, told = torch.randn(2, 3, 5, 6, dtype=torch.float64), torch.tensor([0.1, 0.9]), words().double()
    w = {name: p.detach().clone().requires_grad_() for name, p in net.named_parameters()}
    inputs = [[v.clone().requires_grad_() for v in (x, told)] for _ in range(2)]
    got, want = net(inputs[0][0], t, inputs[0][1]), reference(w, inputs[1][0], t.double(), inputs[1][1])
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    assert got.abs().mean() > 0.05
    first = torch.autograd.grad(got.square().mean(), [*inputs[0], *net.parameters()])
    second = torch.autograd.grad(want.square().mean(), [*inputs[1], *w.values()])
    for name, a, b in zip(["input", "words", *w], first, second, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5, msg=name)


def test_starts_at_zero_and_ignores_padding() -> None:
    net = small()
    x, t, told = torch.randn(2, 3, 5, 6), torch.rand(2), words()
    assert net(x, t, told).abs().max() == 0
    torch.nn.init.normal_(net.out.weight)
    y, other = net(x, t, told), told.clone()
    other[0, 2, :-1] = 9.0
    assert torch.equal(net(x, t, other), y)
    other[0, 1, :-1] = 9.0
    assert not torch.allclose(net(x, t, other)[0], y[0])
    assert torch.equal(net(x, t, other)[1], y[1])


def test_what_is_looked_at_can_be_seen() -> None:
    """A hook on each attention to words gets what its weights are made of; the grids are those announced."""
    net, seen = small(), []
    handles = [
        attend.register_forward_hook(lambda _, given, out, size=size: seen.append((given, size)))
        for attend, size in net.looks()
    ]
    net(torch.randn(2, 3, 5, 6), torch.rand(2), words())
    for handle in handles:
        handle.remove()
    assert [size for _, size in seen] == [(5, 6), (3, 3), (3, 3), (3, 3), (5, 6)]
    for (q, k, _, mask), (height, width) in seen:
        weights = attention_weights(q, k, mask)
        assert weights.shape == (2, 2, height * width, 3)
        assert weights[0, ..., 2].abs().max() == 0  # padding
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, height * width))


def test_cost_counts_what_runs() -> None:
    net = small()
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        net(torch.randn(1, 3, 5, 6), torch.rand(1), words(1))
    assert net.cost(words=2) == counter.get_total_flops() // 2


def test_heads_must_divide_widths() -> None:
    with pytest.raises(ValueError, match="heads must divide"):
        TextUNet(4, (8, 8), 16, widths=(8, 9), heads=4)


def test_more_stages_than_the_picture_has_halves() -> None:
    net = TextUNet(3, (4, 3), 8, widths=(8,) * 5)  # 4 x 3, 2 x 2, 1 x 1 ...
    assert net(torch.randn(2, 3, 4, 3), torch.rand(2), words()).shape == (2, 3, 4, 3)
    assert all(isinstance(layer, Strided) for layer in net.shrink)


def test_odd_widths() -> None:
    net = TextUNet(3, (5, 6), 8, widths=(9, 12), heads=3)
    assert net(torch.randn(2, 3, 5, 6), torch.rand(2), words()).shape == (2, 3, 5, 6)
