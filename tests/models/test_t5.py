"""T5 against transformers' with the same weights, and decoding step by step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import T5Config, T5ForConditionalGeneration

from engram.models.t5 import T5
from engram.nn import Attend, attention_weights

LENGTHS = torch.tensor([11, 4, 7])


def build(**knobs: Any) -> T5:
    """Heads of 6 numbers, so that 4 of them are not the width; distances up to 11 with 8 buckets up to 9."""
    torch.manual_seed(0)
    net = T5(40, 2, 4, 20, 6, 28, buckets=8, furthest=9, **knobs).eval()
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.4)
    return net


def texts() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randint(0, 40, (3, 11)), torch.randint(0, 40, (3, 13))


def names(gated: bool, tied: bool) -> dict[str, tuple[str, slice]]:
    """Names of transformers to ours, and which rows of ours."""
    whole = slice(None)
    found = {"shared.weight": ("tokens.weight", whole)}
    if not tied:
        found["lm_head.weight"] = ("out.weight", whole)
    for stack in ("encoder", "decoder"):
        found[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = (f"{stack}_bias.weight", whole)
        found[f"{stack}.final_layer_norm.weight"] = (f"{stack}_norm.weight", whole)
        for i in range(2):
            there, here = f"{stack}.block.{i}.layer.", f"{stack}.{i}."
            for n, part in enumerate("qkv"):
                found[f"{there}0.SelfAttention.{part}.weight"] = (f"{here}attention.qkv.weight", slice(24 * n, 24 * n + 24))
            found[f"{there}0.SelfAttention.o.weight"] = (f"{here}attention.out.weight", whole)
            last = 1
            if stack == "decoder":
                found[f"{there}1.EncDecAttention.q.weight"] = (f"{here}cross.q.weight", whole)
                for n, part in enumerate("kv"):
                    found[f"{there}1.EncDecAttention.{part}.weight"] = (f"{here}cross.kv.weight", slice(24 * n, 24 * n + 24))
                found[f"{there}1.EncDecAttention.o.weight"] = (f"{here}cross.out.weight", whole)
                last = 2
            for n in range(last + 1):
                found[f"{there}{n}.layer_norm.weight"] = (f"{here}norm{n + 1}.weight", whole)
            found[f"{there}{last}.DenseReluDense.wo.weight"] = (f"{here}feed.down.weight", whole)
            for n, part in enumerate(("wi_0", "wi_1") if gated else ("wi",)):
                rows = slice(28 * n, 28 * n + 28)
                found[f"{there}{last}.DenseReluDense.{part}.weight"] = (f"{here}feed.up.weight", rows)
    return found


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("gated", [False, True])
def test_equals_transformers(gated: bool, tied: bool) -> None:
    """Logits and all gradients within 1e-5 (gradients relative to their largest), sources padded."""
    net = build(gated=gated, tied=tied)
    theirs = T5ForConditionalGeneration(
        T5Config(
            vocab_size=40, d_model=20, d_kv=6, d_ff=28, num_layers=2, num_heads=4, relative_attention_num_buckets=8,
            relative_attention_max_distance=9, feed_forward_proj="gated-gelu" if gated else "relu", dropout_rate=0.1,
            layer_norm_epsilon=1e-6, attn_implementation="eager",
        )
    ).eval()  # fmt: skip
    if not tied:  # this version of transformers ties always; version 1.1 has a layer of its own and no scaling
        theirs.lm_head.weight = torch.nn.Parameter(theirs.lm_head.weight.detach().clone())
        theirs.config.scale_decoder_outputs = False
    found = names(gated, tied)
    own, other = dict(net.named_parameters()), dict(theirs.named_parameters())
    assert set(found) == set(other)
    assert {name for name, _ in found.values()} == set(own)
    with torch.no_grad():
        for a, (b, part) in found.items():
            other[a].copy_(own[b][part])
    source, target = texts()
    there = torch.arange(11) < LENGTHS[:, None]
    y = net(source, LENGTHS, target)
    want = theirs(input_ids=source, attention_mask=there.long(), decoder_input_ids=target).logits
    torch.testing.assert_close(y, want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        net.encode(source, LENGTHS)[there],
        theirs.get_encoder()(input_ids=source, attention_mask=there.long()).last_hidden_state[there],
        atol=1e-5, rtol=1e-5,
    )  # fmt: skip
    for logits in (y, want):
        F.cross_entropy(logits[:, :-1].flatten(0, 1), target[:, 1:].flatten()).backward()
    for a, (b, part) in found.items():
        assert own[b].grad is not None
        assert other[a].grad is not None
        scale = max(1.0, other[a].grad.abs().max().item())
        torch.testing.assert_close(own[b].grad[part] / scale, other[a].grad / scale, atol=1e-5, rtol=0, msg=a)


def test_padding_changes_nothing_and_no_token_sees_a_later_one() -> None:
    net = build()
    source, target = texts()
    other = torch.where(torch.arange(11) < LENGTHS[:, None], source, 39 - source)
    y = net(source, LENGTHS, target)
    torch.testing.assert_close(net(other, LENGTHS, target), y, atol=1e-6, rtol=0)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = net(source[row : row + 1, :length], None, target[row : row + 1])
        torch.testing.assert_close(alone, y[row : row + 1], atol=1e-5, rtol=1e-5)
    later = target.clone()
    later[:, 8] = (target[:, 8] + 1) % 40
    changed = (net(source, LENGTHS, later) - y).abs().amax((0, 2))
    assert (changed[:8] == 0).all()
    assert (changed[8:] > 0).all()


def test_steps_equal_the_whole_with_beams() -> None:
    """40 steps (the memory grows at 32) of three beams a source, which move, then one source fewer."""
    net = build()
    source, _ = texts()
    owner = torch.arange(3).repeat_interleave(3)
    target = torch.randint(0, 40, (9, 40))
    state = net.start(source, LENGTHS).select(owner)
    for t in range(40):
        if t in (5, 20, 34):
            index = torch.tensor([2, 0, 0, 4, 4, 5, 8, 7, 7] if t < 34 else [0, 2, 1, 6, 6, 8])
            target, owner, state = target[index], owner[index], state.select(index)
        logits, state = net.step(target[:, t], state)
        want = net(source[owner], LENGTHS[owner], target[:, : t + 1])[:, -1]
        torch.testing.assert_close(logits, want, atol=2e-5, rtol=1e-5)
    assert state.length == 40


def test_hooks_on_attend_give_the_weights() -> None:
    net, seen = build(), []
    for module in net.modules():
        if isinstance(module, Attend):
            module.register_forward_hook(lambda m, args, out: seen.append((m.scale, args, out)))
    source, target = texts()
    net(source, LENGTHS, target)
    assert len(seen) == 6
    for scale, (q, k, v, mask), out in seen:
        torch.testing.assert_close(attention_weights(q, k, mask, False, scale) @ v, out, atol=1e-5, rtol=1e-5)


def test_starts_at_a_sane_scale_and_every_weight_learns() -> None:
    """The first loss is near log(vocab) with the published start, and each weight receives a gradient."""
    torch.manual_seed(0)
    for tied in (True, False):
        net = T5(40, 2, 4, 64, 16, 128, tied=tied, gated=True)
        source, target = texts()
        loss = F.cross_entropy(net(source, LENGTHS, target[:, :-1]).flatten(0, 1), target[:, 1:].flatten())
        loss.backward()
        assert 3 < loss.item() < 6
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters())


class Written(nn.Module):
    """Attention in plain products, which torch's counter sees."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return attention_weights(q, k, mask, False, 1.0) @ v


@pytest.mark.parametrize("gated", [False, True])
def test_cost_counts_what_runs(gated: bool) -> None:
    """Of the decoder's 9 x 9 products with itself a causal network needs 45."""
    net = build(gated=gated)
    for module in list(net.modules()):
        if isinstance(getattr(module, "attend", None), Attend):
            module.attend = Written()
    with FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, 7, dtype=torch.int64), None, torch.zeros(1, 9, dtype=torch.int64))
    assert net.cost(7, 9) == counter.get_total_flops() // 2 - 2 * 2 * 24 * (81 - 45)


def test_errors() -> None:
    with pytest.raises(ValueError, match="buckets must be a multiple of 4"):
        T5(40, 1, 4, 20, 6, 28, buckets=6)
