"""Questions as windows of tokens: places in the text, matches, windows, inputs of the user."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engram.core.errors import DataError
from engram.data.question_spec import QuestionSpec, cut, matches
from engram.data.questions import questions
from engram.data.vocabulary import Vocabulary

TEXT = "In May 1973 Zoë's café\u2014the 'first'\u2014sold 12,000 cups. İstanbul 🙂 wasn't far."


@pytest.mark.parametrize("kind", ["word", "bpe", "char", "byte"])
@pytest.mark.parametrize("lower", [False, True])
def test_tokens_know_their_characters(kind: str, lower: bool) -> None:
    text = TEXT if kind != "char" or not lower else TEXT.replace("İ", "I")  # lower case of İ is two characters
    vocabulary = Vocabulary.train(kind, [text], 400, lower=lower)
    pieces = cut(vocabulary, text)
    assert len(pieces.ids) == len(pieces.starts) == len(pieces.ends) == len(pieces.words)
    covered = "".join(
        c if any(a <= n < b for a, b in zip(pieces.starts, pieces.ends, strict=True)) else " " for n, c in enumerate(text)
    )
    assert covered.split() == text.split() if kind != "word" else covered.replace(" ", "") == text.replace(" ", "")
    at = text.index("1973")
    own = [
        w
        for w, a, b in zip(pieces.words, pieces.starts, pieces.ends, strict=True)
        if a < at + 4 and b > at and text[a:b].strip()
    ]
    assert set(own) == {"1973"}


def test_matches_are_of_whole_words_or_of_stems() -> None:
    assert matches(["The", "invention", "of", "inventors", "oil", "?"], ["invented", "the", "Oil", "?"]) == [2, 1, 0, 1, 2, 0]


@pytest.fixture
def spec() -> QuestionSpec:
    vocabulary = Vocabulary.train("word", ["a b c d e f g h i j k l m n o p q r s t u v w x y z who ?"], 100)
    return QuestionSpec(vocab=vocabulary.to_json(), context=12, stride=4)


def test_windows_cover_the_text_and_hold_the_answer(spec: QuestionSpec) -> None:
    text = "a b c d e f g h i j k l m n o p q r s t u v w x y z"
    pieces = spec.pieces(text)
    windows = spec.windows("who ?", pieces)
    assert all(len(w.tokens) == len(w.kinds) <= spec.context for w in windows)
    assert {n for w in windows for n in range(w.begin, w.begin + w.count)} == set(range(26))
    for start in range(0, len(text), 2):
        places = [(w, *spec.target(w, pieces, start, min(start + 5, len(text)))) for w in windows]
        held = [(w, a, b) for w, a, b in places if b]
        assert held, start
        for w, a, b in held:
            assert spec.vocabulary.decode(w.tokens[a : b + 1]) == text[start : start + 5]
        assert all((a, b) == (0, 0) for w, a, b in places if not b)


def test_answers_of_training_stand_at_their_tokens() -> None:
    rows = [
        {"context": f"In {y} the team of {n} won, they say.", "question": f"Who won in {y}?", "answer": n}
        for y, n in zip(range(1900, 1930), [f"Anna Lee{c}" for c in "abcdefghijklmnopqrstuvwxyzABCD"], strict=True)
    ]
    data = questions(rows, batch=4, context=32, vocab="bpe", vocab_size=320)
    assert isinstance(data.spec, QuestionSpec)
    assert 0 < data.spec.chance < 4
    batch = next(data.batches("val"))
    for number, row in enumerate(data.raw("val", [0, 1])):
        ids = batch["tokens"][number, batch["starts"][number] : batch["ends"][number] + 1].tolist()
        held = bool(batch["ends"][number])
        assert data.spec.vocabulary.decode(ids).strip() == row["answers"][0]["text"].lower() or not held
    assert int((batch["ends"] > 0).sum())
    assert set(batch["segments"].unique().tolist()) >= {0, 1, 5}


def test_inputs_of_the_user(spec: QuestionSpec, tmp_path: Path) -> None:
    row = {"question": "who ?", "context": "a b c"}
    squad = {"data": [{"title": "t", "paragraphs": [{"context": "a b c", "qas": [{"id": "7", "question": "who ?"}]}]}]}
    (tmp_path / "dev.json").write_text(json.dumps(squad))
    (tmp_path / "some.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row) + "\n")
    (tmp_path / "some.csv").write_text("question,context\nwho ?,a b c\n")
    for source, rows in (
        (json.dumps(row), 1),
        (tmp_path / "dev.json", 1),
        (str(tmp_path / "some.jsonl"), 2),
        (tmp_path / "some.csv", 1),
    ):
        found = [one for _, chunk in spec.read(source) for one in chunk]
        assert [(r["question"], r["context"]) for r in found] == [("who ?", "a b c")] * rows
        assert len(spec.encode(source if not isinstance(source, str) or source[0] == "{" else Path(source))["tokens"]) == rows


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"question": "who ?"}, "no 'context'"),
        ({"question": "who ?", "contxt": "a"}, "did you mean contxt"),
        ({"question": " ", "context": "a"}, "question is empty"),
        ({"question": "who ?", "context": ""}, "context is empty"),
        ("who ?", "needs its text"),
        ('{"question": "who', "not JSON"),
        ([], "empty list"),
        (3.5, "got float"),
    ],
)
def test_bad_input_in_one_line(spec: QuestionSpec, raw: Any, said: str) -> None:
    with pytest.raises(DataError, match=said.replace("?", r"\?")) as caught:
        spec.encode(raw)
    assert "\n" not in str(caught.value)
