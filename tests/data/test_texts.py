"""The entry point: forms, splits, copies, rows in Python, and corpora in pieces that equal the corpora read whole."""

from __future__ import annotations

import hashlib
import tracemalloc
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from engram.core.errors import ConfigError, DataError
from engram.data.text_rows import FORMS
from engram.data.texts import corpus_chunks, corpus_documents, read_texts

LABELLED = [{"text": f"text {i}", "label": "ab"[i % 4 == 0]} for i in range(100)]


def test_labelled_split_is_stratified_repeatable_and_loses_nothing() -> None:
    texts = read_texts(LABELLED, "labelled", seed=3)
    assert {s: len(r) for s, r in texts.splits.items()} == {"train": 80, "val": 10, "test": 10}
    for rows in texts.splits.values():
        assert sum(r["label"] == "b" for r in rows) == pytest.approx(len(rows) / 4, abs=0.5)
    everything = sorted(r["text"] for rows in texts.splits.values() for r in rows)
    assert everything == sorted(r["text"] for r in LABELLED)
    assert read_texts(LABELLED, seed=3).splits == texts.splits
    assert read_texts(LABELLED, seed=4).splits != texts.splits
    assert texts.sha256 == read_texts(LABELLED, seed=4).sha256 != read_texts(LABELLED[:-1]).sha256
    assert texts.facts["classes"] == {"a": 60, "b": 20}


def test_corpus_of_few_documents_is_cut_by_position() -> None:
    documents = ["a" * 50, "b" * 33, "c" * 20]
    texts = read_texts(documents)
    whole = "".join(documents)
    parts = {s: "".join(r["text"] for r in rows) for s, rows in texts.splits.items()}
    assert parts == {"train": whole[: int(103 * 0.9)], "val": whole[int(103 * 0.9) :]}
    assert [r["text"] for r in texts.splits["train"]] == ["a" * 50, "b" * 33, "c" * 9]


def test_corpus_of_many_documents_is_cut_by_document() -> None:
    documents = [f"document {i}" for i in range(40)]
    texts = read_texts(documents, seed=1)
    train, val = ([r["text"] for r in texts.splits[s]] for s in ("train", "val"))
    assert (len(train), len(val)) == (36, 4)
    assert sorted(train + val) == sorted(documents)
    assert train == [d for d in documents if d in train]  # in order
    assert val != documents[-4:]


def test_nothing_is_cut_when_shares_are_zero() -> None:
    assert set(read_texts(LABELLED, val=0, test=0).splits) == {"train"}
    assert set(read_texts(["one text"], val=0).splits) == {"train"}


def test_empty_texts_are_dropped_and_counted() -> None:
    texts = read_texts([*LABELLED, {"text": " \n", "label": "a"}, {"text": None, "label": "a"}, {"text": "x", "label": None}])
    said = " ".join(n.text for n in texts.notes)
    assert "2 empty texts left out" in said
    assert "1 text without a label left out" in said
    assert sum(map(len, texts.splits.values())) == 100


def test_copies_across_splits_are_counted(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\none,a\ntwo,b\nthree,a\n")
    (tmp_path / "test.csv").write_text("text,label\ntwo,b\nfour,a\n")
    warned = [n.text for n in read_texts(tmp_path, val=0).notes if n.level == "warning" and "copies" in n.text]
    assert len(warned) == 1
    assert "1 of 2 test texts (50.0%)" in warned[0]
    assert "test row 1 = train row 2" in warned[0]


def test_other_forms_give_a_corpus() -> None:
    pairs = read_texts(pd.DataFrame({"en": ["a cat", "b"], "de": ["eine Katze", "c"]}), "corpus", val=0)
    assert [r["text"] for r in pairs.splits["train"]] == ["a cat\neine Katze", "b\nc"]
    question = {"context": "Paris is big", "question": "what?", "answer": "Paris"}
    rows = read_texts([question, question | {"question": "which?"}], "corpus", val=0).splits["train"]
    assert rows == [{"text": "Paris is big"}]  # the paragraph once
    chat = [{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}]
    assert read_texts(chat, "corpus", val=0).splits["train"] == [{"text": "hi\nho"}]
    labelled = read_texts([{"text": "kept", "label": None}, {"text": "too", "label": "b"}], "corpus", val=0)
    assert [r["text"] for r in labelled.splits["train"]] == ["kept", "too"]


def test_pairs_give_conversations() -> None:
    rows = read_texts([{"question": "why?", "answer": "so"}], "conversations").splits["train"]
    assert rows == [{"messages": [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "so"}]}]


@pytest.mark.parametrize(
    ("data", "knobs", "error", "said"),
    [
        ("", {}, DataError, "no data given"),
        (None, {}, DataError, "NoneType is no data"),
        ("tinyshakespere", {}, DataError, "did you mean tinyshakespeare"),
        ("digits", {}, DataError, "digits is a set of images, not of texts"),
        ("a line\nof text", {}, DataError, "is a text, not the name of data"),
        ("x" * 5000, {}, DataError, "is a text, not the name of data"),
        ([], {}, DataError, "the list of texts is empty"),
        (["a", 1], {}, DataError, "a value of type int"),
        (pd.DataFrame(), {}, DataError, "no rows"),
        (pd.DataFrame([["a", "b"]], columns=["text", "text"]), {}, DataError, "more than one column called 'text'"),
        (["  ", ""], {}, DataError, "only empty documents"),
        (["half \ud800"], {}, DataError, "row 1 holds half a character"),
        (["a"], {"form": "corpsu"}, ConfigError, "did you mean corpus"),
        (["a"], {"form": "pairs"}, DataError, "holds corpus data"),
        (LABELLED, {"val": 0.9, "test": 0.2}, ConfigError, "val=0.9 and test=0.2"),
        (LABELLED, {"text": "txt"}, DataError, r"no column 'txt' \(did you mean text\?\)"),
        (LABELLED, {"form": "labelled", "source": "text"}, ConfigError, "source=text is not used for labelled data"),
        ([{"text": "a", "label": 1}, {"text": "b", "label": 1}], {}, DataError, "needs two or more classes"),
        ([{"text": str(i), "label": i} for i in range(5)], {}, DataError, "5 texts and as many labels"),
        ([{"text": "a", "label": ["x"]}], {}, DataError, "row 1 of the list: the label .* is a list"),
        ([{"foo": "a", "bar": "b"}], {}, DataError, r"\(foo, bar\); name them: text=COLUMN label=COLUMN"),
    ],
)
def test_bad_input_in_one_line(data: Any, knobs: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said) as raised:
        read_texts(data, **knobs)
    assert "\n" not in str(raised.value)


def test_every_form_is_described() -> None:
    for form in FORMS:
        if form != "corpus":
            with pytest.raises(DataError, match=f"{form} data is needed: .*; or train a language model"):
                read_texts("pydoc", form)


def test_pieces_equal_the_whole(tmp_path: Path) -> None:
    one = tmp_path / "one.txt"
    one.write_bytes("héllo\r\nwörld 🎉\r".encode() * 57)
    few, many, split = tmp_path / "few", tmp_path / "many", tmp_path / "split"
    for folder, count in ((few, 7), (many, 31)):
        folder.mkdir()
        for i in range(count):
            (folder / f"{i:02}.txt").write_text("" if i == 3 else f"document {i} " * (i + 1))
    split.mkdir()
    for name in ("train", "test"):
        (split / f"{name}.txt").write_text(f"{name} " * 40)
    (tmp_path / "table.csv").write_text("text,label\n" + "".join(f"text {i},{i % 2}\n" for i in range(30)))
    for data in (one, few, many, split, tmp_path / "table.csv", "pydoc", ["one text", "two"]):
        texts = read_texts(data, "corpus", seed=5)
        for name in ("train", "val", "test"):
            pieces = [list(d) for d in corpus_documents(data, name, 7, seed=5)]
            assert ["".join(p) for p in pieces] == [r["text"] for r in texts.splits.get(name, [])], (data, name)
            assert all(0 < len(p) <= 7 for d in pieces for p in d)
            assert "".join(corpus_chunks(data, name, seed=5)) == "".join("".join(p) for p in pieces)


def test_pieces_need_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "big.txt"
    line = "some words in a line of a large file, ünd more\n"
    path.write_text(line * 400_000)
    digest, characters = hashlib.sha256(), 0
    tracemalloc.start()
    for split in ("train", "val"):
        for chunk in corpus_chunks(path, split, 1 << 16):
            digest.update(chunk.encode())
            characters += len(chunk)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert characters == len(line) * 400_000
    assert digest.hexdigest() == hashlib.sha256(path.read_bytes()).hexdigest()
    assert peak < 8 << 20 < path.stat().st_size / 2
