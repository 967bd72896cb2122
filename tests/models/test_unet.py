"""The U-Net against plain functional calls with the same weights, and what its shape promises."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from engram.models.unet import FEW, SelfAttention, UNet
from engram.nn.strided import Strided


def functional(
    w: dict[str, Tensor], x: Tensor, t: Tensor, y: Tensor, levels: int, blocks: int, heads: int, patch: int
) -> Tensor:
    """Ho et al. 2020, appendix B, written out: everything by name, nothing by module."""

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], stride, w[f"{name}.weight"].shape[-1] // 2)

    def groups(x: Tensor, name: str) -> Tensor:
        b, c, h, wide = x.shape
        parts = x.reshape(b, max(c // 16, 1), -1)
        normed = (parts - parts.mean(2, keepdim=True)) / (parts.var(2, correction=0, keepdim=True) + 1e-5).sqrt()
        return normed.reshape(b, c, h, wide) * w[f"{name}.weight"].view(1, -1, 1, 1) + w[f"{name}.bias"].view(1, -1, 1, 1)

    def dense(x: Tensor, name: str) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def block(x: Tensor, name: str) -> Tensor:
        h = conv(F.silu(groups(x, f"{name}.norm1")), f"{name}.conv1")
        scale, shift = dense(given, f"{name}.modulate").chunk(2, 1)
        h = F.silu(groups(h, f"{name}.norm2") * (1 + scale[..., None, None]) + shift[..., None, None])
        x = (conv(x, f"{name}.skip") if f"{name}.skip.weight" in w else x) + conv(h, f"{name}.conv2")
        if f"{name}.attention.qkv.weight" not in w:
            return x
        q, k, v = conv(groups(x, f"{name}.attention.norm"), f"{name}.attention.qkv").flatten(2).chunk(3, 1)
        seen = []
        for a, b, c in zip(q.chunk(heads, 1), k.chunk(heads, 1), v.chunk(heads, 1), strict=True):
            weights = torch.einsum("bct,bcs->bts", a, b) / math.sqrt(a.shape[1])
            seen.append(torch.einsum("bts,bcs->bct", weights.softmax(2), c))
        return x + conv(torch.cat(seen, 1).reshape(x.shape), f"{name}.attention.out")

    half = w["time.0.weight"].shape[1] // 2
    angle = 1000 * t[:, None] * torch.exp(torch.arange(half) * (-math.log(10000.0) / half))
    given = dense(F.silu(dense(torch.cat([angle.cos(), angle.sin()], 1), "time.0")), "time.2") + w["label.weight"][y]
    given = F.silu(given)
    x = conv(F.pixel_unshuffle(x, patch), "first")
    kept = []
    for level in range(levels):
        for number in range(blocks):
            x = block(x, f"down.{level}.{number}")
            kept.append(x)
        if level < levels - 1:
            x = conv(x, f"shrink.{level}", 2)
    x = block(block(x, "middle.0"), "middle.1")
    for level in range(levels - 1, -1, -1):
        if level < levels - 1:
            height, width = kept[-1].shape[2:]
            x = conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3), f"grow.{level}")[:, :, :height, :width]
        for number in range(blocks):
            x = block(torch.cat([x, kept.pop()], 1), f"up.{level}.{number}")
    return F.pixel_shuffle(conv(F.silu(groups(x, "norm")), "out"), patch)


@pytest.mark.parametrize(("blocks", "attend", "patch"), [(1, 4, 1), (2, 0, 1), (1, 8, 2)])
def test_equals_functional_calls(blocks: int, attend: int, patch: int) -> None:
    """Outputs to 1e-5 and every gradient to 1e-5 of its size, with no weight left at zero."""
    torch.manual_seed(0)
    net = UNet(3, (8, 8), 5, (16, 32), blocks, attend, heads=2, patch=patch).eval()
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.2)
    x, t, y = torch.randn(3, 3, 8, 8), torch.rand(3), torch.tensor([0, 5, 2])
    weights = {name: p.detach().clone().requires_grad_() for name, p in net.named_parameters()}
    ours, theirs = net(x, t, y), functional(weights, x, t, y, 2, blocks, 2, patch)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    grad = torch.randn_like(x)
    ours.backward(grad)
    theirs.backward(grad)
    for name, p in net.named_parameters():
        found, wanted = p.grad, weights[name].grad
        assert found is not None
        assert wanted is not None
        torch.testing.assert_close(found, wanted, atol=1e-5 * float(wanted.abs().max() + 1), rtol=1e-4, msg=name)


def test_starts_at_zero_and_each_block_as_the_identity() -> None:
    net = UNet(1, (8, 8), 3, (16, 32))
    assert not net(torch.randn(2, 1, 8, 8), torch.rand(2), torch.tensor([0, 1])).any()
    x = torch.randn(2, 16, 8, 8)
    torch.testing.assert_close(net.down[0][0](x, torch.randn(2, 64)), x)  # type: ignore[index]


def test_no_condition_is_the_last_class() -> None:
    torch.manual_seed(0)
    net = UNet(1, (8, 8), 3, (16,))
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.2)
    x, t = torch.randn(2, 1, 8, 8), torch.rand(2)
    torch.testing.assert_close(net(x, t), net(x, t, torch.tensor([3, 3])))
    assert (net(x, t) - net(x, t, torch.tensor([0, 1]))).abs().max() > 1e-3
    assert UNet(1, (8, 8), 0, (16,)).label is None


@pytest.mark.parametrize("size", [(8, 8), (9, 7), (5, 12)])
@pytest.mark.parametrize("widths", [(8,), (6, 10, 12)])
def test_any_size_and_layout(size: tuple[int, int], widths: tuple[int, ...]) -> None:
    """Odd sides come back as they were, and channels-last changes nothing."""
    torch.manual_seed(0)
    net = UNet(2, size, widths=widths).eval()
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.1)
    x, t = torch.randn(2, 2, *size), torch.rand(2)
    y = net(x, t)
    assert y.shape == x.shape
    last = net.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last), t)  # type: ignore[call-overload]
    torch.testing.assert_close(y, last, rtol=1e-4, atol=1e-4)


def test_attention_written_out_is_the_fused_one() -> None:
    """Training on small maps takes another road to the same numbers."""
    torch.manual_seed(0)
    attention = SelfAttention(16, 4)
    assert attention.heads == 2  # of 8 numbers each
    torch.nn.init.normal_(attention.out.weight)
    x = torch.randn(2, 16, 5, 5)
    assert x[0, 0].numel() <= FEW
    written = attention(x)
    with torch.no_grad():
        fused = attention(x)
    assert written.requires_grad
    torch.testing.assert_close(written, fused, rtol=1e-4, atol=1e-5)


def test_cost_counts_what_runs() -> None:
    """Against torch's own counter, two per multiply-add, which does not see into the fused attention."""
    from torch.utils.flop_counter import FlopCounterMode

    net = UNet(1, (12, 12), 3, (8, 16), 2, 6).eval()
    with FlopCounterMode(display=False) as counter:
        net(torch.randn(1, 1, 12, 12), torch.rand(1))
    assert abs(counter.get_total_flops() / 2 - net.cost()) < 0.02 * net.cost()


def test_errors() -> None:
    with pytest.raises(ValueError, match="patch must divide"):
        UNet(1, (9, 8), patch=2)


def test_more_stages_than_the_picture_has_halves() -> None:
    net = UNet(1, (8, 5), widths=(8,) * 6)  # 8 x 5, 4 x 3, 2 x 2, 1 x 1 ...
    assert net(torch.randn(2, 1, 8, 5), torch.rand(2)).shape == (2, 1, 8, 5)
    assert all(isinstance(layer, Strided) for layer in net.shrink)
