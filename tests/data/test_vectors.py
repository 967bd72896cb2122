"""Files of word vectors: the three formats, damage said in one line, and real vectors against published judgements."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
import torch

from engram.core.errors import DataError
from engram.data.vectors import judgements, load_vectors, read_pairs, save_vectors
from engram.insight.similarity import analogies, lookup, pairs

WORDS = ["the", "naïve", "東京", "a"]
TABLE = torch.tensor([[0.1, -2.0, 3e-5], [1.0, 2.0, 3.0], [0.0, 0.0, 1e30], [-0.0, 5.5, 7.0]])


def binary(path: Path, newline: bool = True) -> Path:
    """As word2vec.c writes it, with a line end after each vector, or as gensim does, without."""
    body = b"".join(
        w.encode() + b" " + struct.pack("<3f", *row) + (b"\n" if newline else b"")
        for w, row in zip(WORDS, TABLE.tolist(), strict=True)
    )
    path.write_bytes(b"4 3\n" + body)
    return path


def glove(path: Path) -> Path:
    path.write_text("".join(f"{w} {' '.join(map(repr, row))}\n" for w, row in zip(WORDS, TABLE.tolist(), strict=True)), "utf-8")
    return path


def test_text_comes_back_exactly(tmp_path: Path) -> None:
    save_vectors(tmp_path / "v.txt", WORDS, TABLE)
    words, vectors = load_vectors(tmp_path / "v.txt")
    assert words == WORDS
    assert torch.equal(vectors, TABLE)
    assert (tmp_path / "v.txt").read_text("utf-8").startswith("4 3\n")


@pytest.mark.parametrize("newline", [True, False])
def test_binary(tmp_path: Path, newline: bool) -> None:
    words, vectors = load_vectors(binary(tmp_path / "v.bin", newline))
    assert words == WORDS
    assert torch.equal(vectors, TABLE)


def test_a_binary_file_longer_than_a_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engram.data.vectors.CHUNK", 7)
    words, vectors = load_vectors(binary(tmp_path / "v.bin"))
    assert words == WORDS
    assert torch.equal(vectors, TABLE)


def test_glove(tmp_path: Path) -> None:
    words, vectors = load_vectors(glove(tmp_path / "v.txt"))
    assert words == WORDS
    assert torch.equal(vectors, TABLE)


def test_only_the_first_words(tmp_path: Path) -> None:
    for path in (glove(tmp_path / "g"), binary(tmp_path / "b")):
        words, vectors = load_vectors(path, most=2)
        assert words == WORDS[:2]
        assert vectors.shape == (2, 3)


def test_a_repeated_word_counts_once_and_words_may_hold_spaces(tmp_path: Path) -> None:
    (tmp_path / "v").write_text("a 1 2\nb 3 4\na 5 6\nat name@x 7 8\n", "utf-8")
    words, vectors = load_vectors(tmp_path / "v")
    assert words == ["a", "b", "at name@x"]
    assert vectors.tolist() == [[1, 2], [3, 4], [7, 8]]


BAD = {
    "empty": (b"", "is empty"),
    "prose": (b"It was a dark night\nand so on\n", "holds no word vectors"),
    "ragged": (b"a 1 2 3\nb 1 2\n", "line 2: 2 numbers, the others have 3"),
    "text in numbers": (b"a 1 2 3\nb 1 x 3\n", "line 2: what should be 3 numbers is not"),
    "too many numbers": (b"2 3\na 1 2 3\nb 1 2 3 4\n", "line 3: 4 numbers where the first line says 3"),
    "cut text": (b"9 3\na 1 2 3\nb 1 2 3\n", "is cut off: its first line says 9 words and it holds 2"),
    "not finite": (b"a 1 2 3\nb nan 2 3\n", "the vector of 'b' holds a number that is not finite"),
    "nothing": (b"0 3\n", "which no file of vectors has"),
    "huge": (b"99999999999 300\n\x00\x01", "which no file of vectors has"),
    "short binary": (b"4 3\nthe " + struct.pack("<3f", 1, 2, 3), "is cut off"),
}


@pytest.mark.parametrize("what", BAD)
def test_damage_is_said_in_one_line(tmp_path: Path, what: str) -> None:
    content, said = BAD[what]
    path = tmp_path / "vectors"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_vectors(path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_binary_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = binary(tmp_path / "v.bin").read_bytes()
    for length in range(len(whole) - 1):  # the last line end says nothing
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(DataError):
            load_vectors(tmp_path / "cut")


def test_no_file(tmp_path: Path) -> None:
    glove(tmp_path / "vectors.txt")
    with pytest.raises(DataError, match=r"did you mean vectors.txt"):
        load_vectors(tmp_path / "vektors.txt")


def test_words_that_the_format_cannot_say(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'new york' is empty or holds a space"):
        save_vectors(tmp_path / "v", ["new york"], torch.zeros(1, 2))


def test_lists_of_judgements(tmp_path: Path) -> None:
    (tmp_path / "pairs").write_text("tiger cat 7.35\nbook\n", "utf-8")
    with pytest.raises(DataError, match="line 2: 3 fields"):
        read_pairs(tmp_path / "pairs")
    assert judgements(tmp_path).pairs == {}


DATA = Path(os.environ.get("ENGRAM_DATA", "/nowhere"))
TWITTER = DATA / "glove_twitter_25d_12k" / "glove_twitter_25d_12k.txt"


@pytest.mark.skipif(not (TWITTER.exists() and (DATA / "wordsim").exists()), reason="needs ENGRAM_DATA")
def test_twitter_vectors_score_as_published() -> None:
    words, vectors = load_vectors(TWITTER)
    assert vectors.shape == (11925, 25)
    find, lists = lookup(words), judgements(DATA)
    similar = pairs(vectors, find, lists.pairs["wordsim353"])
    assert similar["covered"] == 284
    assert similar["spearman"] == pytest.approx(0.427, abs=5e-4)
    solved = analogies(vectors, find, lists.questions["google_analogies"])
    assert solved["covered"] == 6163
    assert solved["accuracy"] == pytest.approx(0.182, abs=5e-4)
