"""Pre-trained word vectors in a text model: they reach the token table by way of the Spec, but are not saved in it.

The data reads the file and leaves a row for every word in the Spec at hand; a Spec that comes from a run has none, and needs
none, because the run's weights hold the table as training left it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from engram.core.batch import fold
from engram.core.data import Note
from engram.core.errors import ConfigError
from engram.data.vectors import load_vectors
from engram.data.vocabulary import Vocabulary


class Pretrained:
    """What a Spec with a field `vector_width` (0 without vectors) offers to the network that has a token table."""

    vector_width: int

    @cached_property
    def vectors(self) -> Tensor | None:
        """(vocabulary, vector_width) where the data has just read them, else None."""
        return None

    def hold(self, vectors: Tensor | None) -> None:
        """Keep the vectors at hand, outside of the fields."""
        object.__setattr__(self, "vectors", vectors)

    def check_width(self, width: int, heads: int = 1, *, rotary: bool = False) -> None:
        """Raises ConfigError, with what to set, when a table of `width` cannot take the vectors, or heads cannot share them.

        `rotary` heads have an even number each.
        """
        size = self.vector_width
        whole = [n for n in range(1, size + 1) if size % n == 0]
        even = [n for n in whole if size // n % 2 == 0]
        nearest = min(even if rotary and even else whole, key=lambda n: (abs(n - heads), -n), default=heads)
        wanted = [f"width={size}"] * (width != size) + [f"heads={nearest}"] * (nearest != heads)
        wanted += ["positions=learned"] * (rotary and not even)
        if size and wanted:
            raise ConfigError(f"these vectors have {size} numbers a word; set {' '.join(wanted)}")

    def start(self, table: nn.Embedding, *, freeze: bool = False, scale: bool = False) -> None:
        """Give a token table the vectors, if they are at hand; `freeze` keeps it as it is. ConfigError: none to freeze.

        `scale` multiplies all vectors by one factor, so that the table keeps the standard deviation that it has: the networks
        with an output layer or norms of their own are made for that (N(0, 0.02) in BERT and GPT, where published vectors have
        0.1 to 0.6), and angles and neighbours stay what they are.
        """
        if self.vectors is not None:
            with torch.no_grad():
                factor = table.weight.std() / self.vectors.std().clamp(min=1e-12) if scale else 1.0
                table.weight.copy_(self.vectors * factor)
        if freeze:
            if not self.vector_width:
                raise ConfigError("freeze=true keeps pre-trained word vectors as they are, and there are none: set vectors=")
            table.weight.requires_grad_(False)


@dataclass(frozen=True)
class WordVectors:
    """The words and vectors (words, width) of a file, or `kept`, the width of those in the weights of a run that is gone on
    with; none of them by default."""

    words: Sequence[str] = ()
    table: Tensor = field(default_factory=lambda: torch.empty(0, 0))
    kept: int = 0

    @property
    def width(self) -> int:
        """Numbers a word; 0 without vectors."""
        return self.kept or self.table.shape[1]

    def kind(self, vocab: str) -> str:
        """The kind of vocabulary: with vectors, "auto" is "word"."""
        return "word" if self.width and vocab == "auto" else vocab

    def join(self, vocabulary: Vocabulary) -> Vocabulary:
        """A word vocabulary with the file's words at its end: for a network that does not choose among all words."""
        known = set(vocabulary.pieces)
        words = dict.fromkeys(w.lower() if vocabulary.lower else w for w in self.words)
        more = [w for w in words if w not in known]
        specials, lower = vocabulary.specials, vocabulary.lower
        return Vocabulary("word", (*vocabulary.pieces, *more), specials=specials, lower=lower) if more else vocabulary

    def give(self, spec: Pretrained, vocabulary: Vocabulary, seed: int, ids: Iterable[int] | None = None) -> list[Note]:
        """Hold a row for every id of the vocabulary in a Spec; a note about the words trained on, those of `ids` (None: all).

        Raises ConfigError when none of these words has a vector.
        """
        if not self.words:
            return []
        spec.hold(table_of(vocabulary, self.words, self.table, seed))
        return [vector_note(vocabulary, range(vocabulary.size) if ids is None else ids, self.words)]


def read_vectors(path: str, start_from: str = "", vocab: str = "word") -> WordVectors:
    """The words and vectors of a file; for '' those that a run has in its weights, if any. Raises DataError; ConfigError when
    there are both, or a vocabulary of this kind has no words."""
    if not path:
        return WordVectors(kept=_width_in(start_from) if start_from else 0)
    if start_from:
        raise ConfigError(f"start_from={start_from} brings a token table of its own; leave vectors= out")
    if vocab not in ("word", "auto"):
        raise ConfigError(f"vectors= are of words, and vocab={vocab} has none; set vocab=word")
    return WordVectors(*load_vectors(path))


def _width_in(run: str) -> int:
    """Numbers a word of the vectors that a run began with; 0 without, or for what is no run of text."""
    try:
        return int(json.loads((Path(run) / "run.json").read_text("utf-8"))["spec"].get("vector_width", 0))
    except (OSError, ValueError, KeyError):
        return 0  # whoever reads its vocabulary says what is wrong


def table_of(vocabulary: Vocabulary, words: Sequence[str], vectors: Tensor, seed: int) -> Tensor:
    """A row for every id, (vocabulary, width): the vector of its word or of its lower-case form, else random numbers of the
    same spread (Kim 2014, section 3.2)."""
    spread = float(vectors.std()) * 3**0.5
    generator = torch.Generator().manual_seed(fold(seed, "vectors"))
    table = torch.empty(vocabulary.size, vectors.shape[1]).uniform_(-spread, spread, generator=generator)
    at = {w: n for n, w in reversed(list(enumerate(words)))}
    found = [(n, at.get(w, at.get(w.lower(), -1))) for n, w in enumerate(vocabulary.pieces, len(vocabulary.specials))]
    ids = torch.tensor([pair for pair in found if pair[1] >= 0], dtype=torch.int64).reshape(-1, 2)
    table[ids[:, 0]] = vectors[ids[:, 1]].float()
    return table


def vector_note(vocabulary: Vocabulary, ids: Iterable[int], words: Sequence[str]) -> Note:
    """How many of the words that are trained have a vector. Raises ConfigError when none has."""
    known, first = set(words), len(vocabulary.specials)
    seen = {vocabulary.pieces[i - first] for i in set(ids) if i >= first}
    share = sum(w in known or w.lower() in known for w in seen) / max(len(seen), 1)
    if not share:
        raise ConfigError("none of the words trained on has a vector in that file; is it of another language?")
    text = f"{share:.1%} of the different words trained on have a pre-trained vector, the others start at random"
    return Note("warning" if share < 0.5 else "info", text)
