"""Hidden tokens: how many and which, the same for the same batch; prompts with gaps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from engram.core.data import Summary
from engram.core.errors import DataError
from engram.data.language_spec import LanguageSpec
from engram.data.masked import IGNORE, MaskedSpec, MaskedTokens
from engram.data.tokens import TokenData
from engram.data.vocabulary import MASK, START, Vocabulary

VOCABULARY = Vocabulary.train("word", [" ".join(f"w{n}" for n in range(200))], 300)
FIRST = len(VOCABULARY.specials)


def make(share: float = 0.15, tokens: int = 20_000, seed: int = 0) -> MaskedTokens:
    draw = np.random.default_rng(0)
    ids = draw.integers(FIRST, VOCABULARY.size, tokens).astype(np.uint16)
    ids[::97] = START
    spec = LanguageSpec(vocab=VOCABULARY.to_json(), context=50)
    inner = TokenData(spec, Summary("x", {}), {"train": ids, "val": ids[:275]}, context=50, batch=40, seed=seed)
    return MaskedTokens(inner, share)


def test_shares_are_those_of_the_paper_and_specials_stay() -> None:
    data = make()
    plain = next(data.tokens.batches("train"))
    hidden = next(data.batches("train"))
    chosen = hidden["targets"] != IGNORE
    assert (plain["tokens"][chosen] == hidden["targets"][chosen]).all()
    assert (plain["tokens"][~chosen] == hidden["tokens"][~chosen]).all()
    assert not (hidden["targets"] == START).any()
    counts = torch.zeros(4)
    batches = data.batches("train")
    for clear, shown in zip((b for b, _ in zip(data.tokens.batches("train"), range(30), strict=False)), batches, strict=False):
        at = shown["targets"] != IGNORE
        now, was = shown["tokens"][at], clear["tokens"][at]
        counts += torch.tensor([at.float().mean() / 30, (now == MASK).float().mean() / 30, (now == was).float().mean() / 30, 0])
    share, masked, same = counts[:3].tolist()
    assert share == pytest.approx(0.15 * 96 / 97, abs=0.004)
    assert masked == pytest.approx(0.8, abs=0.02)
    assert same == pytest.approx(0.1 + 0.1 / 200, abs=0.015)


def test_masks_are_a_function_of_seed_and_batch_number() -> None:
    first, again, later = make(), make(), make()
    batches = [b for b, _ in zip(first.batches("train"), range(12), strict=False)]  # 10 batches are an epoch
    resumed = next(later.batches("train", 11))
    assert all(torch.equal(resumed[n], batches[11][n]) for n in resumed)
    assert torch.equal(next(again.batches("train"))["targets"], batches[0]["targets"])
    assert not torch.equal(next(make(seed=1).batches("train"))["targets"], batches[0]["targets"])
    val = [torch.equal(a["targets"], b["targets"]) for a, b in zip(first.batches("val"), first.batches("val"), strict=True)]
    assert all(val)
    other = make(seed=1)
    assert torch.equal(next(other.batches("val"))["targets"], next(first.batches("val"))["targets"])


def test_parts_together_are_the_batch() -> None:
    data = make()
    whole = next(data.batches("train", 3))
    parts = [next(data.batches("train", 3, (rank, 3))) for rank in range(3)]
    for name, tensor in whole.items():
        assert torch.equal(torch.cat([p[name] for p in parts]), tensor)


def test_what_is_beyond_the_end_is_never_chosen() -> None:
    (batch,) = make(share=0.9).batches("val")
    assert batch["tokens"].shape == (6, 50)
    assert (batch["targets"][5, 25:] == IGNORE).all()  # 275 tokens: the last window holds 25
    assert (batch["targets"][5, :25] != IGNORE).sum() > 15


def test_prompts() -> None:
    spec = MaskedSpec(vocab=VOCABULARY.to_json(), context=8)
    assert spec.ids("w1 <mask> w2 [MASK]") == [START, *VOCABULARY.encode("w1"), MASK, *VOCABULARY.encode("w2"), MASK]
    pairs = Vocabulary.train("bpe", ["is the capital of France. " * 9], 320)
    ids = MaskedSpec(vocab=pairs.to_json(), context=50).ids("is the <mask> of France.")
    assert ids[1:] == [*pairs.encode("is the"), MASK, *pairs.encode(" of France.")]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ("w1 w2", "no <mask>"),
        (" ", "empty"),
        ("w1 " * 9 + "<mask>", "at most 8"),
        ([], "empty list"),
        ({"x": "y"}, "has x"),
        (3, "int"),
    ],
)
def test_bad_prompts(raw: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said) as caught:
        MaskedSpec(vocab=VOCABULARY.to_json(), context=8).encode(raw)
    assert "\n" not in str(caught.value)
