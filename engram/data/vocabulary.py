"""Vocabulary: text to token ids and back, by characters, bytes, words or byte pairs. Its state is JSON and lives in the Spec.

Ids 0 to 8 are special and the same everywhere: padding, unknown, start, end, mask, separator, and the roles of a chat, so that
any language model can be taught to chat; further special tokens (sentinels) may follow, then the pieces. Characters, bytes and
byte pairs give any text back as it was (unknown characters of a character vocabulary excepted); words do not keep spaces. Byte
pairs: Sennrich et al. 2016 on bytes, split as in GPT-2.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from engram.core.errors import ConfigError, DataError, did_you_mean
from engram.data.bytepair import BytePairs, train_merges

PAD, UNK, START, END, MASK, SEP = range(6)
SPECIALS = ("<pad>", "<unk>", "<s>", "</s>", "<mask>", "<sep>", "<system>", "<user>", "<assistant>")
KINDS = ("char", "byte", "word", "bpe")
_WORD = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")


class Vocabulary:
    """`kind` as in KINDS; `pieces` are the characters or words, `merges` the byte pairs (each names two earlier pieces)."""

    def __init__(
        self,
        kind: str,
        pieces: Sequence[str] = (),
        merges: Sequence[Sequence[int]] = (),
        specials: Sequence[str] = SPECIALS,
        lower: bool = False,
    ):
        if kind not in KINDS:
            raise ConfigError(f"no vocabulary is called {kind!r}{did_you_mean(kind, KINDS)}; there are {', '.join(KINDS)}")
        self.kind, self.pieces, self.lower = kind, tuple(pieces), lower
        self.merges = tuple((int(a), int(b)) for a, b in merges)
        self.specials = tuple(specials)

    @classmethod
    def train(
        cls,
        kind: str,
        texts: Iterable[str],
        size: int = 8192,
        *,
        extra: Sequence[str] = (),
        lower: bool = False,
        least: int = 1,
    ) -> Vocabulary:
        """The vocabulary of some texts, with at most `size` entries (characters and bytes need as many as there are).

        Words seen fewer than `least` times are left out. Raises DataError when the texts hold nothing.
        """
        specials = (*SPECIALS, *extra)
        if kind == "byte":
            return cls(kind, specials=specials)
        if kind == "char":
            seen: set[str] = set()
            for text in texts:
                seen.update(checked(text))
            found = sorted(seen)
        elif kind == "word":
            counts: Counter[str] = Counter()
            for text in texts:
                counts.update(split_words(checked(text.lower() if lower else text)))
            ranked = sorted((w for w, n in counts.items() if n >= least), key=lambda w: (-counts[w], w))
            found = ranked[: max(size - len(specials), 1)]
        elif kind == "bpe":
            merges = train_merges((checked(t.lower() if lower else t) for t in texts), size - len(specials) - 256)
            return cls(kind, merges=merges, specials=specials, lower=lower)
        else:
            return cls(kind)  # raises
        if not found:
            raise DataError("there is no text to make a vocabulary from")
        return cls(kind, found, specials=specials, lower=lower)

    @property
    def size(self) -> int:
        """Number of ids."""
        bodies = {"byte": 256, "bpe": 256 + len(self.merges)}
        return len(self.specials) + bodies.get(self.kind, len(self.pieces))

    def __len__(self) -> int:
        return self.size

    def special(self, name: str) -> int:
        """The id of a special token."""
        return self.specials.index(name)

    def encode(self, text: str, *, strict: bool = False) -> list[int]:
        """Ids of a text. Unknown characters and words become <unk>, or with `strict` a DataError that names them."""
        return self.encode_array(text, strict=strict).tolist()

    def encode_array(self, text: str, *, strict: bool = False) -> np.ndarray:
        """As `encode`, an int32 array."""
        first = len(self.specials)
        text = checked(text.lower() if self.lower else text)
        if self.kind == "byte":
            return np.frombuffer(text.encode(), np.uint8).astype(np.int32) + first
        if self.kind == "bpe":
            return self._pairs.encode(text) + first
        if self.kind == "char":
            codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
            known, ids = self._table
            at = np.searchsorted(known, codes).clip(max=len(known) - 1)
            ids = np.where(known[at] == codes, ids[at], UNK).astype(np.int32)
            if strict and (ids == UNK).any():
                self._refuse(sorted({chr(c) for c in codes[ids == UNK].tolist()}), "characters")
            return ids
        return np.array(self.encode_words(split_words(text), strict=strict), np.int32)

    def encode_words(self, words: Sequence[str], *, strict: bool = False) -> list[int]:
        """One id per word, for a word vocabulary."""
        words = [w.lower() for w in words] if self.lower else words
        ids = [self._ids.get(w, UNK) for w in words]
        if strict and UNK in ids:
            self._refuse([w for w, i in zip(words, ids, strict=True) if i == UNK], "words")
        return ids

    def decode(self, ids: Iterable[int], *, specials: bool = False) -> str:
        """The text of some ids; special tokens are left out unless asked for. Broken bytes become U+FFFD."""
        stream = self.stream(specials=specials)
        return "".join([*(stream(i) for i in ids), stream(None)])

    def stream(self, *, specials: bool = False) -> Stream:
        """A decoder of one id at a time, which gives text as soon as its bytes are whole."""
        return Stream(self, specials)

    def piece(self, id: int) -> str:
        """What people are shown for an id: its text, '<0xE2>' for bytes that are no text by themselves."""
        if id < len(self.specials):
            return self.specials[id]
        if self.kind in ("char", "word"):
            return self.pieces[id - len(self.specials)]
        raw = self.raw(id)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return "".join(f"<0x{b:02X}>" for b in raw)

    def raw(self, id: int) -> bytes:
        """The bytes of an id; b'' for special tokens."""
        at = id - len(self.specials)
        if at < 0:
            return b""
        if self.kind == "byte":
            return bytes([at])
        return self._pairs.tokens[at] if self.kind == "bpe" else self.pieces[at].encode()

    def to_json(self) -> dict[str, Any]:
        """State as JSON values."""
        return {
            "kind": self.kind, "pieces": list(self.pieces), "merges": [list(m) for m in self.merges],
            "specials": list(self.specials), "lower": self.lower,
        }  # fmt: skip

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> Vocabulary:
        """The inverse of `to_json`. Raises DataError when the state is damaged."""
        try:
            return cls(state["kind"], state["pieces"], state["merges"], state["specials"], state["lower"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"the vocabulary is damaged ({error!r}); take it from an intact copy of the run") from None

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {piece: number for number, piece in enumerate(self.pieces, len(self.specials))}

    @cached_property
    def _table(self) -> tuple[np.ndarray, np.ndarray]:
        codes = np.array([ord(p) for p in self.pieces], np.uint32)
        order = np.argsort(codes)
        return codes[order], order.astype(np.int32) + len(self.specials)

    @cached_property
    def _pairs(self) -> BytePairs:
        return BytePairs(self.merges)

    def _refuse(self, unknown: list[str], what: str) -> None:
        shown = ", ".join(f"{u!r} ({unicodedata.name(u, hex(ord(u)))})" if len(u) == 1 else repr(u) for u in unknown[:3])
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise DataError(f"the vocabulary of this run has no {shown}{more}; leave these {what} out or train with vocab=bpe")


class Stream:
    """Called with one id after another, and with None at the end."""

    def __init__(self, vocabulary: Vocabulary, specials: bool):
        self.vocabulary, self.specials = vocabulary, specials
        self.bytes = codecs.getincrementaldecoder("utf-8")("replace")
        self.last = ""

    def __call__(self, id: int | None) -> str:
        v = self.vocabulary
        if id is None:
            return self.bytes.decode(b"", True)
        if id < len(v.specials):
            return self.bytes.decode(b"", True) + (v.specials[id] if self.specials else "")
        if v.kind == "word":
            word = v.pieces[id - len(v.specials)]
            gap = " " if self.last and word not in ".,;:!?)]}%\u2019'" and self.last not in "([{" else ""
            self.last = word
            return gap + word
        return v.pieces[id - len(v.specials)] if v.kind == "char" else self.bytes.decode(v.raw(id))


def split_words(text: str) -> list[str]:
    """Words (with inner apostrophes) and single signs."""
    return _WORD.findall(text)


def checked(text: str) -> str:
    """The text, or a DataError when it holds half a surrogate pair, which is no character."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        at = error.start
        raise DataError(
            f"character {at} of the text is half a surrogate pair (U+{ord(text[at]):04X}), which stands for nothing; read the "
            "file as UTF-8 or UTF-16, or remove it"
        ) from None
    return text
