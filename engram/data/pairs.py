"""Pairs of texts as training data of a model from text to text: read, split, tokenised, rows of like length together."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from engram.core.data import Note, Summary
from engram.core.errors import ConfigError, DataError
from engram.data.corpus import make_vocabulary, vocabulary_of
from engram.data.pair_spec import PairSpec
from engram.data.pretrained import read_vectors
from engram.data.ragged import RaggedData
from engram.data.text_rows import Row, Texts, counted
from engram.data.texts import read_texts
from engram.data.vocabulary import END, START, UNK, Vocabulary


def pairs(
    data: Any,
    *,
    batch: int,
    context: int,
    target_context: int = 0,
    seed: int = 0,
    vocab: str = "bpe",
    vocab_size: int = 8192,
    shared: bool = True,
    source: str = "",
    target: str = "",
    long: Literal["drop", "cut"] = "drop",
    vectors: str = "",
    start_from: str = "",
) -> RaggedData:
    """Pairs as batches {"source", "source_lengths", "target", "target_lengths"}; `source` and `target` name columns.

    `data` is as `read_texts` takes it. A training pair with a side beyond its context is left out, or with `long` cut both
    sides are cut to it; validation and test pairs are always cut, so that no row of a score is
    missing. `vectors` is a file of pre-trained word vectors for the words of the vocabulary, with `shared` false for those of
    the source. `start_from` takes the vocabularies of a run. Raises DataError and ConfigError.
    """
    texts = read_texts(data, "pairs", source=source, target=target, seed=seed)
    given = read_vectors(vectors, start_from, vocab)
    vocabularies = _from_run(start_from, shared) if start_from else _trained(texts, vocab, vocab_size, shared)
    spec = PairSpec(
        vocab=vocabularies[0].to_json(), target_vocab={} if shared else vocabularies[1].to_json(), context=context,
        target_context=target_context or context, columns=_columns(texts, source, target), title=texts.title,
        vector_width=given.width,
    )  # fmt: skip
    splits, kept, notes = {}, {}, [*texts.notes, *given.give(spec, vocabularies[0], seed)]
    for name, rows in texts.splits.items():
        encoded = [_encode(vocabularies, row) for row in rows]
        fits = [len(s) < context and len(t) < spec.target_context for s, t in encoded]
        dropping = name == "train" and long == "drop"
        kept[name] = [at for at, fit in enumerate(fits) if fit or not dropping]
        splits[name] = [_row(spec, *encoded[at]) for at in kept[name]]
        notes += _notes(name, encoded, len(fits) - sum(fits), dropping, spec)
    if not splits.get("train"):
        raise DataError(
            f"no pair of {texts.title} fits into context={context} tokens; raise context" if texts.splits.get("train")
            else f"{texts.title} holds no pairs to train on"
        )  # fmt: skip
    counts = {name: len(rows) for name, rows in splits.items()}
    sizes = " and ".join(f"{v.size:,}" for v in vocabularies[: 1 if shared else 2])
    title = f"{texts.title}: {counted(counts['train'], 'pair')} to train on ({vocabularies[0].kind} vocabulary of {sizes})"
    tokens = {side: sum(len(row[side]) for row in splits["train"]) for side in ("source", "target")}
    summary = Summary(title, counts, texts.facts | {"tokens": tokens}, tuple(notes), texts.sha256)
    return RaggedData(
        spec, summary, splits, batch=batch, lengths={"target": "target_lengths", "source": "source_lengths"}, seed=seed,
        raw=_raw(texts, kept),
    )  # fmt: skip


def _encode(vocabularies: Sequence[Vocabulary], row: Row) -> tuple[list[int], list[int]]:
    """Ids of both sides, whole."""
    return vocabularies[0].encode(row["source"]), vocabularies[1].encode(row["target"])


def _row(spec: PairSpec, source: list[int], target: list[int]) -> dict[str, list[int]]:
    return {"source": [*source[: spec.context - 1], END], "target": [START, *target[: spec.target_context - 1], END]}


def _notes(name: str, encoded: list[tuple[list[int], list[int]]], long: int, dropping: bool, spec: PairSpec) -> list[Note]:
    notes = []
    if long:
        what = "left out of training" if dropping else "cut"
        limit = f"{spec.context}" if spec.context == spec.target_context else f"{spec.context} and {spec.target_context}"
        level = "warning" if long > len(encoded) / 20 else "info"
        text = (
            f"{name}: {counted(long, 'pair')} of {len(encoded):,} longer than {limit} tokens {'was' if long == 1 else 'were'}"
        )
        notes.append(Note(level, f"{text} {what} (context={spec.context})"))
    for side, number in (("source", 0), ("target", 1)):
        tokens, unknown = sum(len(pair[number]) for pair in encoded), sum(pair[number].count(UNK) for pair in encoded)
        if unknown:
            level = "warning" if unknown > tokens / 10 else "info"
            notes.append(Note(level, f"{name}: {unknown / tokens:.1%} of the {side} tokens are not in the vocabulary"))
    return notes


def _trained(texts: Texts, kind: str, size: int, shared: bool) -> tuple[Vocabulary, Vocabulary]:
    rows = texts.splits["train"]
    sides = [[row["source"] for row in rows], [row["target"] for row in rows]]
    if shared:
        one = make_vocabulary(kind, [*sides[0], *sides[1]], size)
        return one, one
    return make_vocabulary(kind, sides[0], size), make_vocabulary(kind, sides[1], size)


def _from_run(run: str, shared: bool) -> tuple[Vocabulary, Vocabulary]:
    source = vocabulary_of(run)
    target = json.loads((Path(run) / "run.json").read_text("utf-8"))["spec"].get("target_vocab") or None
    if (target is None) != shared:
        has = "one vocabulary for both sides" if target is None else "a vocabulary for each side"
        raise ConfigError(f"start_from={run}: that run has {has}; set shared={str(target is None).lower()}")
    return source, Vocabulary.from_json(target) if target else source


def _columns(texts: Texts, source: str, target: str) -> tuple[str, str]:
    return source or str(texts.facts.get("source", "source")), target or str(texts.facts.get("target", "target"))


def _raw(texts: Texts, kept: dict[str, list[int]]) -> Callable[[str, list[int]], list[Row]]:
    """How `Data.raw` gives rows {"source", "target"}."""
    return lambda split, rows: [texts.splits[split][kept[split][row]] for row in rows]
