"""Windows over a row of tokens: every token a target exactly once in an epoch, and documents kept apart."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from engram.core.data import Summary
from engram.data.language_spec import LanguageSpec, windows
from engram.data.tokens import TokenData
from engram.data.vocabulary import Vocabulary

SPEC = LanguageSpec(vocab=Vocabulary("byte").to_json(), context=8)


def data(count: int, batch: int = 3, context: int = 8, **more) -> TokenData:
    ids = np.arange(100, 100 + count, dtype=np.uint16)
    return TokenData(SPEC, Summary("", {}), {"train": ids, "val": ids}, context=context, batch=batch, seed=1, **more)


def epoch(d: TokenData, split: str, number: int = 0):
    steps = -(-d.size(split) // d.batch)
    stream = d.batches(split, start=number * steps)
    return [next(stream) for _ in range(steps)]


@pytest.mark.parametrize("count", [2, 7, 8, 9, 16, 17, 100, 101])
@pytest.mark.parametrize("split", ["train", "val"])
def test_every_token_is_a_target_exactly_once(count: int, split: str) -> None:
    d = data(count)
    for number in range(3 if split == "train" else 1):
        seen: Counter[int] = Counter()
        for batch in epoch(d, split, number):
            kept = batch["targets"] != -100
            seen.update(batch["targets"][kept].tolist())
            assert torch.equal(batch["tokens"][kept] + 1, batch["targets"][kept])  # each follows the token before it
        assert seen == Counter(range(101, 100 + count))


def test_cuts_move_from_epoch_to_epoch_and_repeat_exactly() -> None:
    d = data(100)
    firsts = [sorted(t for b in epoch(d, "train", n) for t in b["tokens"][:, 0].tolist()) for n in range(3)]
    assert firsts[0] != firsts[1] or firsts[1] != firsts[2]
    again = epoch(data(100), "train", 2)
    assert all(torch.equal(a["tokens"], b["tokens"]) for a, b in zip(epoch(d, "train", 2), again, strict=True))


def test_the_parts_of_ranks_together_are_the_batch() -> None:
    whole = epoch(data(100), "train")
    parts = [list(zip(range(len(whole)), data(100).batches("train", part=(r, 2)), strict=False)) for r in range(2)]
    for number, batch in enumerate(whole):
        joined = torch.cat([parts[r][number][1]["tokens"] for r in range(2)])
        assert torch.equal(joined, batch["tokens"])


def test_documents_are_numbered_and_trained_tokens_chosen() -> None:
    starts = {"val": np.array([0, 5, 12])}
    trained = {"val": np.arange(20) % 2 == 0}
    d = data(20, batch=9, starts=starts, trained=trained)
    (batch,) = epoch(d, "val")
    position = batch["tokens"] - 100
    expected = 1 + (position >= 5).int() + (position >= 12).int()
    assert torch.equal(batch["documents"].long()[position < 20], expected.long()[position < 20])
    kept = batch["targets"] != -100
    assert ((batch["targets"][kept] - 100) % 2 == 0).all()


def test_windows_of_a_user_text_cover_it() -> None:
    ids = np.arange(50, 71)
    batch = windows(ids, range(0, 3), 8)
    assert batch["targets"][batch["targets"] != -100].tolist() == list(range(51, 71))
    assert batch["tokens"].shape == (3, 8)
