"""Labelled texts as training data of a classifier: read, split, tokenised, with what the user should know about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import chain
from typing import Any

import torch

from engram.core.batch import Batch
from engram.core.data import Note, Summary
from engram.core.errors import ConfigError
from engram.data.checks import balance_notes
from engram.data.corpus import vocabulary_of
from engram.data.pretrained import read_vectors
from engram.data.ragged import RaggedData, Rows
from engram.data.sentence_spec import TextSpec
from engram.data.text_rows import NOUN, Texts, counted
from engram.data.texts import read_texts
from engram.data.vocabulary import PAD, UNK, Vocabulary

OUT_OF_SCOPE = ("oos", "out_of_scope", "out-of-scope")
LEAST_GRAMS = 256


def sentences(
    data: Any,
    *,
    batch: int,
    context: int,
    seed: int = 0,
    vocab: str = "word",
    vocab_size: int = 30_000,
    least: int = 1,
    lower: bool = True,
    text: str = "",
    label: str = "",
    out_of_scope: str = "auto",
    hold_out: bool = False,
    vectors: str = "",
    word_dropout: float = 0.0,
    grams: int = 0,
    start_from: str = "",
) -> RaggedData:
    """Labelled texts; batches are those of TextSpec.

    Words seen fewer than `least` times are unknown. `out_of_scope` names the label of texts that belong to no class: auto takes
    the usual names, '' none; with `hold_out` they are not trained. `vectors` is a file of pre-trained word vectors: its words
    join the vocabulary. `word_dropout` is the share of training tokens made unknown, anew each time; `grams` the numbers that
    n-grams are hashed to, 0 for none. Raises DataError and ConfigError.
    """
    texts = data if isinstance(data, Texts) else read_texts(data, "labelled", text=text, label=label, seed=seed)
    scope = _scope(texts, out_of_scope, hold_out)
    classes = sorted({r["label"] for r in texts.splits["train"]} - {scope}) + [scope] * bool(scope)
    splits = {
        s: [r for r in rows if not (hold_out and s == "train" and r["label"] == scope)] for s, rows in texts.splits.items()
    }
    if vocab == "bpe" and vocab_size < 300:
        raise ConfigError(
            f"vocab_size={vocab_size} is too small for byte pairs (256 bytes and the special tokens); at least 300"
        )
    if 0 < grams < LEAST_GRAMS:
        raise ConfigError(f"grams={grams} is too small a table of n-grams; at least {LEAST_GRAMS}, usually 262144 (0 = none)")
    given = read_vectors(vectors, start_from, vocab)
    if start_from:
        vocabulary = vocabulary_of(start_from)
    else:
        vocabulary = Vocabulary.train(vocab, [r["text"] for r in splits["train"]], vocab_size, lower=lower, least=least)
        vocabulary = given.join(vocabulary)
    counts = Counter(r["label"] for r in splits["train"])
    spec = TextSpec(
        vocab=vocabulary.to_json(), context=context, classes=tuple(classes), class_counts=tuple(counts[c] for c in classes),
        out_of_scope=scope, held_out=hold_out, text=text, label=label, vector_width=given.width,
        grams=grams,
    )  # fmt: skip
    encoded = {s: [vocabulary.encode(r["text"]) for r in rows] for s, rows in splits.items()}
    notes = [*texts.notes, *balance_notes({c: counts[c] for c in classes if counts[c]}), *token_notes(encoded, context)]
    if hold_out:
        held = len(texts.splits["train"]) - len(splits["train"])
        notes.append(Note("info", f"{counted(held, 'text')} labelled {scope!r} are not trained; a threshold finds such texts"))
    notes += given.give(spec, vocabulary, seed, chain.from_iterable(encoded["train"]))
    numbers = {c: n for n, c in enumerate(classes)}
    rows: dict[str, Rows] = {
        s: [
            {"tokens": ids[:context], "y": numbers[r["label"]]} | ({"grams": spec.grams_of(r["text"])} if grams else {})
            for ids, r in zip(encoded[s], splits[s], strict=True)
        ]
        for s in splits
    }
    size = {s: len(r) for s, r in splits.items()}
    facts = texts.facts | {"vocabulary": vocabulary.size, "out_of_scope": scope or None}
    return RaggedData(
        spec, Summary(texts.title, size, facts, tuple(notes), texts.sha256), rows, batch=batch, seed=seed,
        lengths={"tokens": "lengths"}, raw=lambda split, rows: [splits[split][n]["text"] for n in rows],
        finish=drop_words(word_dropout) if word_dropout else None,
    )  # fmt: skip


def drop_words(share: float) -> Callable[[Batch, torch.Generator | None], Batch]:
    """A `finish` of RaggedData that makes a share of the training tokens unknown (Iyyer et al. 2015, section 3.1)."""

    def finish(batch: Batch, generator: torch.Generator | None) -> Batch:
        if generator is None:
            return batch
        tokens = batch["tokens"]
        gone = (torch.rand(tokens.shape, generator=generator) < share) & (tokens != PAD)
        return batch | {"tokens": tokens.masked_fill(gone, UNK)}

    return finish


def _scope(texts: Texts, wanted: str, hold_out: bool) -> str:
    """The label of texts that belong to no class, '' when there is none. Raises ConfigError."""
    labels = {r["label"] for r in texts.splits["train"]}
    usual = [str(texts.facts.get("out_of_scope", "")), *OUT_OF_SCOPE]
    found = next((u for u in usual if u in labels), "") if wanted == "auto" else wanted
    if found and found not in labels:
        raise ConfigError(f"out_of_scope={found} is no label of {texts.title}; leave it out, or name one of its labels")
    if hold_out and not found:
        raise ConfigError("hold_out=true needs a label of texts that belong to no class; name it with out_of_scope=LABEL")
    if found and len(labels) < 3:
        raise ConfigError(f"beside {found!r} there is one class only; set out_of_scope='' to tell the two labels apart")
    return found


def token_notes(encoded: dict[str, list[list[int]]], context: int, noun: str = NOUN["labelled"]) -> list[Note]:
    """Texts cut at `context` tokens, and the share of unknown tokens of each split."""
    notes = []
    rows = [ids for part in encoded.values() for ids in part]
    if cut := sum(len(ids) > context for ids in rows):
        share = cut / len(rows)
        text = f"{counted(cut, noun)} ({share:.1%}) longer than context={context} tokens: the rest of them is not read"
        notes.append(Note("warning" if share > 0.05 else "info", text))
    for split, part in encoded.items():
        total, unknown = sum(map(len, part)), sum(ids.count(UNK) for ids in part)
        if unknown:
            text = f"{split}: {unknown / total:.1%} of the tokens are not in the vocabulary"
            notes.append(Note("warning" if unknown > 0.1 * total else "info", text))
    return notes
