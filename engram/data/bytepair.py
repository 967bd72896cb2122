"""Byte pairs: training by rustbpe and encoding by tiktoken where they are installed (two to three times faster), else by the
tokenizers library. All are given the same split of text into words; both encoders the same merges, so that they agree (a test
compares them). The trainers choose the same pairs but for ties, so a vocabulary is kept in its Spec and not made again.

Merges are pairs of numbers: 0 to 255 are the bytes, and merge k makes piece 256 + k.
"""

from __future__ import annotations

import importlib.util
import os
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from engram.core.errors import ConfigError, DataError

SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"  # GPT-2 (Radford et al. 2019)
CUT = re.compile(r"\S(?=[ \n])")  # where no token goes on, and none depends on what comes before
PIECE = 1 << 17  # characters that one thread encodes at a time
THREADS = 8  # most threads of one encoding
BUFFER = 32  # texts that rustbpe takes at once, of at most some MB each when they come from a file


def train_merges(texts: Iterable[str], count: int) -> list[tuple[int, int]]:
    """The `count` merges (or fewer, when the texts repeat too little) of the most frequent pairs."""
    if count < 1:
        raise ConfigError("a byte-pair vocabulary needs room beside the 256 bytes and the special tokens; raise vocab_size")
    merges = _by_rustbpe(texts, count) if importlib.util.find_spec("rustbpe") else _by_tokenizers(texts, count)
    if not merges:
        raise DataError("there is no text to make a byte-pair vocabulary from; give more of it, or set vocab=char")
    return merges


def _by_rustbpe(texts: Iterable[str], count: int) -> list[tuple[int, int]]:
    """rustbpe tells the bytes of each piece; the two pieces it was made of are what all earlier merges leave of it."""
    import rustbpe

    tokenizer = rustbpe.Tokenizer()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.train_from_iterator(iter(texts), 256 + count, buffer_size=BUFFER, pattern=SPLIT)
    number = {bytes([b]): b for b in range(256)}
    merges: list[tuple[int, int]] = []
    for piece, _ in sorted(tokenizer.get_mergeable_ranks(), key=lambda found: found[1])[256:]:
        pair = _made_of(piece, number)
        if len(pair) == 2:  # else its bytes are those of an earlier piece, which encoders take in its place
            merges.append((pair[0], pair[1]))
            number[piece] = 255 + len(merges)
    return merges


def _made_of(piece: bytes, number: dict[bytes, int]) -> list[int]:
    """The pieces that the merges so far leave of some bytes."""
    parts = [piece[i : i + 1] for i in range(len(piece))]
    while len(parts) > 1:
        ranks = [number.get(a + b, len(number)) for a, b in pairwise(parts)]
        best = min(ranks)
        if best == len(number):
            break
        at = ranks.index(best)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return [number[part] for part in parts]


def _by_tokenizers(texts: Iterable[str], count: int) -> list[tuple[int, int]]:
    from tokenizers import Tokenizer, models, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = _splitter()  # type: ignore[assignment]
    alphabet = _byte_letters()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + count, show_progress=False, initial_alphabet=list(alphabet), max_token_length=32
    )  # type: ignore[call-arg]
    tokenizer.train_from_iterator(texts, trainer)
    pairs = tokenizer_merges(tokenizer)
    number = {letter: at for at, letter in enumerate(alphabet)}
    merges = []
    for left, right in pairs:
        merges.append((number[left], number[right]))
        number[left + right] = 255 + len(merges)
    return merges


def tokenizer_merges(tokenizer: Any) -> list[tuple[str, str]]:
    """The merges of a tokenizer of the tokenizers library, as pairs of pieces."""
    import json

    found = json.loads(tokenizer.to_str())["model"]["merges"]
    return [tuple(m.split(" ")) if isinstance(m, str) else (m[0], m[1]) for m in found]  # type: ignore[misc]


class BytePairs:
    """Encodes by a list of merges."""

    def __init__(self, merges: Sequence[tuple[int, int]]):
        self.merges = merges
        self.tokens = [bytes([b]) for b in range(256)]
        for left, right in merges:
            if not (0 <= left < len(self.tokens) and 0 <= right < len(self.tokens)):
                raise DataError("the byte-pair vocabulary is damaged: a merge names a piece that comes later")
            self.tokens.append(self.tokens[left] + self.tokens[right])

    def encode(self, text: str) -> np.ndarray:
        """Numbers of the pieces, int32."""
        if self._fast is not None:
            pieces = [*cut(text, PIECE)]
            if len(pieces) < 2:
                return _array(self._fast.encode_ordinary(text))
            found = self._fast.encode_ordinary_batch(pieces, num_threads=min(os.cpu_count() or 1, THREADS))
            return np.concatenate([_array(ids) for ids in found])
        letters = self._slow.encode(text, add_special_tokens=False)
        return np.asarray(letters.ids, np.int32)

    @cached_property
    def _fast(self) -> Any:
        if importlib.util.find_spec("tiktoken") is None or len(set(self.tokens)) < len(self.tokens):
            return None
        import tiktoken

        ranks = {token: rank for rank, token in enumerate(self.tokens)}
        return tiktoken.Encoding("engram", pat_str=SPLIT, mergeable_ranks=ranks, special_tokens={})

    @cached_property
    def _slow(self) -> Any:
        from tokenizers import Tokenizer, models

        alphabet = _byte_letters()
        names = ["".join(alphabet[b] for b in token) for token in self.tokens]
        vocab = {name: at for at, name in enumerate(names)}
        tokenizer = Tokenizer(models.BPE(vocab, [(names[a], names[b]) for a, b in self.merges]))
        tokenizer.pre_tokenizer = _splitter()  # type: ignore[assignment]
        return tokenizer


def cut(text: str, size: int) -> Iterator[str]:
    """The text in pieces of `size` characters and some more, each as it is tokenised alone: a token never crosses CUT."""
    first = 0
    while len(text) - first > size and (found := CUT.search(text, first + size)):
        yield text[first : found.end()]
        first = found.end()
    yield text[first:]


def _array(ids: list[int]) -> np.ndarray:
    return np.frombuffer(array("i", ids), np.int32) if ids else np.zeros(0, np.int32)


def _splitter() -> Any:
    from tokenizers import Regex, pre_tokenizers

    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _byte_letters() -> list[str]:
    """The letter that stands for each byte inside the tokenizers library (GPT-2's table: printable ones for themselves)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters, extra = [""] * 256, 0
    for byte in range(256):
        letters[byte] = chr(byte) if byte in shown else chr(256 + extra)
        extra += byte not in shown
    return letters
