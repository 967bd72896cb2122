"""Labelled texts: what is encoded, what is said, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from engram.core.errors import ConfigError, DataError
from engram.data.sentence_spec import TextSpec
from engram.data.sentences import sentences

ROWS = [
    {"text": f"{a} {b}{' more words here' * (n % 3)}", "label": b} for n, a in enumerate("abcdefgh") for b in ("cat", "Dog")
]
OOS = [*ROWS, *({"text": f"{a} zebra", "label": "oos"} for a in "abcdefgh")]


def make(data: Any = ROWS, **knobs: Any) -> Any:
    return sentences(data, **{"batch": 4, "context": 20, **knobs})


def notes(data: Any) -> str:
    return " / ".join(note.text for note in data.summary.notes)


def test_batches_hold_what_the_texts_say() -> None:
    data = make()
    for split in ("train", "val", "test"):
        rows = (
            [row for b in data.batches(split) for row in zip(b["tokens"], b["lengths"], b["y"], strict=True)]
            if split != "train"
            else []
        )
        for (tokens, length, y), text in zip(rows, data.raw(split, list(range(data.size(split)))), strict=False):
            assert tokens[:length].tolist() == data.spec.vocabulary.encode(text)
            assert not tokens[length:].any()
            assert data.spec.classes[y] in text.split() or data.spec.classes[y] == "Dog"
    assert sum(data.summary.rows.values()) == 16
    batch = next(data.batches("train"))
    assert set(batch) == {"tokens", "lengths", "y"}
    assert batch["tokens"].dtype == torch.int64


def test_the_spec_survives_json_and_encodes_alike() -> None:
    spec = make().spec
    again = TextSpec.from_json(json.loads(json.dumps(spec.to_json())))
    a, b = spec.encode(["a cat", "Dog"]), again.encode([{"text": "a cat"}, "dog"])
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert spec.encode({"sentence": "a cat", "id": 7})["lengths"].tolist() == [2]


def test_capitals_are_a_knob() -> None:
    lower, kept = make().spec, make(lower=False).spec
    assert torch.equal(lower.encode("DOG")["tokens"], lower.encode("dog")["tokens"])
    assert kept.encode("DOG")["tokens"].tolist() == [[1]]


def test_long_texts_are_cut_and_counted() -> None:
    data = make(context=2)
    cut = sum("more" in r["text"] for r in ROWS)
    assert f"{cut} texts ({cut / 16:.1%}) longer than context=2 tokens" in notes(data)
    assert max(int(b["lengths"].max()) for b in data.batches("val")) == 2
    assert data.spec.encode("one two three four")["tokens"].shape == (1, 2)


def test_unknown_words_and_unequal_classes_are_said() -> None:
    assert "of the tokens are not in the vocabulary" in notes(make(least=3))
    uneven = [r for r in ROWS if r["label"] == "cat" or r["text"][0] in "abc"]
    assert "classes are unequal" in notes(make(uneven))
    assert "unequal" not in notes(make())


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("", "the text is empty"), (["a cat", " \n"], "text 2 is empty"), ([], "an empty list"), (3.5, "got float"),
        ([4], "int is none"), ({"stars": 1, "age": 2}, "no column 'text'"), (Path("nowhere.csv"), "no file"),
        ({"text": None}, "empty"), (b"bytes", "got bytes"),
    ],
)  # fmt: skip
def test_what_cannot_be_read(raw: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        make().spec.encode(raw)
    assert "\n" not in str(caught.value)


def test_files_are_read_row_by_row(tmp_path: Path) -> None:
    spec = make().spec
    (tmp_path / "a.csv").write_text("id,text\n1,a cat\n2,a dog\n3,cat\n")
    assert list(spec.read(tmp_path / "a.csv", 2)) == [(["a.csv:2", "a.csv:3"], ["a cat", "a dog"]), (["a.csv:4"], ["cat"])]
    (tmp_path / "b.jsonl").write_text('{"text": "a cat"}\n"a dog"\n')
    assert [chunk for _, chunk in spec.read(str(tmp_path / "b.jsonl"))] == [["a cat", "a dog"]]
    (tmp_path / "c.csv").write_text('id,text\n1,a cat\n2,""\n')
    with pytest.raises(DataError, match=r"c\.csv:3 is empty"):
        list(spec.read(tmp_path / "c.csv"))
    assert list(spec.read("a wonderful cat")) == [(["a wonderful cat"], ["a wonderful cat"])]


def test_labelled_files_may_hold_one_class_and_keep_their_order(tmp_path: Path) -> None:
    spec = make().spec
    path = tmp_path / "some.csv"
    path.write_text("text,label\na dog,Dog\nb dog,Dog\nc more dog,Dog\n")
    (batch,) = spec.labelled(path)
    assert batch["y"].tolist() == [spec.classes.index("Dog")] * 3
    assert batch["lengths"].tolist() == [2, 2, 3]
    assert [b["y"].numel() for b in spec.labelled(path, 2)] == [2, 1]
    path.write_text("text,label\na dog,Doggy\nb dog,Dog\n")
    with pytest.raises(DataError, match=r"'Doggy' is no class of this run \(did you mean Dog"):
        list(spec.labelled(path))


def test_out_of_scope_is_the_last_class() -> None:
    spec = make(OOS).spec
    assert spec.classes == ("Dog", "cat", "oos")
    assert (spec.out_of_scope, spec.held_out, spec.outputs) == ("oos", False, 3)
    assert make(OOS, out_of_scope="").spec.out_of_scope == ""
    assert make(OOS, out_of_scope="cat").spec.classes == ("Dog", "oos", "cat")


def test_held_out_texts_are_not_trained() -> None:
    whole, held = make(OOS), make(OOS, hold_out=True)
    assert held.spec.outputs == 2
    assert held.size("val") == whole.size("val")
    y = torch.cat([next(held.batches("train", k))["y"] for k in range(held.steps_per_epoch)])
    assert y.max() == 1
    assert len(y) == sum(r["label"] != "oos" for r in OOS) - sum(
        (b["y"] < 2).sum() for s in ("val", "test") for b in held.batches(s)
    )
    assert "labelled 'oos' are not trained" in notes(held)
    for bad in (make, lambda **k: make(ROWS[:-1] + [{"text": "x y", "label": "cat"}], **k)):
        with pytest.raises(ConfigError, match="needs a label"):
            bad(hold_out=True)
    with pytest.raises(ConfigError, match="out_of_scope=nothing is no label"):
        make(OOS, out_of_scope="nothing")


def test_dropped_words_are_a_function_of_the_seed() -> None:
    data, again, plain = make(word_dropout=0.5), make(word_dropout=0.5), make()
    for k in range(5):
        a, b, c = (next(d.batches("train", k)) for d in (data, again, plain))
        assert torch.equal(a["tokens"], b["tokens"])
        assert torch.equal(a["y"], c["y"])
        changed = a["tokens"] != c["tokens"]
        assert changed.any()
        assert (a["tokens"][changed] == 1).all()
        assert torch.equal(a["tokens"] == 0, c["tokens"] == 0)
    assert torch.equal(next(data.batches("val"))["tokens"], next(plain.batches("val"))["tokens"])


def test_vectors_reach_the_words_that_have_one(tmp_path: Path) -> None:
    path = tmp_path / "v.txt"
    path.write_text("cat 1 2 3\nunseen 4 5 6\ndog 7 8 9\n")
    spec = make(vectors=str(path)).spec
    table = spec.vectors
    assert table is not None
    assert table.shape == (spec.vocabulary.size, 3)
    for word, row in (("cat", [1, 2, 3]), ("unseen", [4, 5, 6]), ("Dog", [7, 8, 9])):
        assert table[spec.vocabulary.encode(word)[0]].tolist() == row
    assert TextSpec.from_json(json.loads(json.dumps(spec.to_json()))).vectors is None
    with pytest.raises(ConfigError, match="vocab=char"):
        make(vectors=str(path), vocab="char")
    path.write_text("quite 1 2\nother 3 4\n")
    with pytest.raises(ConfigError, match="none of the words"):
        make(vectors=str(path))
