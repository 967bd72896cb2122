"""Tagged words for a model of any tokens: each word is cut into pieces, and its first piece stands for it (Devlin et al. 2019,
section 5.3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import torch

from engram.core.batch import Batch
from engram.core.data import Note, Summary
from engram.core.errors import DataError
from engram.core.spec import Spec
from engram.data.corpus import make_vocabulary, vocabulary_of
from engram.data.language_spec import pad_rows
from engram.data.pretrained import Pretrained, read_vectors
from engram.data.ragged import RaggedData
from engram.data.sentence_spec import labelled_rows
from engram.data.tag_spec import NO_TAG, TagSpec, pad_tags
from engram.data.tagged import tag_names, word_vocabulary
from engram.data.text_rows import Texts, counted
from engram.data.text_tables import Names
from engram.data.texts import read_texts
from engram.data.vocabulary import START, UNK, Vocabulary


@dataclass(frozen=True, kw_only=True)
class PieceTagSpec(Pretrained, Spec):
    """A batch holds "pieces" (B, P) int64 padded with 0, <s> first, "pieces_lengths" (B,), "firsts" (B, T): the place of each
    word's first piece, "lengths" (B,): how many words, and "tags" (B, T) with -100 where there is none."""

    vocab: dict[str, Any]  # Vocabulary.to_json()
    tags: tuple[str, ...]
    context: int  # most pieces of a sentence, <s> included
    vector_width: int = 0  # of the pre-trained vectors; 0 without

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary at work."""
        return Vocabulary.from_json(self.vocab)

    @cached_property
    def plain(self) -> TagSpec:
        """What reads words and tags."""
        return TagSpec(vocab=self.vocab, spelling={}, letters=0, tags=self.tags)

    def words(self, raw: Any) -> list[list[str]]:
        """The words of each sentence; see TagSpec.words."""
        return self.plain.words(raw)

    def encode(self, raw: Any) -> Batch:
        """Sentences as a batch. Raises DataError, also for a sentence longer than the context."""
        return self.batch(self.words(raw))

    def batch(self, sentences: Sequence[Sequence[str]]) -> Batch:
        """Sentences as a batch. Raises DataError for one that is longer than the context."""
        cut = [self.pieces(words) for words in sentences]
        for number, (_, firsts) in enumerate(cut, 1):
            if len(firsts) < len(sentences[number - 1]):
                raise DataError(f"sentence {number} is longer than the {self.context - 1} tokens that this run reads; split it")
        rows, firsts = pad_rows([ids for ids, _ in cut]), pad_rows([first for _, first in cut])
        return {
            "pieces": rows["tokens"], "pieces_lengths": rows["lengths"], "firsts": firsts["tokens"],
            "lengths": firsts["lengths"],
        }  # fmt: skip

    def pieces(self, words: Sequence[str]) -> tuple[list[int], list[int]]:
        """(ids with <s> first, places of the first pieces) of the words that fit into the context."""
        ids, firsts = [START], []
        for word in words:
            found = [self.vocabulary.encode_words([word])[0]] if self.vocabulary.kind == "word" else self.vocabulary.encode(
                word if len(ids) == 1 else f" {word}"
            )  # fmt: skip
            if len(ids) + len(found) > self.context:
                break
            spaced = self.vocabulary.kind in ("char", "byte") and len(ids) > 1  # there the first piece is the space before
            firsts.append(len(ids) + spaced)
            ids += found or [UNK]
        return ids, firsts

    def read(self, source: Any, rows: int = 256) -> Iterator[tuple[list[str], Any]]:
        """See TagSpec.read."""
        yield from self.plain.read(source, rows)

    def labelled(self, source: Any, rows: int = 64) -> Iterator[Batch]:
        """Batches with "tags" of a file of tagged words, rows in Python, or the test sentences of a built-in set."""
        found = [r for r in labelled_rows(source, "tagged", Names()) if r["words"]]
        for first in range(0, len(found), rows):
            part = found[first : first + rows]
            tags = pad_tags([[self.plain.number(t) for t in r["tags"]] for r in part])
            yield self.batch([r["words"] for r in part]) | {"tags": tags}

    def example(self, batch: int = 2) -> Batch:
        """Sentences of padding."""
        length = min(self.context, 16)
        tokens, lengths = torch.zeros(batch, length, dtype=torch.int64), torch.full((batch,), length)
        return {"pieces": tokens, "pieces_lengths": lengths, "firsts": tokens, "lengths": lengths}


def piece_tags(
    data: Any, *, batch: int, context: int, seed: int = 0, vocab: str = "word", vocab_size: int = 30_000, least: int = 1,
    lower: bool = True, vectors: str = "", start_from: str = "",
) -> RaggedData:  # fmt: skip
    """Tagged sentences; batches are those of PieceTagSpec. Words that do not fit into the context are left out, in training and
    in every figure, and a note tells. `vectors`: see `sentences`. Raises DataError and ConfigError."""
    texts = data if isinstance(data, Texts) else read_texts(data, "tagged", seed=seed)
    splits = {s: [r for r in rows if r["words"]] for s, rows in texts.splits.items()}
    train = splits["train"]
    given = read_vectors(vectors, start_from, vocab)
    if start_from:
        vocabulary = vocabulary_of(start_from)
    elif vocab == "word":
        vocabulary = given.join(word_vocabulary([w for r in train for w in r["words"]], vocab_size, least, lower))
    else:
        vocabulary = make_vocabulary(vocab, [" ".join(r["words"]) for r in train], vocab_size, lower=lower)
    tags, notes = tag_names(splits)
    spec = PieceTagSpec(vocab=vocabulary.to_json(), tags=tags, context=context, vector_width=given.width)
    rows: dict[str, list[dict[str, Any]]] = {}
    kept: dict[str, list[int]] = {}
    notes = [*texts.notes, *notes]
    for split, part in splits.items():
        rows[split], lost = [], 0
        for row in part:
            ids, firsts = spec.pieces(row["words"])
            lost += len(row["words"]) - len(firsts)
            chosen = [spec.plain.number(t) for t in row["tags"][: len(firsts)]]
            rows[split].append({"pieces": ids, "firsts": firsts, "tags": chosen})
        kept[split] = [len(row["tags"]) for row in rows[split]]
        if lost:
            notes.append(Note("warning", f"{split}: {counted(lost, 'word')} beyond context={context} tokens left out"))
    notes += given.give(spec, vocabulary, seed, chain.from_iterable(row["pieces"] for row in rows["train"]))
    size = {s: len(r) for s, r in splits.items()}
    facts = texts.facts | {"vocabulary": vocabulary.size}
    return RaggedData(
        spec, Summary(texts.title, size, facts, tuple(notes), texts.sha256), {**rows}, batch=batch, seed=seed,
        lengths={"pieces": "pieces_lengths", "firsts": "lengths"}, pads={"tags": NO_TAG},
        raw=lambda split, numbers: [{k: v[: kept[split][n]] for k, v in splits[split][n].items()} for n in numbers],
    )  # fmt: skip
