"""Tagged words in pieces: the first piece of every word is found, whatever the tokens."""

from __future__ import annotations

import pytest

from engram.core.errors import DataError
from engram.data.piece_tags import PieceTagSpec, piece_tags

ROWS = [{"words": [f"Anna{n}", "met", "Benjamin", "in", "Oslo-West", "."], "tags": ["B-P", "O", "B-P", "O", "B-L", "O"]}
        for n in range(30)]  # fmt: skip


@pytest.mark.parametrize("kind", ["word", "bpe", "char", "byte"])
def test_the_first_piece_of_each_word(kind: str) -> None:
    data = piece_tags(ROWS, batch=4, context=60, vocab=kind, vocab_size=320, lower=False)
    spec = data.spec
    assert isinstance(spec, PieceTagSpec)
    words = ROWS[3]["words"]
    batch = spec.encode([words])
    assert batch["lengths"].tolist() == [6]
    pieces = [spec.vocabulary.piece(i) for i in batch["pieces"][0].tolist()]
    for word, at in zip(words, batch["firsts"][0].tolist(), strict=True):
        piece = pieces[at].strip()
        assert piece
        assert word.startswith(piece) or piece == "<unk>"
    train = next(data.batches("train"))
    assert train["tags"].shape == train["firsts"].shape
    assert set(spec.tags) == {"O", "B-P", "I-P", "B-L", "I-L"}


def test_long_sentences_are_told() -> None:
    data = piece_tags(ROWS, batch=4, context=5, vocab="word")
    assert any("left out" in n.text for n in data.summary.notes)
    assert len(data.raw("train", [0])[0]["words"]) == len(data.raw("train", [0])[0]["tags"]) == 4
    with pytest.raises(DataError, match="longer than the 4 tokens"):
        data.spec.encode([ROWS[0]["words"]])
