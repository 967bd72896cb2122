"""A corpus tokenised in pieces into files is the corpus tokenised whole; the files are reused; memory stays bounded."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from engram.core.errors import DataError
from engram.data import stored as module
from engram.data.corpus import corpus
from engram.data.language_spec import LanguageSpec
from engram.data.span_spec import SpanSpec
from engram.data.spans import spans
from engram.data.stored import large, stored, whole_words
from engram.data.vocabulary import Vocabulary

BITS = [
    "The",
    " cat",
    "'s",
    "  two",
    "\n\n",
    "\t",
    " 12,5",
    "naïve",
    " Größe",
    "日本語",
    " 😀",
    "!?",
    "\u00a0",
    "\x1c",
    " \n ",
    "e\u0301",
    "ΑΣ",
    " ",
]


def text(seed: int, count: int) -> str:
    draw = random.Random(seed)
    return "".join(draw.choice(BITS) for _ in range(count))


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with 30 documents, and a cache of its own."""
    monkeypatch.setenv("ENGRAM_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number:02d}.txt").write_text(text(number, 200 + 40 * number).replace("\x1c", ""), "utf-8")
    return folder


@pytest.mark.parametrize("size", [1, 2, 7, 64, 5000])
@pytest.mark.parametrize("kind", ["bpe", "word", "char", "byte"])
@pytest.mark.parametrize("lower", [False, True])
def test_pieces_have_the_tokens_of_the_whole(kind: str, size: int, lower: bool) -> None:
    whole = text(1, 900)
    vocabulary = Vocabulary.train(kind, [whole], 500, lower=lower)
    cut = [whole[i : i + size] for i in range(0, len(whole), size)]
    with mock.patch.object(module, "LONGEST", 10**6):
        pieces = list(whole_words(iter(cut)))
    assert "".join(pieces) == whole
    assert len(pieces) > 1 or size in (1, 5000)  # one character is no place to cut
    assert np.concatenate([vocabulary.encode_array(p) for p in pieces]).tolist() == vocabulary.encode(whole)


def test_a_text_without_spaces_is_cut_all_the_same() -> None:
    pieces = list(whole_words(itertools.repeat("x" * 1000, 100)))
    assert sum(map(len, pieces)) == 100_000
    assert max(map(len, pieces)) <= 17_000


@pytest.mark.parametrize("vocab", ["bpe", "word", "char"])
def test_stored_and_in_memory_give_the_same_batches(files: Path, vocab: str) -> None:
    knobs = {"batch": 4, "context": 32, "vocab": vocab, "vocab_size": 400, "seed": 5}
    for make in (corpus, spans):
        whole, kept = make(files, **knobs), make(files, memory=0.0, **knobs)  # type: ignore[operator]
        assert isinstance(kept.splits["train"], np.memmap)
        assert not isinstance(whole.splits["train"], np.memmap)
        assert isinstance(whole.spec, LanguageSpec | SpanSpec)
        assert isinstance(kept.spec, LanguageSpec | SpanSpec)
        assert whole.spec.vocab == kept.spec.vocab
        assert {n: whole.size(n) for n in whole.splits} == {n: kept.size(n) for n in kept.splits}
        for split in ("train", "val"):
            for a, b in itertools.islice(zip(whole.batches(split), kept.batches(split), strict=False), 40):
                assert a.keys() == b.keys()
                assert all(torch.equal(a[name], b[name]) for name in a)
        assert kept.summary.facts["tokens"] == whole.summary.facts["tokens"]
        assert kept.summary.facts["documents"] == whole.summary.facts["documents"]
        assert kept.raw("val", [0, 1]) == whole.raw("val", [0, 1])


def test_files_are_made_once_and_made_again_for_other_text_or_vocabulary(files: Path) -> None:
    byte, char = Vocabulary("byte"), Vocabulary.train("char", BITS)

    def tokens(vocabulary: Vocabulary, seed: int = 0) -> np.ndarray:
        found = large(files, seed, 0.0)
        assert found is not None
        split = stored(found, "train", vocabulary, found.sha256)
        assert split is not None
        return split.ids

    first = tokens(byte)
    with mock.patch.object(module, "_write", side_effect=AssertionError("made again")):
        assert np.array_equal(tokens(byte), first)
        for change in (lambda: tokens(char), lambda: tokens(byte, seed=1)):
            with pytest.raises(AssertionError, match="made again"):
                change()
        (files / "00.txt").write_text("another text " * 9, "utf-8")
        with pytest.raises(AssertionError, match="made again"):
            tokens(byte)
    left = list((Path(os.environ["ENGRAM_CACHE"]) / "tokens").iterdir())
    assert len(left) == 1, "what was begun and not finished is gone"


def test_damaged_files_and_a_cache_that_cannot_be_written(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = large(files, 0, 0.0)
    assert found is not None
    stored(found, "train", Vocabulary("byte"), found.sha256)
    (path,) = Path(os.environ["ENGRAM_CACHE"]).glob("tokens/*/ids.npy")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="damaged; remove"):
        stored(found, "train", Vocabulary("byte"), found.sha256)
    monkeypatch.setenv("ENGRAM_CACHE", str(files / "00.txt"))
    with pytest.raises(DataError, match="ENGRAM_CACHE"):
        stored(found, "train", Vocabulary("byte"), found.sha256)


def test_what_is_small_or_no_text_file_is_read_whole(files: Path) -> None:
    assert large(files, 0) is None
    assert large("pydoc", 0, 0.0) is None
    assert large(["a text"], 0, 0.0) is None
    table = files.parent / "t.csv"
    table.write_text("text\n" + "a b c\n" * 99)
    assert large(table, 0, 0.0) is None


def test_a_vocabulary_sees_a_part_from_all_over_the_text(files: Path) -> None:
    found = large(files, 0, 0.0)
    assert found is not None
    whole = sum(map(len, found.text()))
    part = list(found.sample(whole // 5))
    assert 0.05 * whole < sum(map(len, part)) < 0.4 * whole
    assert list(found.sample()) == list(found.text())


PROBE = """
import re, sys
from pathlib import Path
from engram.data.corpus import corpus

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

Path("/proc/self/clear_refs").write_text("5")  # the peak counts anew: a large parent would hide it
before = peak()
data = corpus(sys.argv[1], batch=8, context=64, vocab=sys.argv[2], vocab_size=1000, memory=float(sys.argv[3]))
stream = data.batches("val")
for _ in range(20):
    next(stream)
print((peak() - before) / 1024, len(data.splits["train"]))
"""


def peak(path: Path, vocab: str, memory: float) -> tuple[float, int]:
    """(MB above what the program itself takes, training tokens)."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(path), vocab, str(memory)], env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    megabytes, tokens = done.stdout.split()
    return float(megabytes), int(tokens)


def made_file(folder: Path, megabytes: int) -> Path:
    draw = random.Random(0)
    words = [f"{draw.choice('bcdfg')}{draw.choice('aeiou')}{n}" for n in range(5000)]
    block = " ".join(draw.choices(words, k=160_000)) + "\n"
    path = folder / "big.txt"
    with path.open("w") as file:
        for _ in range(megabytes * 1_000_000 // len(block) + 1):
            file.write(block)
    return path


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read as Linux tells it")
def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """10 MB of text by bytes, which is more than 60 MB of ids and text when read whole."""
    monkeypatch.setenv("ENGRAM_CACHE", str(tmp_path / "cache"))
    path = made_file(tmp_path, 10)
    kept, tokens = peak(path, "byte", 1.0)
    whole, same = peak(path, "byte", 1000.0)
    assert tokens == same
    assert kept < 40, f"{kept:.0f} MB for 10 MB of text"
    assert whole > kept + 20, f"{whole:.0f} MB and {kept:.0f} MB"


@pytest.mark.slow
def test_memory_does_not_grow_with_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """60 MB take what 20 MB take, byte pairs trained."""
    monkeypatch.setenv("ENGRAM_CACHE", str(tmp_path / "cache"))
    few = peak(made_file(tmp_path, 20), "bpe", 1.0)[0]
    many = peak(made_file(tmp_path, 60), "bpe", 1.0)[0]
    assert many < few + 25, f"{few:.0f} MB for 20 MB of text, {many:.0f} MB for 60 MB"
