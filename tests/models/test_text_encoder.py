"""The text encoder against torch's own TransformerEncoderLayer, and what padding and the empty caption mean to it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from engram.models.text_encoder import TextEncoder

TOKENS = torch.tensor([[3, 1, 4, 1], [5, 9, 0, 0], [0, 0, 0, 0]])
LENGTHS = torch.tensor([4, 2, 0])


def small() -> TextEncoder:
    torch.manual_seed(0)
    return TextEncoder(12, 5, width=16, layers=2, heads=4)


def torchs(net: TextEncoder, layer: int) -> nn.TransformerEncoderLayer:
    """A layer of torch with the same weights."""
    theirs = nn.TransformerEncoderLayer(16, 4, 64, 0.0, "gelu", batch_first=True, norm_first=True).double()
    ours = net.blocks[layer].state_dict()
    names = {
        "self_attn.in_proj_weight": "qkv.weight", "self_attn.in_proj_bias": "qkv.bias",
        "self_attn.out_proj.weight": "join.weight", "self_attn.out_proj.bias": "join.bias",
        "linear1.weight": "ffn.0.weight", "linear1.bias": "ffn.0.bias",
        "linear2.weight": "ffn.2.weight", "linear2.bias": "ffn.2.bias",
        "norm1.weight": "norm1.weight", "norm1.bias": "norm1.bias", "norm2.weight": "norm2.weight", "norm2.bias": "norm2.bias",
    }  # fmt: skip
    theirs.load_state_dict({name: ours[own] for name, own in names.items()})
    return theirs


def test_equals_torchs_layers() -> None:
    """Vectors of words and the gradients of tables and first block to 1e-9; what padding gives is not compared."""
    net = small().double()
    for p in net.parameters():
        nn.init.normal_(p, std=0.4)
    layers = [torchs(net, 0), torchs(net, 1)]
    words, mark, places = (p.detach().clone().requires_grad_() for p in (net.words.weight, net.mark, net.places))
    x = torch.stack([torch.stack([mark, *words[row]]) for row in TOKENS]) + places[:5]
    absent = torch.tensor([[False] + [place >= n for place in range(4)] for n in LENGTHS.tolist()])
    for layer in layers:
        x = layer(x, src_key_padding_mask=absent)
    want = nn.functional.layer_norm(x, (16,), net.norm.weight, net.norm.bias)
    got = net(TOKENS, LENGTHS)
    assert torch.equal(got[..., -1] > 0, ~absent)
    keep = (~absent)[..., None].double()
    torch.testing.assert_close(got[..., :-1] * keep, want * keep, atol=1e-10, rtol=1e-10)

    def loss(y: Tensor) -> Tensor:
        return (y * keep).pow(3).mean()

    first = torch.autograd.grad(loss(got[..., :-1]), [net.words.weight, net.mark, net.places, net.blocks[0].qkv.weight])  # type: ignore[list-item]
    second = torch.autograd.grad(loss(want), [words, mark, places, layers[0].self_attn.in_proj_weight])
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


def test_padding_says_nothing() -> None:
    net = small()
    got = net(TOKENS, LENGTHS)
    other = TOKENS.clone()
    other[1, 2:] = 7
    longer = torch.cat([other, torch.full((3, 1), 8)], 1)
    torch.testing.assert_close(net(other, LENGTHS)[1, :3], got[1, :3])
    torch.testing.assert_close(net(longer, LENGTHS)[:2, :3], got[:2, :3])
    assert not torch.allclose(net(other, torch.tensor([4, 4, 0]))[1, :3], got[1, :3])


def test_the_empty_caption_is_a_mark_alone() -> None:
    net = small()
    out = net(TOKENS, LENGTHS)[2]
    assert out[:, -1].tolist() == [1, 0, 0, 0, 0]
    assert out[0, :-1].isfinite().all()
    assert out[0, :-1].abs().sum() > 0


def test_the_order_of_words_matters() -> None:
    net = small()
    turned = net(TOKENS.flip(1)[:1], LENGTHS[:1])
    assert not torch.allclose(turned[0, 0], net(TOKENS[:1], LENGTHS[:1])[0, 0])


def test_errors() -> None:
    with pytest.raises(ValueError, match="at most 5"):
        small()(torch.ones(1, 6, dtype=torch.int64), torch.tensor([6]))
    with pytest.raises(ValueError, match="heads must divide"):
        TextEncoder(4, 4, width=10, heads=4)
