"""Tagged words: ids, spellings and tags stand side by side; sentences are cut as corpora cut them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from engram.core.errors import DataError
from engram.data.tag_spec import TagSpec, spelled
from engram.data.tag_words import cut_words
from engram.data.tagged import tag_names, tagged
from engram.data.vocabulary import Vocabulary

WORDS = ["Ada", "Lovelace", "lived", "in", "London", "."]
TAGS = ["B-per", "I-per", "O", "O", "B-loc", "O"]
ROWS = [{"words": WORDS[: 6 - n % 3], "tags": TAGS[: 6 - n % 3]} for n in range(12)]


def make(data: Any = ROWS, **knobs: Any) -> Any:
    return tagged(data, **{"batch": 3, "letters": 4, **knobs})


def test_batches_hold_words_characters_and_tags() -> None:
    data = make()
    spec: TagSpec = data.spec
    assert spec.tags == ("O", "B-loc", "I-loc", "B-per", "I-per")
    for split in ("train", "val", "test"):
        batch = next(data.batches(split))
        b, t = batch["tokens"].shape
        assert batch["characters"].shape == (b, t, 4)
        for row in range(b):
            n = int(batch["lengths"][row])
            words = [spec.vocabulary.piece(i) for i in batch["tokens"][row, :n].tolist()] if split == "train" else None
            tags = [spec.tags[i] for i in batch["tags"][row, :n].tolist()]
            assert tags == ROWS[0]["tags"][:n]
            assert words in (None, [w.lower() for w in ROWS[0]["words"][:n]])
            assert (batch["tags"][row, n:] == -100).all()
            assert not batch["characters"][row, n:].any()
            assert spec.characters is not None
            first = [i for i in batch["characters"][row, 0].tolist() if i]
            assert spec.characters.decode(first) == "Ada"  # characters keep their case


def test_the_spec_encodes_as_the_data_does() -> None:
    data = make()
    raw = data.raw("val", [0])
    again = TagSpec.from_json(json.loads(json.dumps(data.spec.to_json())))
    batch = next(data.batches("val"))
    encoded = again.encode(raw)
    for name in ("tokens", "lengths", "characters"):
        width = encoded["tokens"].shape[1]
        assert torch.equal(encoded[name][0], batch[name][0, :width] if name != "lengths" else batch[name][0])
    (labelled,) = again.labelled([*raw, *ROWS[:2]])
    assert labelled["tags"].shape[0] == 3
    assert torch.equal(labelled["tokens"][0][: len(raw[0]["words"])], encoded["tokens"][0])


def test_long_words_lose_their_middle() -> None:
    alphabet = Vocabulary("char", list("abcdefgh"))
    first = len(alphabet.specials)
    assert [i - first for i in spelled(alphabet, ["abcdefgh"], 5)] == [0, 1, 2, 6, 7]
    assert spelled(alphabet, ["ab", "x"], 3) == [first, first + 1, 0, 1, 0, 0]
    assert spelled(alphabet, ["abc"], 1) == [first]


def test_words_alone() -> None:
    data = make(letters=0)
    assert data.spec.characters is None
    assert set(next(data.batches("val"))) == {"tokens", "lengths", "tags"}
    assert set(data.spec.example()) == {"tokens", "lengths"}


def test_tags_that_training_lacks_are_said() -> None:
    tags, notes = tag_names({"train": [{"tags": ["O", "I-x"]}], "test": [{"tags": ["B-y"]}]})
    assert tags == ("O", "B-x", "I-x", "B-y", "I-y")
    assert "no training word is tagged B-y" in notes[0].text
    assert tag_names({"train": [{"tags": ["NN", "VB"]}]}) == (("NN", "VB"), [])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("He lives in the U.S., near @bob.", "He lives in the U.S. , near @bob ."),
        ('"Well," she said (quietly)...', '" Well , " she said ( quietly ) . . .'),
        ("costs $5.50 or 20% :-)", "costs $5.50 or 20% :-)"),
        ("don't re-use http://a.org/b?c=1 #now", "don't re-use http://a.org/b?c=1 #now"),
        ("EU rejects German call .", "EU rejects German call ."),
        ("  \n ", ""),
    ],
)
def test_cutting(text: str, words: str) -> None:
    assert cut_words(text) == words.split()


@pytest.mark.parametrize("raw", ["", [], [[]], [["a", ""]], 4, [5], {"words": []}, Path("nowhere.conll"), b"x"])
def test_what_cannot_be_read(raw: Any) -> None:
    with pytest.raises(DataError) as caught:
        make().spec.encode(raw)
    assert "\n" not in str(caught.value)


def test_files(tmp_path: Path) -> None:
    spec = make().spec
    path = tmp_path / "a.conll"
    path.write_text("Ada B-per\nwrote O\n\nLondon B-loc\n\n")
    assert list(spec.read(path)) == [(["1", "2"], [["Ada", "wrote"], ["London"]])]
    assert spec.words(path) == [["Ada", "wrote"], ["London"]]
    (batch,) = spec.labelled(path)
    assert [spec.tags[i] for i in batch["tags"][0].tolist()] == ["B-per", "O"]
    path.write_text("Ada B-org\n\n")
    with pytest.raises(DataError, match="'B-org' is no tag of this run"):
        list(spec.labelled(path))
    assert list(spec.read("Ada wrote.")) == [(["Ada wrote."], [["Ada", "wrote", "."]])]
