"""Pre-trained word vectors in a text model: they reach the word table by way of the Spec, but are not saved in it.

The data reads the file and leaves a row for every word in the Spec at hand; a Spec that comes from a run has none, and needs
none, because the run's weights hold the table as training left it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from engram.core.batch import fold
from engram.core.data import Note
from engram.core.errors import ConfigError
from engram.data.vectors import load_vectors
from engram.data.vocabulary import Vocabulary


class Pretrained:
    """What a Spec with a field `vector_width` (0 without vectors) offers to the network that has a word table."""

    vector_width: int

    @cached_property
    def vectors(self) -> Tensor | None:
        """(vocabulary, vector_width) where the data has just read them, else None."""
        return None

    def hold(self, vectors: Tensor) -> None:
        """Keep the vectors at hand, outside of the fields."""
        object.__setattr__(self, "vectors", vectors)

    def start(self, table: nn.Embedding, *, freeze: bool = False) -> None:
        """Give a word table the vectors, if they are at hand; `freeze` keeps it as it is, if it is one of vectors."""
        if self.vectors is not None:
            with torch.no_grad():
                table.weight.copy_(self.vectors)
        if self.vector_width and freeze:
            table.weight.requires_grad_(False)


def read_vectors(path: str, start_from: str) -> tuple[list[str], Tensor] | None:
    """The words and vectors of a file, None for ''. Raises DataError; ConfigError when a run brings its own."""
    if path and start_from:
        raise ConfigError(f"start_from={start_from} brings its own word vectors; leave vectors= out")
    return load_vectors(path) if path else None


def with_words(vocabulary: Vocabulary, words: Sequence[str]) -> Vocabulary:
    """A word vocabulary with more words at its end. Raises ConfigError for other kinds."""
    if vocabulary.kind != "word":
        raise ConfigError(f"vectors= are of words, and vocab={vocabulary.kind} has none; set vocab=word")
    known = set(vocabulary.pieces)
    more = [w for w in dict.fromkeys(w.lower() if vocabulary.lower else w for w in words) if w not in known]
    return Vocabulary("word", (*vocabulary.pieces, *more), specials=vocabulary.specials, lower=vocabulary.lower)


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
