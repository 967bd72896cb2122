"""GPT against transformers' GPT-2 and Llama with the same weights, and the properties that decoding rests on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from engram.models.gpt import GPT
from engram.nn import Attend, attention_weights

LLAMA: dict[str, Any] = {
    "positions": "rotary", "norm": "rms", "ffn": "swiglu", "kv_heads": 2, "tied": False, "bias": False,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "llama": LLAMA,
    "window": {"positions": "sinusoidal", "window": 4},
    "llama-window": LLAMA | {"window": 5},
}


def build(seed: int = 0, **knobs: Any) -> GPT:
    """A small network with weights large enough that a wrong position or mask shows."""
    torch.manual_seed(seed)
    net = GPT(50, 24, 2, 4, 32, **knobs).eval()
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.2) if p.dim() > 1 else torch.nn.init.normal_(p, 1.0 if p.mean() > 0.5 else 0.0, 0.2)
    return net


def rows(count: int, length: int) -> Tensor:
    return torch.randint(0, 50, (count, length), generator=torch.Generator().manual_seed(1))


def same_gradients(pairs: list[tuple[str, Tensor, Tensor]]) -> None:
    for name, ours, theirs in pairs:
        scale = max(1.0, theirs.abs().max().item())
        torch.testing.assert_close(ours / scale, theirs / scale, atol=1e-5, rtol=0, msg=lambda m, name=name: f"{name}: {m}")


def test_equals_gpt2() -> None:
    """Learned positions, layer norm, tanh GELU, tied table: logits and all gradients within 1e-5."""
    net = build()
    theirs = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=50, n_positions=24, n_embd=32, n_layer=2, n_head=4, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
            attn_implementation="eager",
        )
    )  # fmt: skip
    names = {"transformer.wte.weight": "tokens.weight", "transformer.wpe.weight": "places.weight"}
    for i in range(2):
        for a, b in (
            ("ln_1", "norm1"), ("attn.c_attn", "attention.qkv"), ("attn.c_proj", "attention.out"), ("ln_2", "norm2"),
            ("mlp.c_fc", "ffn.up"), ("mlp.c_proj", "ffn.down"),
        ):  # fmt: skip
            names |= {f"transformer.h.{i}.{a}.{p}": f"blocks.{i}.{b}.{p}" for p in ("weight", "bias")}
    names |= {f"transformer.ln_f.{p}": f"norm.{p}" for p in ("weight", "bias")}
    own, other = dict(net.named_parameters()), dict(theirs.named_parameters())
    assert set(names) == set(other)
    assert set(names.values()) == set(own)

    def turned(name: str, value: Tensor) -> Tensor:
        return value.T if ".c_" in name and value.dim() == 2 else value  # GPT-2's Conv1D keeps its weights transposed

    with torch.no_grad():
        for a, b in names.items():
            other[a].copy_(turned(a, own[b]))
    x = rows(3, 20)
    y, want = net(x), theirs(x).logits
    torch.testing.assert_close(y, want, atol=1e-5, rtol=1e-5)
    for logits in (y, want):
        F.cross_entropy(logits[:, :-1].flatten(0, 1), x[:, 1:].flatten()).backward()
    same_gradients([(b, own[b].grad, turned(a, other[a].grad)) for a, b in names.items()])  # type: ignore[arg-type]


def test_equals_llama() -> None:
    """Rotary, RMS norm, SwiGLU, two key-value heads of four, untied: logits and all gradients within 1e-5."""
    net = build(hidden=40, **LLAMA)
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=50, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=24, rms_norm_eps=1e-5, tie_word_embeddings=False,
            attn_implementation="eager",
        )
    )  # fmt: skip
    groups = {"model.embed_tokens.weight": ("tokens.weight", slice(None)), "lm_head.weight": ("out.weight", slice(None))}
    groups["model.norm.weight"] = ("norm.weight", slice(None))
    for i in range(2):
        here, there = f"blocks.{i}.", f"model.layers.{i}."
        groups |= {
            there + "input_layernorm.weight": (here + "norm1.weight", slice(None)),
            there + "post_attention_layernorm.weight": (here + "norm2.weight", slice(None)),
            there + "self_attn.q_proj.weight": (here + "attention.qkv.weight", slice(0, 32)),
            there + "self_attn.k_proj.weight": (here + "attention.qkv.weight", slice(32, 48)),
            there + "self_attn.v_proj.weight": (here + "attention.qkv.weight", slice(48, 64)),
            there + "self_attn.o_proj.weight": (here + "attention.out.weight", slice(None)),
            there + "mlp.gate_proj.weight": (here + "ffn.up.weight", slice(0, 40)),
            there + "mlp.up_proj.weight": (here + "ffn.up.weight", slice(40, 80)),
            there + "mlp.down_proj.weight": (here + "ffn.down.weight", slice(None)),
        }
    own, other = dict(net.named_parameters()), dict(theirs.named_parameters())
    assert set(groups) == set(other)
    assert {name for name, _ in groups.values()} == set(own)
    with torch.no_grad():
        for a, (b, part) in groups.items():
            other[a].copy_(own[b][part])
    x = rows(3, 20)
    y, want = net(x), theirs(x).logits
    torch.testing.assert_close(y, want, atol=1e-5, rtol=1e-5)
    for logits in (y, want):
        F.cross_entropy(logits[:, :-1].flatten(0, 1), x[:, 1:].flatten()).backward()
    same_gradients([(a, own[b].grad[part], other[a].grad) for a, (b, part) in groups.items()])  # type: ignore[arg-type,index]


@pytest.mark.parametrize("kind", KINDS)
def test_no_token_sees_a_later_one(kind: str) -> None:
    net, x = build(**KINDS[kind]), rows(2, 20)
    changed = x.clone()
    changed[:, 11] = (x[:, 11] + 1) % 50
    a, b = net(x), net(changed)
    assert torch.equal(a[:, :11], b[:, :11])
    assert (a[:, 11:12] - b[:, 11:12]).abs().min() > 0


def test_window_bounds_what_is_seen() -> None:
    """Two layers of window 4 reach 6 tokens back and no further."""
    net, x = build(**KINDS["window"]), rows(1, 20)
    changed = x.clone()
    changed[:, 3] = (x[:, 3] + 1) % 50
    moved = (net(x) - net(changed)).abs().amax(-1)[0] > 1e-6
    assert moved.nonzero()[:, 0].tolist() == list(range(3, 10))
    wide = build(positions="sinusoidal", window=20)
    torch.testing.assert_close(wide(x), build(positions="sinusoidal")(x), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_packed_documents_equal_separate_ones(kind: str) -> None:
    """Logits and gradients: three documents in one row, and the numbers say nothing but where they change."""
    net, x = build(**KINDS[kind]), rows(2, 20)
    documents = torch.tensor([[3] * 7 + [0] * 1 + [5] * 12, [1] * 20], dtype=torch.int32)
    packed = net(x, documents)
    alone = torch.cat([torch.cat([net(x[:1, a:b]) for a, b in ((0, 7), (7, 8), (8, 20))], 1), net(x[1:])])
    torch.testing.assert_close(packed, alone, atol=1e-5, rtol=1e-5)
    names, weights = zip(*net.named_parameters(), strict=True)
    ours, theirs = (torch.autograd.grad(y.log_softmax(-1)[..., 7].mean(), weights) for y in (packed, alone))
    same_gradients(list(zip(names, ours, theirs, strict=True)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [(11,), (11, 11), (11, 3, 7)])
def test_cached_equals_uncached(kind: str, lengths: tuple[int, ...]) -> None:
    """Prompts of one length or several, padded with nonsense at the right; then one token at a time, then three."""
    net, count = build(**KINDS[kind]), len(lengths)
    x, at = rows(count, 24), torch.tensor(lengths)
    whole, cache = net(x), net.new_cache(count)
    prompts = torch.where(torch.arange(11) < at[:, None], x[:, :11], 49)
    got = net.step(prompts, torch.arange(11).repeat(count, 1), cache)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(got[row, :length], whole[row, :length], atol=2e-5, rtol=1e-5)
    for steps in (1, 1, 1, 3, 1):
        positions = at[:, None] + torch.arange(steps)
        got = net.step(x.gather(1, positions), positions, cache)
        want = whole.gather(1, positions[..., None].expand(-1, -1, 50))
        torch.testing.assert_close(got, want, atol=2e-5, rtol=1e-5)
        at = at + steps


@pytest.mark.parametrize("kind", ["gpt2", "llama-window"])
def test_rows_reordered_dropped_and_rewound(kind: str) -> None:
    """Beams: the rows of a cache move with their texts. Speculation: a step from an earlier position overwrites."""
    net, x = build(**KINDS[kind]), rows(3, 16)
    cache = net.new_cache(3, 20)
    places = torch.arange(16).repeat(4, 1)
    net.step(x[:, :8], places[:3, :8], cache)
    for index in ([2, 2, 0], [1, 0, 0, 2], [3, 1]):
        x = x[torch.tensor(index)]
        cache.reorder(torch.tensor(index))
        start = int(cache.lengths[0])
        wrong = (x[:, start : start + 3] + 7) % 50
        net.step(wrong, places[: len(x), start : start + 3], cache)
        cache.truncate(torch.full((len(x),), start))
        got = net.step(x[:, start : start + 2], places[: len(x), start : start + 2], cache)
        torch.testing.assert_close(got, net(x)[:, start : start + 2], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_hooks_on_attend_give_the_weights(kind: str) -> None:
    """The arguments that a hook sees, written out, give what the fused kernel gave."""
    net, seen = build(**KINDS[kind]), []
    for module in net.modules():
        if isinstance(module, Attend):
            module.register_forward_hook(lambda m, args, out: seen.append((m.scale, args, out)))
    net(rows(2, 20), torch.tensor([[0] * 9 + [1] * 11, [0] * 20]))
    net(rows(2, 20))
    assert len(seen) == 4
    for scale, (q, k, v, mask, causal), out in seen:
        weights = attention_weights(q, k, mask, causal, scale)
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 20))
        torch.testing.assert_close(weights @ v.repeat_interleave(4 // v.shape[1], 1), out, atol=1e-5, rtol=1e-5)


def test_starts_near_chance_and_every_weight_learns() -> None:
    """Branches that add to the sum start smaller by sqrt(2 layers); the first loss is about log(vocab)."""
    torch.manual_seed(0)
    net, x = GPT(50, 24, 8, 4, 64), rows(4, 24)
    assert net.get_parameter("blocks.3.ffn.down.weight").std().item() == pytest.approx(0.02 / 4, rel=0.1)
    assert net.get_parameter("blocks.3.ffn.up.weight").std().item() == pytest.approx(0.02, rel=0.1)
    loss = F.cross_entropy(net(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())
    assert loss.item() == pytest.approx(3.912, abs=0.1)
    x = torch.randint(0, 50, (8, 24))
    net(x).log_softmax(-1)[..., 0].mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters())


class Written(nn.Module):
    """Attention in plain products, which torch's counter sees."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        return attention_weights(q, k, mask, causal) @ v.repeat_interleave(q.shape[1] // v.shape[1], 1)


def test_cost_counts_what_runs() -> None:
    """torch's counter sees all 24 x 24 products, of which a causal network needs 24 * 25 / 2."""
    net = GPT(50, 24, 2, 4, 32, kv_heads=2, ffn="swiglu", hidden=40)
    for block in net.blocks:
        block.get_submodule("attention").attend = Written()
    with FlopCounterMode(display=False) as counter:
        net(rows(1, 24))
    assert net.cost() == counter.get_total_flops() // 2 // 24 - 2 * 2 * 32 * (24 * 24 - 24 * 25 // 2) // 24
    assert GPT(50, 24, 2, 4, 32, window=6).cost() == GPT(50, 24, 2, 4, 32).cost() - 2 * 2 * 32 * (300 - 21 - 18 * 6) // 24


def test_dropout_is_for_training_only() -> None:
    net, x = build(dropout=0.5), rows(1, 12)
    assert torch.equal(net(x), net(x))
    net.train()
    assert not torch.equal(net(x), net(x))


def test_errors() -> None:
    with pytest.raises(ValueError, match="heads must divide width and kv_heads heads"):
        GPT(50, 8, 1, 3, 32)
    with pytest.raises(ValueError, match="heads must divide width and kv_heads heads"):
        GPT(50, 8, 1, 4, 32, kv_heads=3)
    with pytest.raises(ValueError, match="must be even"):
        GPT(50, 8, 1, 4, 12, positions="rotary")
    net = GPT(50, 8, 1, 4, 32)
    with pytest.raises(ValueError, match="9 tokens in a row, and the model's context is 8"):
        net(rows(1, 9))
    with pytest.raises(ValueError, match="position 8 does not fit"):
        net.step(rows(1, 9), torch.arange(9)[None], net.new_cache(1, 100))
