"""A look inside one input: attention as an independent implementation gives it, saliency as finite differences do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engram.insight.inside import look_inside
from engram.models.gpt import GPT


def gpt(**more) -> GPT:
    torch.manual_seed(0)
    return GPT(17, 12, 2, 2, 16, **more).eval()


def last(out: torch.Tensor) -> torch.Tensor:
    return out[0, -1].log_softmax(-1)[3]


def test_attention_is_that_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=17, n_positions=12, n_embd=16, n_layer=2, n_head=2, attn_implementation="eager")
    ours, theirs = gpt(), transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        theirs.transformer.wte.weight.copy_(ours.tokens.weight)
        theirs.transformer.wpe.weight.copy_(ours.places.weight)
        for a, b in zip(ours.blocks, theirs.transformer.h, strict=True):
            for mine, other in (
                (a.norm1, b.ln_1), (a.norm2, b.ln_2), (a.attention.qkv, b.attn.c_attn), (a.attention.out, b.attn.c_proj),
                (a.ffn.up, b.mlp.c_fc), (a.ffn.down, b.mlp.c_proj),
            ):  # fmt: skip
                other.weight.copy_(mine.weight.T if isinstance(mine, nn.Linear) else mine.weight)
                other.bias.copy_(mine.bias)
    tokens = torch.tensor([[1, 5, 2, 9, 9, 4]])
    seen = look_inside(ours, lambda: ours(tokens), tokens, last)
    expected = theirs(tokens, output_attentions=True).attentions
    assert len(seen.attention) == len(expected) == 2
    for mine, other in zip(seen.attention.values(), expected, strict=True):
        torch.testing.assert_close(mine, other[0], rtol=1e-4, atol=1e-5)


def test_saliency_is_the_slope_when_an_embedding_grows() -> None:
    model = gpt(positions="rotary", norm="rms", bias=False).double()
    tokens = torch.tensor([[1, 5, 2, 9]])
    seen = look_inside(model, lambda: model(tokens), tokens, last)
    assert seen.saliency is not None
    for at in range(4):
        values = []
        for factor in (1 - 1e-5, 1 + 1e-5):

            def scale(module, args, out, at=at, factor=factor):
                return torch.cat([out[:, :at], out[:, at : at + 1] * factor, out[:, at + 1 :]], 1)

            handle = model.tokens.register_forward_hook(scale)
            with torch.no_grad():
                values.append(float(last(model(tokens))))
            handle.remove()
        slope = abs(values[1] - values[0]) / 2e-5
        assert abs(float(seen.saliency[at]) - slope) < 1e-5


def test_nothing_is_left_behind() -> None:
    model = gpt(kv_heads=1, window=3)
    model.train()
    tokens = torch.tensor([[1, 5, 2, 9, 3, 3]])
    before = {n: p.clone() for n, p in model.named_parameters()}
    seen = look_inside(model, lambda: model(tokens), tokens, last)
    assert model.training
    assert all(p.grad is None and torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert not any(m._forward_hooks for m in model.modules())
    for weights in seen.attention.values():
        assert weights.shape == (2, 6, 6)
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 6))
        assert not weights.triu(1).any()
        assert not weights.tril(-3).any()  # the window
