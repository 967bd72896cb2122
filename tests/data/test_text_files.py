"""The user's own files and folders: encodings, columns, schemes of tags, parallel files, and every kind of bad file."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from engram.core.errors import ConfigError, DataError
from engram.data.text_conll import repair
from engram.data.texts import Texts, read_texts

TABLE = "text,label\n" + "".join(f'"good, {i}",pos\nbad {i},neg\n' for i in range(10))
CHAT = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}
SQUAD = {"id": "q1", "question": "what?", "answers": [{"text": "Paris", "answer_start": 8}]}


def put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def said(texts: Texts) -> str:
    return " | ".join(f"{n.level}: {n.text}" for n in texts.notes)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_encodings_that_are_seen(tmp_path: Path, encoding: str) -> None:
    text = "the first line is plain\r\ncafé, naïve, 🎉, שלום, e\u0301\n"
    texts = read_texts(put(tmp_path / "a.txt", text.encode(encoding)), val=0)
    assert texts.splits == {"train": [{"text": text.replace("\r\n", "\n")}]}
    assert texts.notes == ()


def test_windows_text_is_read_with_a_warning(tmp_path: Path) -> None:
    path = put(tmp_path / "a.txt", "crème “brûlée”".encode("cp1252"))
    texts = read_texts(path, val=0)
    assert texts.splits["train"][0]["text"] == "crème “brûlée”"
    assert "warning: a.txt is not UTF-8: read as cp1252" in said(texts)
    assert read_texts(path, encoding="cp1252", val=0).notes == ()
    table = put(tmp_path / "t.csv", "text,label\ncafé,x\nthé,y\n".encode("latin-1"))
    assert "t.csv is not UTF-8" in said(read_texts(table))


def test_odd_byte_is_counted_over_blocks(tmp_path: Path) -> None:
    text = "é" * 600_001  # the blocks of a MiB end inside a letter
    with pytest.raises(DataError, match="is not utf-8 at byte 1,200,002 "):
        read_texts(put(tmp_path / "a.txt", text.encode() + b"\xff"))
    assert len(read_texts(put(tmp_path / "b.txt", "a" + text), val=0).splits["train"][0]["text"]) == 600_002


def test_gz_is_unpacked(tmp_path: Path) -> None:
    texts = read_texts(put(tmp_path / "a.txt.gz", gzip.compress(b"some text")), val=0)
    assert texts.splits["train"] == [{"text": "some text"}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "a.txt is empty"),
        ("a.txt", b"\xef\xbb\xbf \n", "a.txt is empty"),
        ("a.txt", b"\x00\x01\x02" * 50, "a.txt is a binary file"),
        ("a.txt", b"words\n" * 30_000 + b"\0", "a.txt is a binary file .*byte 180,000"),
        ("a.txt", "café".encode() + b" \xff", "a.txt is not utf-8 at byte 6 "),
        ("a.txt", "text".encode("utf-16") + b"a", "a.txt is not utf-16 at byte 10 "),
        ("a.txt", b"\x89PNG\r\n\x1a\n", "a.txt is not a text file: it is an image"),
        ("a.md", b"%PDF-1.4 x", "it is a PDF"),
        ("a.txt.gz", gzip.compress(b"word " * 1000, mtime=0)[:-30], "a.txt.gz is cut off"),
        ("a.txt.gz", b"words", "cannot be read"),
        ("a.pkl", b"\x80\x04", "a pickle, and opening one can run code"),
        ("a.csv", "", "a.csv is empty"),
        ("a.csv", "text,label\n", "column names and no rows"),
        ("a.csv", "text,label\na,x\nb\n", "line 3 of a.csv has 1 field and the header has 2"),
        ("a.csv", "text,label\na,x\nb,c,d\n", "line 3 of a.csv has 3 fields"),
        ("a.csv", 'text,label\n"a,x\nb,y\n', "look for a quote that is not closed"),
        ("a.csv", "text,text\na,b\n", "more than one column called 'text'"),
        ("a.csv", TABLE.split("\n", 1)[1], "the first line of a.csv seems to hold data"),
        ("a.csv", "foo,bar\na,b\nc,d\n", r"its names \(foo, bar\); name them: text=COLUMN"),
        ("a.csv", "text,label\na,x\nb,x\nc,x\n", "every text of a.csv has the label 'x'"),
        ("a.parquet", b"PAR1abc", "a.parquet is damaged"),
        ("a.jsonl", '{"text": "a"}\n{bad\n', "line 2 of a.jsonl is not JSON"),
        ("a.jsonl", "[1]\n", "line 1 of a.jsonl is not a JSON object"),
        ("a.json", '[{"a": 1}', "a.json is not JSON"),
        (
            "a.jsonl",
            '{"messages": [{"role": "usr", "content": "hi"}]}',
            r"message 1 has the role 'usr' \(did you mean user\?\)",
        ),
        ("a.jsonl", '{"messages": [{"role": "user", "content": 5}]}', "line 1 of a.jsonl: message 1 has no text"),
        ("a.jsonl", '{"tokens": ["a", "b"], "tags": ["O"]}', "line 1 of a.jsonl has 2 words and 1 tags"),
        ("a.conll", "\n\n", "a.conll is empty"),
        ("a.conll", "a B-X\nb\n", "line 2 of a.conll has no tag"),
        ("a.conll", "a N B-X\n\nb O\n", "line 3 of a.conll has 2 columns and the first has 3"),
        ("a.conll", "a B-X\nb Q-Y\n", r"the tag 'Q-Y' \(line 2\) belongs to no known scheme"),
        ("a.conll", "a B-X\nb PER\n", r"the tag 'PER' \(line 2\) belongs to no known scheme"),
        ("a.json", '{"data": [{"title": "T", "paragraphs": [{"context": "x"}]}]}', "not in SQuAD's form"),
    ],
)
def test_bad_files_in_one_line(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        read_texts(put(tmp_path / name, content))
    assert "\n" not in str(raised.value)


def test_paths_that_are_not_there(tmp_path: Path) -> None:
    put(tmp_path / "reviews.csv", TABLE)
    with pytest.raises(DataError, match=r"there is no file review.csv in .* \(did you mean reviews.csv\?\)"):
        read_texts(tmp_path / "review.csv")
    with pytest.raises(DataError, match="no folder"):
        read_texts(tmp_path / "none" / "a.txt")
    (tmp_path / "link.txt").symlink_to("/nowhere")
    with pytest.raises(DataError, match="is a link to /nowhere"):
        read_texts(tmp_path / "link.txt")
    with pytest.raises(ConfigError, match="encoding='utf-99' is unknown"):
        read_texts(put(tmp_path / "a.txt", "a"), encoding="utf-99")
    with pytest.raises(ConfigError, match=r"text=body names a column, and a\.txt is plain text"):
        read_texts(tmp_path / "a.txt", text="body")


def test_columns_are_guessed_and_said(tmp_path: Path) -> None:
    texts = read_texts(put(tmp_path / "a.csv", TABLE), val=0, test=0)
    assert texts.splits["train"][0] == {"text": "good, 0", "label": "pos"}
    assert "columns taken: text=text, label=label" in said(texts)
    named = read_texts(put(tmp_path / "b.csv", TABLE.replace("text,label", "foo,bar")), text="foo", label="bar", val=0, test=0)
    assert named.splits == texts.splits
    assert named.notes == ()
    with pytest.raises(DataError, match=r"no column 'lable' \(did you mean label\?\); label= names one of text, label"):
        read_texts(tmp_path / "a.csv", label="lable")


def test_cells_stay_as_written(tmp_path: Path) -> None:
    texts = read_texts(put(tmp_path / "a.csv", "text,label\nNA,01\nnull,1\n?,None\n1.50,01\n"), val=0, test=0)
    assert texts.splits["train"] == [
        {"text": t, "label": k} for t, k in (("NA", "01"), ("null", "1"), ("?", "None"), ("1.50", "01"))
    ]


def test_quotation_marks_in_tab_separated_texts(tmp_path: Path) -> None:
    texts = read_texts(put(tmp_path / "a.tsv", 'sentence\tlabel\n"bad film\t0\nthe "best" film\t1\n"x\t1\n'), val=0, test=0)
    assert [r["text"] for r in texts.splits["train"]] == ['"bad film', 'the "best" film', '"x']
    assert "part of the texts" in said(texts)


def test_long_texts_in_a_table(tmp_path: Path) -> None:
    texts = read_texts(put(tmp_path / "a.csv", f"text,label\n{'word ' * 50_000},x\nb,y\n"), val=0, test=0)
    assert len(texts.splits["train"][0]["text"]) == 250_000


@pytest.mark.parametrize(
    ("content", "form", "row"),
    [
        ({"text": "a", "intent": 3}, "labelled", {"text": "a", "label": "3"}),
        ({"source": "a", "target": "b"}, "pairs", {"source": "a", "target": "b"}),
        ({"dialogue": "a", "summary": "b"}, "pairs", {"source": "a", "target": "b"}),
        (CHAT, "conversations", CHAT),
        ({"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]}, "conversations", CHAT),
        ({"prompt": "hi", "response": "ho"}, "conversations", CHAT),
        ({"tokens": ["a", "b"], "tags": ["B-X", "I-X"]}, "tagged", {"words": ["a", "b"], "tags": ["B-X", "I-X"]}),
        ({"text": "a"}, "corpus", {"text": "a"}),
    ],
)
def test_what_the_columns_speak_of(tmp_path: Path, content: Any, form: str, row: Any) -> None:
    other = {"text": "z", "intent": 4} if form == "labelled" else content
    path = put(tmp_path / "a.jsonl", json.dumps(content) + "\n\n" + json.dumps(other) + "\n")
    texts = read_texts(path, val=0, test=0)
    assert texts.form == form
    assert texts.splits["train"][0] == row


def test_parquet_equals_csv(tmp_path: Path) -> None:
    csv = put(tmp_path / "a.csv", TABLE)
    pd.read_csv(csv).to_parquet(tmp_path / "a.parquet")
    assert read_texts(tmp_path / "a.parquet").splits == read_texts(csv).splits == read_texts(pd.read_csv(csv)).splits


def test_questions(tmp_path: Path) -> None:
    article = {"title": "T", "paragraphs": [{"context": "Ile de\u0301 Paris", "qas": [SQUAD]}]}
    rows = read_texts(put(tmp_path / "a.json", json.dumps({"data": [article]}))).splits["train"]
    assert rows == [
        {
            "id": "q1",
            "title": "T",
            "context": "Ile de\u0301 Paris",
            "question": "what?",
            "answers": [{"start": 8, "text": "Paris"}],
        }
    ]
    article["paragraphs"][0]["context"] = "Ile de Paris"
    with pytest.raises(DataError, match="answer 'Paris' of question q1 does not stand at character 8"):
        read_texts(put(tmp_path / "a.json", json.dumps({"data": [article]})))
    table = "context,question,answer\nParis is big,what?,big\nRome,where?,Oslo\n"
    texts = read_texts(put(tmp_path / "a.csv", table))
    assert texts.splits["train"][0]["answers"] == [{"start": 9, "text": "big"}]
    assert "1 question left out, because the answer is not a part of the context" in said(texts)


@pytest.mark.parametrize(
    ("tags", "bio", "note"),
    [
        ("B-X I-X O B-Y", "B-X I-X O B-Y", ""),
        ("I-X I-X B-X O I-Y", "B-X I-X B-X O B-Y", "info: the tags are in IOB1; 2 I-"),
        ("B-X I-Y O I-X", "B-X B-Y O B-X", "warning: 2 tags I- without a B- of its kind before, first on line 2"),
        ("S-X O B-Y I-Y E-Y", "B-X O B-Y I-Y I-Y", "info: the tags are in IOBES"),
        ("U-X O B-Y L-Y", "B-X O B-Y I-Y", "info: the tags are in BILOU"),
        ("DT NN VB -LRB-", "DT NN VB -LRB-", "info: the tags have no B- and I-"),
    ],
)
def test_schemes_of_tags(tmp_path: Path, tags: str, bio: str, note: str) -> None:
    lines = "".join(f"w{i} {t}\n" for i, t in enumerate(tags.split()))
    texts = read_texts(put(tmp_path / "a.txt", lines), "tagged")
    assert texts.splits["train"][0]["tags"] == bio.split()
    assert said(texts).startswith(note)
    if "-X" in bio:
        assert repair(bio.split()) == bio.split()


def test_parallel_files(tmp_path: Path) -> None:
    en = put(tmp_path / "train.en", "one\nline\u2028two\n\n")  # only \n ends a line
    de = put(tmp_path / "train.de", "eins\nzwei\ndrei\n")
    texts = read_texts(f"{en},{de}", val=0, test=0)
    assert texts.splits["train"] == [{"source": "one", "target": "eins"}, {"source": "line\u2028two", "target": "zwei"}]
    assert "1 empty pair left out" in said(texts)
    put(tmp_path / "val.en", "q\n")
    put(tmp_path / "val.de", "r\n")
    folder = read_texts(tmp_path, source="en", target="de", test=0)
    assert folder.splits == texts.splits | {"val": [{"source": "q", "target": "r"}]}
    assert read_texts(tmp_path, source="de").facts["target"] == "en"
    put(tmp_path / "train.de", "eins\nzwei\n")
    for data in (f"{en},{de}", tmp_path):
        with pytest.raises(DataError, match=r"train.(en|de) has [23] lines and train.(en|de) has [23]; line n of one"):
            read_texts(data)
    with pytest.raises(DataError, match=r"no file train.dd in .*did you mean train.de"):
        read_texts(f"{en},{tmp_path / 'train.dd'}")
    put(tmp_path / "train.fr", "a\n")
    with pytest.raises(DataError, match="has train in de, en, fr; say which two"):
        read_texts(tmp_path)
    with pytest.raises(DataError, match=r"no train\.dd"):
        read_texts(tmp_path, source="dd")


def test_folder_per_class(tmp_path: Path) -> None:
    for i in range(10):
        put(tmp_path / "flat" / "pos" / f"{i}.txt", f"good {i}")
        put(tmp_path / "flat" / "neg" / f"{i}.txt", f"bad {i}")
        put(tmp_path / "split" / ("train" if i < 6 else "test") / "pos" / f"{i}.txt", f"good {i}")
        put(tmp_path / "split" / ("train" if i < 6 else "test") / "neg" / f"{i}.txt", f"bad {i}")
    flat = read_texts(tmp_path / "flat")
    assert {s: len(r) for s, r in flat.splits.items()} == {"train": 16, "val": 2, "test": 2}
    assert {(r["label"], r["text"].split()[0]) for r in flat.splits["train"]} == {("pos", "good"), ("neg", "bad")}
    assert "folders were taken as labels (neg, pos)" in said(flat)
    split = read_texts(tmp_path / "split")
    assert sorted(r["text"] for r in split.splits["test"]) == [f"{w} {i}" for w in ("bad", "good") for i in range(6, 10)]
    assert read_texts(tmp_path / "flat", "corpus").form == "corpus"
    with pytest.raises(DataError, match="no folders with texts in them"):
        read_texts(tmp_path / "flat" / "pos", "labelled")


def test_folders(tmp_path: Path) -> None:
    for name in ("b.txt", "a.md", "deep/c.txt", ".hidden/d.txt", "photo.png"):
        put(tmp_path / "books" / name, name)
    assert [r["text"] for r in read_texts(tmp_path / "books", val=0).splits["train"]] == ["a.md", "b.txt", "deep/c.txt"]
    for split in ("train", "valid", "test"):
        put(tmp_path / "tags" / f"{split}.txt", f"{split} B-X\n")
        put(tmp_path / "texts" / f"{split}.txt", f"{split} B-X\n")
    assert read_texts(tmp_path / "tags", "tagged").splits["val"] == [{"words": ["valid"], "tags": ["B-X"]}]
    assert read_texts(tmp_path / "texts").splits["test"] == [{"text": "test B-X\n"}]
    put(tmp_path / "tables" / "train.csv", TABLE)
    put(tmp_path / "tables" / "test.csv", "text,label\nzz,new\n")
    with pytest.raises(DataError, match="the label 'new' is in another split but not in train"):
        read_texts(tmp_path / "tables")
    put(tmp_path / "one" / "rows.csv", TABLE)
    with pytest.raises(DataError, match=r"holds no texts; it holds rows\.csv: name one file"):
        read_texts(tmp_path / "one")
    (tmp_path / "void").mkdir()
    with pytest.raises(DataError, match="holds no texts; corpus data is a text file"):
        read_texts(tmp_path / "void")


def test_same_content_same_digest(tmp_path: Path) -> None:
    one, two = put(tmp_path / "a.txt", "same"), put(tmp_path / "b.txt", "same")
    assert read_texts(one).sha256 == read_texts(two).sha256 != read_texts(put(tmp_path / "c.txt", "other")).sha256
