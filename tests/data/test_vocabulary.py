"""Vocabularies: text survives, both byte-pair libraries agree, damage is said."""

from __future__ import annotations

import json
from unittest import mock

import numpy as np
import pytest

from engram.core.errors import ConfigError, DataError
from engram.data.bytepair import BytePairs, _by_rustbpe, _by_tokenizers, cut, train_merges
from engram.data.vocabulary import SPECIALS, UNK, Vocabulary, split_words

TEXT = "the cat sat on the mat. The cat's hat: 12 cats!\n\n  an indented line\ttab\r\n"
HARD = "caf\u00e9 cafe\u0301 👩\u200d👩\u200d👧 שלום עליכם 日本語 \u0000 \u202eabc \ufeff x" + TEXT


@pytest.mark.parametrize("kind", ["byte", "bpe"])
def test_any_text_comes_back_as_it_was(kind: str) -> None:
    v = Vocabulary.train(kind, [TEXT * 20], 320)
    for text in (HARD, "", " ", "\n", TEXT, "🙂" * 50):
        assert v.decode(v.encode(text)) == text


def test_characters_come_back_and_unknown_ones_are_named() -> None:
    v = Vocabulary.train("char", [TEXT])
    assert v.decode(v.encode(TEXT)) == TEXT
    assert v.size == len(set(TEXT)) + len(SPECIALS)
    assert v.encode("tqt").count(UNK) == 1
    with pytest.raises(DataError, match=r"'q' \(LATIN SMALL LETTER Q\)"):
        v.encode("tqt", strict=True)


def test_words_keep_the_commonest() -> None:
    v = Vocabulary.train("word", ["b a a c a b"], 2 + len(SPECIALS))
    assert v.pieces == ("a", "b")
    assert v.decode(v.encode("a b")) == "a b"
    assert v.encode("c") == [UNK]
    assert Vocabulary.train("word", ["A a"], lower=True).encode("A") == [len(SPECIALS)]
    assert split_words("don't stop: it's 3.5") == ["don't", "stop", ":", "it's", "3", ".", "5"]


def test_both_byte_pair_libraries_agree() -> None:
    pytest.importorskip("tiktoken")
    pairs = BytePairs(train_merges([TEXT * 50, "other words entirely, and more of them " * 30], 120))
    assert pairs._fast is not None
    for text in (HARD, TEXT, "words " * 200, "a" * 99, "\u00a0 \u2003x  \n \n"):
        assert pairs.encode(text).tolist() == pairs._slow.encode(text, add_special_tokens=False).ids


def test_a_long_text_in_threads_has_the_ids_of_the_whole() -> None:
    pairs = BytePairs(train_merges([TEXT * 50], 60))
    text = TEXT * 400
    whole = pairs.encode(text)
    with mock.patch("engram.data.bytepair.PIECE", 97):
        assert np.array_equal(pairs.encode(text), whole)
        assert len(list(cut(text, 97))) > 50
        assert "".join(cut(text, 97)) == text
        assert len(pairs.encode("x" * 1000)) > 0  # no place to cut
        assert len(pairs.encode("")) == 0


@pytest.mark.parametrize("train", [_by_rustbpe, _by_tokenizers])
def test_both_trainers_give_merges_that_all_encoders_agree_on(train) -> None:
    if train is _by_rustbpe:
        pytest.importorskip("rustbpe")
    texts = [TEXT * 20, "the theme of these other things, and other words " * 30]
    merges = train(texts, 120)
    assert merges == train(texts, 120)
    assert 50 < len(merges) <= 120
    pairs = BytePairs(merges)
    assert len(set(pairs.tokens)) == len(pairs.tokens)
    for text in texts:
        assert b"".join(pairs.tokens[i] for i in pairs.encode(text)) == text.encode()
        assert pairs.encode(text).tolist() == pairs._slow.encode(text, add_special_tokens=False).ids


def test_a_larger_byte_pair_vocabulary_needs_fewer_tokens() -> None:
    text = TEXT * 40
    sizes = [len(Vocabulary.train("bpe", [text], size).encode(text)) for size in (272, 282, 292)]
    assert sizes[0] > sizes[1] > sizes[2]
    assert Vocabulary.train("bpe", [text], 290).size == 290


@pytest.mark.parametrize("kind", ["char", "byte", "word", "bpe"])
def test_json_and_back(kind: str) -> None:
    v = Vocabulary.train(kind, [TEXT * 9], 300, extra=("<x>",))
    w = Vocabulary.from_json(json.loads(json.dumps(v.to_json())))
    assert w.encode(TEXT) == v.encode(TEXT)
    assert w.special("<x>") == len(SPECIALS)
    assert w.size == v.size == len(w)


def test_a_stream_gives_whole_characters_only() -> None:
    v = Vocabulary("byte")
    stream, text = v.stream(), "a\u00e9👩b"
    shown = [stream(i) for i in v.encode(text)]
    assert "".join(shown) == text
    assert shown[1] == ""  # half of é
    cut = v.stream()
    assert cut(v.encode("\u00e9")[0]) + cut(None) == "\ufffd"


def test_pieces_are_shown_as_text_or_bytes() -> None:
    v = Vocabulary("byte")
    assert [v.piece(i) for i in v.encode("\u00e9a")] == ["<0xC3>", "<0xA9>", "a"]
    assert v.piece(0) == "<pad>"


def test_decoding_leaves_special_tokens_out_unless_asked() -> None:
    v = Vocabulary.train("char", ["ab"])
    ids = [2, *v.encode("ab"), 3]
    assert v.decode(ids) == "ab"
    assert v.decode(ids, specials=True) == "<s>ab</s>"


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(DataError, match="half a surrogate pair"):
        Vocabulary("byte").encode("a\ud83d")
    with pytest.raises(ConfigError, match="did you mean"):
        Vocabulary("chr")
    with pytest.raises(DataError, match="no text"):
        Vocabulary.train("char", [""])
    with pytest.raises(ConfigError, match="vocab_size"):
        Vocabulary.train("bpe", [TEXT], 200)
    with pytest.raises(DataError, match="damaged"):
        Vocabulary.from_json({"kind": "char"})
    with pytest.raises(DataError, match="damaged"):
        Vocabulary("bpe", merges=[(1, 999)]).encode("a")


def test_encoding_a_char_array_is_that_of_its_letters() -> None:
    v = Vocabulary.train("char", [HARD])
    assert v.encode_array(HARD).dtype == np.int32
    assert [v.piece(i) for i in v.encode_array(HARD).tolist()] == list(HARD)
