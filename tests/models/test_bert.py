"""BERT and its heads against transformers' with the same weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, BertForTokenClassification

from engram.models.bert import BERT, MaskedHead, PoolHead, TokenHead
from engram.nn import attention_weights

LENGTHS = torch.tensor([12, 5, 9])


def setup(head: nn.Module) -> tuple[nn.ModuleDict, Tensor, Tensor]:
    """Our encoder and a head, tokens (3, 12) and segments. No token 0: transformers gives it no gradient."""
    torch.manual_seed(0)
    both = nn.ModuleDict({"bert": BERT(40, 16, 2, 4, 32, hidden=48, segments=3), "head": head}).eval()
    for p in both.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return both, torch.randint(1, 40, (3, 12)), torch.randint(0, 3, (3, 12))


def config() -> BertConfig:
    return BertConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=16, type_vocab_size=3, num_labels=3, attn_implementation="eager",
    )  # fmt: skip


def names() -> dict[str, tuple[str, slice]]:
    """Names of transformers' encoder to ours, and which rows of ours."""
    whole = slice(None)
    found = {
        "bert.embeddings.word_embeddings.weight": ("bert.tokens.weight", whole),
        "bert.embeddings.position_embeddings.weight": ("bert.places.weight", whole),
        "bert.embeddings.token_type_embeddings.weight": ("bert.segments.weight", whole),
    }
    for p in ("weight", "bias"):
        found[f"bert.embeddings.LayerNorm.{p}"] = (f"bert.norm.{p}", whole)
        for i in range(2):
            there, here = f"bert.encoder.layer.{i}.", f"bert.blocks.{i}."
            for n, part in enumerate(("query", "key", "value")):
                found[f"{there}attention.self.{part}.{p}"] = (f"{here}qkv.{p}", slice(32 * n, 32 * n + 32))
            for a, b in (
                ("attention.output.dense", "out"), ("attention.output.LayerNorm", "norm1"),
                ("intermediate.dense", "up"), ("output.dense", "down"), ("output.LayerNorm", "norm2"),
            ):  # fmt: skip
                found[f"{there}{a}.{p}"] = (f"{here}{b}.{p}", whole)
    return found


def compare(ours: nn.ModuleDict, theirs: nn.Module, found: dict[str, tuple[str, slice]], run, run_theirs) -> None:
    """Outputs and all gradients within 1e-5 (gradients relative to their largest)."""
    theirs.eval()
    own, other = dict(ours.named_parameters()), dict(theirs.named_parameters())
    assert set(found) == set(other)
    assert {name for name, _ in found.values()} == set(own)
    with torch.no_grad():
        for a, (b, part) in found.items():
            other[a].copy_(own[b][part])
    y, want = run(), run_theirs()
    torch.testing.assert_close(y, want, atol=1e-5, rtol=1e-5)
    for out in (y, want):
        out.log_softmax(-1)[..., 1].mean().backward()
    for a, (b, part) in found.items():
        assert own[b].grad is not None
        assert other[a].grad is not None
        scale = max(1.0, other[a].grad.abs().max().item())
        torch.testing.assert_close(own[b].grad[part] / scale, other[a].grad / scale, atol=1e-5, rtol=0, msg=a)


def test_masked_tokens() -> None:
    """Padding, segments and the tied head."""
    ours, tokens, segments = setup(MaskedHead(32, 40))
    theirs = BertForMaskedLM(config())
    found = names() | {"cls.predictions.bias": ("head.bias", slice(None))}
    for p in ("weight", "bias"):
        found[f"cls.predictions.transform.dense.{p}"] = (f"head.dense.{p}", slice(None))
        found[f"cls.predictions.transform.LayerNorm.{p}"] = (f"head.norm.{p}", slice(None))
    there = torch.arange(12) < LENGTHS[:, None]
    bert, table = ours["bert"], ours.get_parameter("bert.tokens.weight")
    compare(
        ours, theirs, found,
        lambda: ours["head"](bert(tokens, LENGTHS, segments)[there], table),
        lambda: theirs(tokens, attention_mask=there.long(), token_type_ids=segments).logits[there],
    )  # fmt: skip


def test_classes_of_rows() -> None:
    ours, tokens, segments = setup(PoolHead(32, 3))
    theirs = BertForSequenceClassification(config())
    found = names()
    for p in ("weight", "bias"):
        found[f"bert.pooler.dense.{p}"] = (f"head.dense.{p}", slice(None))
        found[f"classifier.{p}"] = (f"head.out.{p}", slice(None))
    there = torch.arange(12) < LENGTHS[:, None]
    compare(
        ours, theirs, found,
        lambda: ours["head"](ours["bert"](tokens, LENGTHS, segments)),
        lambda: theirs(tokens, attention_mask=there.long(), token_type_ids=segments).logits,
    )  # fmt: skip


def test_tags_without_lengths_and_segments() -> None:
    ours, tokens, _ = setup(TokenHead(32, 3))
    theirs = BertForTokenClassification(config())
    found = names()
    for p in ("weight", "bias"):
        found[f"classifier.{p}"] = (f"head.out.{p}", slice(None))
    compare(ours, theirs, found, lambda: ours["head"](ours["bert"](tokens)), lambda: theirs(tokens).logits)


def test_padding_changes_nothing() -> None:
    ours, tokens, segments = setup(TokenHead(32, 3))
    bert = ours["bert"]
    other = torch.where(torch.arange(12) < LENGTHS[:, None], tokens, 40 - tokens)
    a, b = bert(tokens, LENGTHS, segments), bert(other, LENGTHS, segments)
    for row, length in enumerate(LENGTHS.tolist()):
        assert torch.equal(a[row, :length], b[row, :length])
        alone = bert(tokens[row : row + 1, :length], None, segments[row : row + 1, :length])
        torch.testing.assert_close(a[row : row + 1, :length], alone, atol=1e-5, rtol=1e-5)


def test_every_token_sees_both_sides() -> None:
    ours, tokens, _ = setup(TokenHead(32, 3))
    changed = tokens.clone()
    changed[:, 6] = (tokens[:, 6] + 1) % 40
    assert ((ours["bert"](tokens) - ours["bert"](changed)).abs().amax(-1) > 1e-6).all()


def test_learns_hidden_tokens() -> None:
    """A row repeats one token; the hidden one is told by its neighbours, from loss log(40) to almost nothing."""
    torch.manual_seed(0)
    both = nn.ModuleDict({"bert": BERT(40, 6, 1, 4, 32, dropout=0.0), "head": MaskedHead(32, 40)})
    optimizer = torch.optim.Adam(both.parameters(), 3e-3)
    losses = []
    for _ in range(120):
        target = torch.randint(5, 40, (64,))
        tokens = target[:, None].repeat(1, 6)
        tokens[:, 2] = 4
        features = both["bert"](tokens)[:, 2]
        loss = F.cross_entropy(both["head"](features, both.get_parameter("bert.tokens.weight")), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(3.69, abs=0.2)
    assert losses[-1] < 0.5


class Written(nn.Module):
    """Attention in plain products, which torch's counter sees."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return attention_weights(q, k, mask) @ v


def test_cost_counts_what_runs() -> None:
    net = BERT(40, 16, 2, 4, 32)
    for block in net.blocks:
        block.attend = Written()
    with FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, 16, dtype=torch.int64))
    assert net.cost() == counter.get_total_flops() // 2 // 16


def test_errors() -> None:
    with pytest.raises(ValueError, match="heads must divide width"):
        BERT(40, 8, 1, 3, 32)
    with pytest.raises(ValueError, match="9 tokens in a row, and the model's context is 8"):
        BERT(40, 8, 1, 4, 32)(torch.zeros(1, 9, dtype=torch.int64))
