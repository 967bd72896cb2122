"""Masked-token loss against transformers' with the same weights, gradients too; filled gaps against its logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from engram.core.errors import DataError
from engram.core.task import Ctx
from engram.data.masked import MaskedSpec
from engram.data.vocabulary import MASK, Vocabulary
from engram.inference.masked_fill import MaskFiller
from engram.models.bert import BERT, MaskedModel
from engram.tasks.masked_token import MaskedToken

VOCABULARY = Vocabulary.train("word", [" ".join(f"w{n}" for n in range(31))], 40)


def both() -> tuple[MaskedModel, BertForMaskedLM]:
    """The same weights twice, by order: theirs has no segment but 0, and its decoder is tied."""
    torch.manual_seed(0)
    ours = MaskedModel(BERT(VOCABULARY.size, 12, 1, 2, 16, hidden=24, segments=1), VOCABULARY.size).eval()
    config = BertConfig(
        vocab_size=VOCABULARY.size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=12, type_vocab_size=1, attn_implementation="eager", pad_token_id=None,
    )  # fmt: skip
    theirs = BertForMaskedLM(config).eval()
    for p in ours.parameters():
        torch.nn.init.normal_(p, std=0.3)
    e: Any = ours.encoder
    t: Any = theirs.bert
    block, layer = e.blocks[0], t.encoder.layer[0]
    q = layer.attention.self
    pairs = [
        (t.embeddings.word_embeddings, e.tokens), (t.embeddings.position_embeddings, e.places),
        (t.embeddings.token_type_embeddings, e.segments), (t.embeddings.LayerNorm, e.norm),
        (layer.attention.output.dense, block.out), (layer.attention.output.LayerNorm, block.norm1),
        (layer.intermediate.dense, block.up), (layer.output.dense, block.down), (layer.output.LayerNorm, block.norm2),
        (theirs.cls.predictions.transform.dense, ours.masked.dense),
        (theirs.cls.predictions.transform.LayerNorm, ours.masked.norm),
    ]  # fmt: skip
    with torch.no_grad():
        for a, b in pairs:
            for name, p in b.named_parameters():
                a.get_parameter(name).copy_(p)
        for a, w, bias in zip((q.query, q.key, q.value), block.qkv.weight.chunk(3), block.qkv.bias.chunk(3), strict=True):
            a.weight.copy_(w)
            a.bias.copy_(bias)
        theirs.cls.predictions.bias.copy_(ours.masked.bias)
    return ours, theirs


def batch() -> dict[str, torch.Tensor]:
    tokens = torch.randint(6, VOCABULARY.size, (3, 12), generator=torch.Generator().manual_seed(1))
    targets = torch.full_like(tokens, -100)
    targets[0, 2], targets[0, 7], targets[2, 11] = tokens[0, 2], 9, tokens[2, 11]
    tokens[0, 2] = tokens[2, 11] = MASK
    return {"tokens": tokens, "targets": targets}


def test_loss_and_gradients_equal_transformers() -> None:
    ours, theirs = both()
    given = batch()
    loss, _ = MaskedToken(ours, VOCABULARY.size).loss(given, Ctx())
    reference = theirs(input_ids=given["tokens"], labels=given["targets"]).loss
    loss.backward()
    reference.backward()
    torch.testing.assert_close(loss, reference, rtol=1e-5, atol=1e-5)
    for mine, other in (
        (ours.encoder.tokens.weight, theirs.bert.embeddings.word_embeddings.weight),
        (ours.encoder.blocks[0].up.weight, theirs.bert.encoder.layer[0].intermediate.dense.weight),
        (ours.masked.bias, theirs.cls.predictions.bias),
    ):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-5)


def test_evaluate_and_weight() -> None:
    ours, _ = both()
    task = MaskedToken(ours, VOCABULARY.size)
    given = batch()
    with torch.no_grad():
        whole = task.evaluate([given], Ctx())
        parts = task.evaluate([{n: t[:1] for n, t in given.items()}, {n: t[1:] for n, t in given.items()}], Ctx())
    assert whole == pytest.approx(parts, rel=1e-5)
    assert int(task.weight(given)) == 3
    with pytest.raises(DataError, match="no token"):
        task.evaluate([{n: t[1:2] for n, t in given.items()}], Ctx())


def test_gaps_are_filled_with_the_most_probable_tokens() -> None:
    ours, theirs = both()
    spec = MaskedSpec(vocab=VOCABULARY.to_json(), context=12)
    special = len(VOCABULARY.specials)
    filler = MaskFiller(ours, spec, special)
    prompts = ["w1 <mask> w2 w3 [MASK] w4", "<mask>"]
    out = filler(input=prompts, top=3)
    for number, prompt in enumerate(prompts):
        ids = torch.tensor([spec.ids(prompt)])
        logits = theirs(input_ids=ids).logits[0][ids[0] == MASK][:, special:]
        best = logits.softmax(1).topk(3)
        for gap, (chances, at) in zip(out["fills"][number], zip(*best, strict=True), strict=True):
            assert [one["token"] for one in gap] == [VOCABULARY.piece(int(i) + special) for i in at]
            assert [one["probability"] for one in gap] == pytest.approx(chances.tolist(), rel=1e-4)
        words = iter([gap[0]["token"] for gap in out["fills"][number]])
        assert out["text"][number].split() == [next(words) if "mask" in w.lower() else w for w in prompt.split()]
