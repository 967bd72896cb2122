"""The original Transformer against torch.nn's layers with the same weights, and decoding step by step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from engram.models.transformer import Transformer
from engram.nn import Attend, attention_weights, sinusoidal

LENGTHS = torch.tensor([11, 4, 7])


def build(**knobs: Any) -> Transformer:
    torch.manual_seed(0)
    net = Transformer(40, 40, 2, 4, 32, 48, **knobs).eval()
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return net


def texts() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randint(0, 40, (3, 11)), torch.randint(0, 40, (3, 13))


def reference(norm_first: bool) -> nn.Transformer:
    """torch.nn.Transformer, which has norms at the end of each stack; the paper's post-norm has none."""
    common: dict[str, Any] = {"dropout": 0.0, "batch_first": True, "norm_first": norm_first}
    net = nn.Transformer(32, 4, 2, 2, 48, **common)
    if not norm_first:
        net.encoder.norm = net.decoder.norm = None
    return net


def names(norm_first: bool) -> dict[str, tuple[str, str, slice]]:
    """Names of torch.nn.Transformer to ours; first the rows of theirs, if ours are two."""
    found: dict[str, tuple[str, str, slice]] = {}
    whole = slice(None)
    for p in ("weight", "bias"):
        for stack in ("encoder", "decoder"):
            if norm_first:
                found[f"{stack}_norm.{p}"] = (f"{stack}.norm.{p}", p, whole)
            for i in range(2):
                here, there = f"{stack}.{i}.", f"{stack}.layers.{i}."
                found[f"{here}attention.qkv.{p}"] = (f"{there}self_attn.in_proj_{p}", p, whole)
                found[f"{here}attention.out.{p}"] = (f"{there}self_attn.out_proj.{p}", p, whole)
                if stack == "decoder":
                    found[f"{here}cross.q.{p}"] = (f"{there}multihead_attn.in_proj_{p}", p, slice(0, 32))
                    found[f"{here}cross.kv.{p}"] = (f"{there}multihead_attn.in_proj_{p}", p, slice(32, 96))
                    found[f"{here}cross.out.{p}"] = (f"{there}multihead_attn.out_proj.{p}", p, whole)
                found[f"{here}ffn.0.{p}"] = (f"{there}linear1.{p}", p, whole)
                found[f"{here}ffn.2.{p}"] = (f"{there}linear2.{p}", p, whole)
                for n in range(1, 4 if stack == "decoder" else 3):
                    found[f"{here}around{n}.norm.{p}"] = (f"{there}norm{n}.{p}", p, whole)
    return found


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize(("shared", "tied"), [(True, True), (False, True), (False, False)])
@pytest.mark.parametrize("norm_first", [False, True])
def test_equals_torch(norm_first: bool, shared: bool, tied: bool) -> None:
    """Logits and all gradients within 1e-5 (gradients relative to their largest), sources padded."""
    net, theirs = build(norm_first=norm_first, shared=shared, tied=tied), reference(norm_first)
    found, own, other = names(norm_first), dict(net.named_parameters()), dict(theirs.named_parameters())
    tables = {"target.weight"} | (set() if shared else {"source.weight"}) | (set() if tied else {"out.weight"})
    assert set(found) | tables == set(own)
    assert {name for name, _, _ in found.values()} == set(other)
    with torch.no_grad():
        for a, (b, _, part) in found.items():
            other[b][part] = own[a]
    copies = {name: own[name].detach().clone().requires_grad_() for name in tables}
    source, target = texts()
    there = torch.arange(11) < LENGTHS[:, None]

    def embed(table: str, tokens: Tensor) -> Tensor:
        return copies[table][tokens] * 32**0.5 + sinusoidal(tokens.shape[1], 32)

    y = net(source, LENGTHS, target)
    hidden = theirs(
        embed("target.weight" if shared else "source.weight", source), embed("target.weight", target),
        tgt_mask=torch.ones(13, 13).tril() == 0, src_key_padding_mask=~there, memory_key_padding_mask=~there,
    )  # fmt: skip
    want = hidden @ copies["target.weight" if tied else "out.weight"].T
    torch.testing.assert_close(y, want, atol=1e-5, rtol=1e-5)
    for logits in (y, want):
        F.cross_entropy(logits[:, :-1].flatten(0, 1), target[:, 1:].flatten()).backward()
    for name, p in own.items():
        expected = copies[name].grad if name in copies else other[found[name][0]].grad[found[name][2]]  # type: ignore[index]
        assert expected is not None
        assert p.grad is not None
        scale = max(1.0, expected.abs().max().item())
        torch.testing.assert_close(p.grad / scale, expected / scale, atol=1e-5, rtol=0, msg=name)


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


@pytest.mark.parametrize("norm_first", [False, True])
def test_steps_equal_the_whole_with_beams(norm_first: bool) -> None:
    """40 steps (the memory grows at 32) of three beams a source, which move, then one source fewer."""
    net = build(norm_first=norm_first)
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


def test_learns_to_copy_backwards() -> None:
    torch.manual_seed(0)
    net = Transformer(14, 14, 1, 4, 32, 64, dropout=0.0)
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    begin = torch.full((64, 1), 2)
    for _ in range(150):
        source = torch.randint(5, 14, (64, 5))
        target = source.flip(1)
        logits = net(source, None, torch.cat([begin, target[:, :-1]], 1))
        loss = F.cross_entropy(logits.flatten(0, 1), target.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    source = torch.randint(5, 14, (64, 5))
    state, token, out = net.start(source), begin[:, 0], []
    for _ in range(5):
        logits, state = net.step(token, state)
        token = logits.argmax(-1)
        out.append(token)
    assert (torch.stack(out, 1) == source.flip(1)).float().mean() > 0.95


class Written(nn.Module):
    """Attention in plain products, which torch's counter sees."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        return attention_weights(q, k, mask, causal) @ v


def test_cost_counts_what_runs() -> None:
    """Of the decoder's 9 x 9 products with itself a causal network needs 45."""
    net = build()
    for module in list(net.modules()):
        if isinstance(getattr(module, "attend", None), Attend):
            module.attend = Written()
    with FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, 7, dtype=torch.int64), None, torch.zeros(1, 9, dtype=torch.int64))
    assert net.cost(7, 9) == counter.get_total_flops() // 2 - 2 * 2 * 32 * (81 - 45)


def test_errors() -> None:
    with pytest.raises(ValueError, match="heads must divide width"):
        Transformer(40, 40, 1, 3, 32, 48)
    with pytest.raises(ValueError, match="one vocabulary, not 40 and 41"):
        Transformer(40, 41, 1, 4, 32, 48)
    net = Transformer(40, 40, 1, 4, 32, 48, context=8)
    with pytest.raises(ValueError, match="a text of 9 tokens, and the model's context is 8"):
        net.encode(torch.zeros(1, 9, dtype=torch.int64))
