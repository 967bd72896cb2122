"""Tagged words (entities, parts of speech) as training data: read, split, words and characters as ids."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from typing import Any

import torch

from engram.core.batch import Batch
from engram.core.data import Note, Summary
from engram.core.errors import ConfigError, RunError
from engram.data.corpus import vocabulary_of
from engram.data.pretrained import read_vectors
from engram.data.ragged import RaggedData, Rows
from engram.data.sentences import drop_words, token_notes
from engram.data.tag_spec import NO_TAG, TagSpec, spelled
from engram.data.text_rows import Texts
from engram.data.texts import read_texts
from engram.data.vocabulary import Vocabulary


def tagged(
    data: Any,
    *,
    batch: int,
    seed: int = 0,
    vocab_size: int = 30_000,
    least: int = 1,
    lower: bool = True,
    letters: int = 20,
    vectors: str = "",
    word_dropout: float = 0.0,
    start_from: str = "",
) -> RaggedData:
    """Tagged sentences; batches are those of TagSpec. `letters` characters of each word are read, 0 for words alone.

    `lower` is for the word table; characters keep their case. See `sentences` for the other knobs. Raises DataError and
    ConfigError.
    """
    texts = data if isinstance(data, Texts) else read_texts(data, "tagged", seed=seed)
    splits = {s: [r for r in rows if r["words"]] for s, rows in texts.splits.items()}
    given = read_vectors(vectors, start_from)
    words = [w for r in splits["train"] for w in r["words"]]
    vocabulary = vocabulary_of(start_from) if start_from else word_vocabulary(words, vocab_size, least, lower)
    if vocabulary.kind != "word":
        raise ConfigError(f"start_from={start_from}: its vocabulary is of {vocabulary.kind} tokens, and tags need words")
    vocabulary = given.join(vocabulary)
    characters = Vocabulary.train("char", ["".join(words)]) if letters else None
    if start_from and letters:
        characters = _characters_of(start_from)
    tags, notes = tag_names(splits)
    spec = TagSpec(
        vocab=vocabulary.to_json(), spelling=characters.to_json() if characters else {}, letters=letters, tags=tags,
        vector_width=given.width,
    )  # fmt: skip
    encoded = {s: [vocabulary.encode_words(r["words"]) for r in rows] for s, rows in splits.items()}
    notes = [*texts.notes, *notes, *token_notes(encoded, max(map(len, chain(*encoded.values()))))]
    notes += given.give(spec, vocabulary, seed, chain.from_iterable(encoded["train"]))
    rows: dict[str, Rows] = {s: [_row(spec, ids, r) for ids, r in zip(encoded[s], splits[s], strict=True)] for s in splits}
    size = {s: len(r) for s, r in splits.items()}
    facts = texts.facts | {"vocabulary": vocabulary.size, "characters_known": characters.size if characters else 0}
    return RaggedData(
        spec, Summary(texts.title, size, facts, tuple(notes), texts.sha256), rows, batch=batch, seed=seed,
        lengths={"tokens": "lengths"}, pads={"tags": NO_TAG}, finish=_finish(letters, word_dropout),
        raw=lambda split, rows: [splits[split][n] for n in rows],
    )  # fmt: skip


def word_vocabulary(words: list[str], size: int, least: int, lower: bool) -> Vocabulary:
    """The words of a corpus as they are given, most frequent first; those seen fewer than `least` times are left out."""
    counts = Counter(w.lower() if lower else w for w in words)
    ranked = sorted((w for w, n in counts.items() if n >= least), key=lambda w: (-counts[w], w))
    empty = Vocabulary("word", lower=lower)
    return Vocabulary("word", ranked[: max(size - empty.size, 1)], lower=lower)


def tag_names(splits: dict[str, list[dict[str, Any]]]) -> tuple[tuple[str, ...], list[Note]]:
    """Every tag, O first, and both B- and I- of each kind; a warning for tags that training does not have."""
    seen = {s: {t for r in rows for t in r["tags"]} for s, rows in splits.items()}
    every = set().union(*seen.values())
    pairs = {f"{p}-{t[2:]}" for t in every if t[:2] in ("B-", "I-") for p in "BI"}
    missing = sorted(every - seen["train"])
    notes = (
        [Note("warning", f"no training word is tagged {', '.join(missing[:5])}, so it cannot be learned")] if missing else []
    )
    return tuple(sorted(every | pairs, key=lambda t: (t != "O", t[2:] if t[:2] in ("B-", "I-") else t, t))), notes


def _row(spec: TagSpec, ids: list[int], row: dict[str, Any]) -> dict[str, Any]:
    characters = {"characters": spelled(spec.characters, row["words"], spec.letters)} if spec.characters else {}
    return {"tokens": ids, "tags": [spec.number(t) for t in row["tags"]]} | characters


def _finish(letters: int, word_dropout: float) -> Any:
    """Characters come as one long row per sentence and go as (B, T, letters); words are dropped in training."""
    drop = drop_words(word_dropout) if word_dropout else None

    def finish(batch: Batch, generator: torch.Generator | None) -> Batch:
        if letters:
            flat = batch["characters"]
            batch = batch | {"characters": flat.view(len(flat), -1, letters)}
        return drop(batch, generator) if drop else batch

    return finish if letters or drop else None


def _characters_of(run: str) -> Vocabulary:
    import json
    from pathlib import Path

    try:
        return Vocabulary.from_json(json.loads((Path(run) / "run.json").read_text("utf-8"))["spec"]["spelling"])
    except (OSError, ValueError, KeyError):
        raise RunError(f"start_from={run} is no run of tagged words that spells them; set letters=0 or start anew") from None
