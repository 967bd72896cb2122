"""Built-in texts: official sizes and splits, what is said when a part is missing, and the user's own copies."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from engram.core.errors import ConfigError, DataError
from engram.data import text_sets
from engram.data.sources import BUILT_IN
from engram.data.text_sets import is_set, wikitext_articles
from engram.data.texts import read_texts

needs_data = pytest.mark.skipif("ENGRAM_DATA" not in os.environ, reason="ENGRAM_DATA is not set")
REAL = Path(os.environ.get("ENGRAM_DATA", "."))


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as ENGRAM_DATA, with an empty cache."""
    monkeypatch.setenv("ENGRAM_DATA", str(tmp_path / "own"))
    monkeypatch.setenv("ENGRAM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "own"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def warnings(texts: text_sets.Texts) -> str:
    return " | ".join(n.text for n in texts.notes if n.level == "warning")


def test_every_set_has_a_reader_and_a_licence() -> None:
    sets = {n for n, s in BUILT_IN.items() if s.kind == "text"}
    assert sets == {*text_sets._READERS, "multi30k"}
    assert all(BUILT_IN[n].licence for n in sets)
    assert is_set("multi30k:en-fr")
    assert not is_set("digits")


def test_pydoc_needs_no_file(own: Path) -> None:
    texts = read_texts("pydoc")
    assert texts.form == "corpus"
    assert any("lambda" in r["text"] for r in texts.splits["train"])
    assert texts.facts["licence"] == "PSF-2.0"
    assert not own.exists()


@needs_data
def test_tinyshakespeare_is_cut_as_nanogpt_does() -> None:
    texts = read_texts("tinyshakespeare")
    data = (REAL / "tinyshakespeare" / "input.txt").read_text("utf-8")
    n = len(data)
    assert n == 1_115_394
    assert texts.splits == {"train": [{"text": data[: int(n * 0.9)]}], "val": [{"text": data[int(n * 0.9) :]}]}
    assert len(texts.splits["train"][0]["text"]) == 1_003_854  # nanoGPT's data/shakespeare_char/readme
    assert texts.sha256 == BUILT_IN["tinyshakespeare"].files["input.txt"].sha256


@needs_data
@pytest.mark.parametrize(
    ("name", "form", "rows"),
    [
        ("sst2", "labelled", {"train": 6920, "val": 872, "test": 1821}),
        ("wnut17", "tagged", {"train": 3394, "val": 1009, "test": 1287}),
        ("multi30k", "pairs", {"train": 29000, "val": 1014, "test": 1000}),
        ("multi30k:fr-de", "pairs", {"train": 29000, "val": 1014, "test": 1000}),
        ("clinc150", "labelled", {"train": 15100, "val": 3100, "test": 5500}),
    ],
)
def test_official_sizes(name: str, form: str, rows: dict[str, int]) -> None:
    texts = read_texts(name)
    assert texts.form == form
    assert {s: len(r) for s, r in texts.splits.items()} == rows
    assert sum(rows.values()) == BUILT_IN[name.partition(":")[0]].rows


@needs_data
def test_rows_are_what_the_files_say() -> None:
    sst2 = read_texts("sst2").splits["train"][0]
    assert sst2["label"] == "positive"
    assert sst2["text"].startswith("a stirring , funny")
    wnut = read_texts("wnut17")
    entities = [sum(t.startswith("B-") for r in rows for t in r["tags"]) for rows in wnut.splits.values()]
    assert entities == [1975, 836, 1079]  # as its readme counts
    assert all(len(r["words"]) == len(r["tags"]) for rows in wnut.splits.values() for r in rows)
    pair = read_texts("multi30k").splits["train"][0]
    assert pair["source"].startswith("Two young, White males")
    assert pair["target"].startswith("Zwei junge weiße Männer")
    assert read_texts("multi30k:de-en").splits["train"][0] == {"source": pair["target"], "target": pair["source"]}
    clinc = read_texts("clinc150")
    assert [sum(r["label"] == "oos" for r in rows) for rows in clinc.splits.values()] == [100, 100, 1000]
    assert len(clinc.facts["classes"]) == 151


@needs_data
def test_wikitext_without_train_says_so() -> None:
    texts = read_texts("wikitext2")
    assert "not comparable with published figures" in warnings(texts)
    valid = (REAL / "wikitext2_valid_test" / "valid.txt").read_text("utf-8")
    articles = wikitext_articles(valid)
    assert "".join(articles) == valid
    assert len(articles) == 60  # Merity et al. 2016, table 1
    assert sum(len(line.split()) + 1 for line in valid.splitlines()) == 217_646
    assert {s: len(r) for s, r in texts.splits.items()} == {"train": 54, "val": 6, "test": 60}


@needs_data
def test_wikitext_with_the_users_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGRAM_DATA", str(tmp_path))
    for file in ("valid.txt", "test.txt"):
        write(tmp_path / "wikitext2" / file, (REAL / "wikitext2_valid_test" / file).read_text("utf-8"))
    write(tmp_path / "wikitext2" / "train.txt", " \n = One = \n \n Text of it . \n \n = Two = \n \n More . \n")
    texts = read_texts("wikitext2")
    assert {s: len(r) for s, r in texts.splits.items()} == {"train": 2, "val": 60, "test": 60}
    assert "published train.txt has 2,088,628" in warnings(texts)


@needs_data
def test_squad_by_article() -> None:
    texts = read_texts("squad")
    assert "non-standard split" in warnings(texts)
    titles = [{r["title"] for r in rows} for rows in texts.splits.values()]
    assert sum(map(len, titles)) == len(set().union(*titles)) == 48
    assert sum(map(len, texts.splits.values())) == 10570
    for row in texts.splits["test"]:
        for answer in row["answers"]:
            assert row["context"][answer["start"] :].startswith(answer["text"])


@needs_data
def test_dialogsum_references() -> None:
    texts = read_texts("dialogsum")
    assert "not comparable" in warnings(texts)
    row = texts.splits["test"][0]
    assert len(texts.splits["test"]) == 500
    assert row["target"] == row["references"][0]
    assert len(row["references"]) == 3
    assert "references" not in texts.splits["train"][0]


def test_imdb_from_its_folders(own: Path) -> None:
    for split in ("train", "test"):
        for i in range(5):
            write(own / "imdb" / "aclImdb" / split / "pos" / f"{i}_9.txt", f"{split} liked {i}<br />a lot")
            write(own / "imdb" / "aclImdb" / split / "neg" / f"{i}_2.txt", f"{split} hated {i}")
    write(own / "imdb" / "aclImdb" / "train" / "unsup" / "0_0.txt", "no label")
    texts = read_texts("imdb")
    assert {s: len(r) for s, r in texts.splits.items()} == {"train": 9, "val": 1, "test": 10}
    assert {(r["label"], r["text"].split()[1]) for r in texts.splits["test"]} == {("positive", "liked"), ("negative", "hated")}
    assert not any("<br" in r["text"] for rows in texts.splits.values() for r in rows)


def test_conll2003_from_iob1(own: Path) -> None:
    body = "-DOCSTART- -X- O O\n\nEU NNP I-NP I-ORG\nrejects VBZ I-VP O\nGerman JJ I-NP I-MISC\nBritish JJ I-NP B-MISC\n\n"
    for file in ("train.txt", "valid.txt", "test.txt"):
        write(own / "conll2003" / file, body)
    texts = read_texts("conll2003")
    assert texts.splits["val"] == [
        {"words": ["EU", "rejects", "German", "British"], "tags": ["B-ORG", "O", "B-MISC", "B-MISC"]}
    ]
    assert texts.facts["scheme"] == "IOB1"


def test_what_is_missing_is_said(own: Path) -> None:
    for name in ("imdb", "conll2003"):
        with pytest.raises(DataError, match=f"{name} is not on this machine and has to be your own copy: put .*ENGRAM_DATA"):
            read_texts(name)
    with pytest.raises(DataError, match=r"no direction 'en-d' \(did you mean en-de\?\)"):
        read_texts("multi30k:en-d")
    with pytest.raises(DataError, match="sst2 has no variants"):
        read_texts("sst2:fine")
    with pytest.raises(ConfigError, match="text=a names a column, and sst2 is a built-in set"):
        read_texts("sst2", text="a")


def test_a_changed_file_is_never_used(own: Path) -> None:
    write(own / "clinc150" / "data_full.json", json.dumps({"train": []}))
    with pytest.raises(DataError, match="is not the clinc150 data: its sha256 differs"):
        read_texts("clinc150")
