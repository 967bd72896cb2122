"""Labelled texts as training data of a classifier: read, split, tokenised, with what the user should know about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from engram.core.batch import fold
from engram.core.data import Note, Summary
from engram.core.errors import ConfigError
from engram.data.checks import balance_notes
from engram.data.corpus import vocabulary_of
from engram.data.ragged import RaggedData
from engram.data.sentence_spec import TextSpec
from engram.data.text_rows import NOUN, Texts, counted
from engram.data.texts import read_texts
from engram.data.vectors import load_vectors
from engram.data.vocabulary import UNK, Vocabulary

OUT_OF_SCOPE = ("oos", "out_of_scope", "out-of-scope")


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
    start_from: str = "",
) -> RaggedData:
    """Labelled texts; batches are those of TextSpec.

    Words seen fewer than `least` times are unknown. `out_of_scope` names the label of texts that belong to no class: auto takes
    the usual names, '' none; with `hold_out` they are not trained. `vectors` is a file of pre-trained word vectors: its words
    join the vocabulary. Raises DataError and ConfigError.
    """
    texts = data if isinstance(data, Texts) else read_texts(data, "labelled", text=text, label=label, seed=seed)
    scope = _scope(texts, out_of_scope, hold_out)
    classes = sorted({r["label"] for r in texts.splits["train"]} - {scope}) + [scope] * bool(scope)
    splits = {s: [r for r in rows if not (hold_out and s == "train" and r["label"] == scope)] for s, rows in texts.splits.items()}
    if start_from and vectors:
        raise ConfigError("start_from= brings its own word vectors; leave vectors= out")
    if vocab == "bpe" and vocab_size < 300:
        raise ConfigError(f"vocab_size={vocab_size} is too small for byte pairs (256 bytes and the special tokens); at least 300")
    given = load_vectors(vectors) if vectors else None
    if start_from:
        vocabulary = vocabulary_of(start_from)
    else:
        vocabulary = Vocabulary.train(vocab, [r["text"] for r in splits["train"]], vocab_size, lower=lower, least=least)
        vocabulary = with_words(vocabulary, given[0] if given else ())
    counts = Counter(r["label"] for r in splits["train"])
    spec = TextSpec(
        vocab=vocabulary.to_json(), context=context, classes=tuple(classes), class_counts=tuple(counts[c] for c in classes),
        out_of_scope=scope, held_out=hold_out, text=text, label=label, vector_width=given[1].shape[1] if given else 0,
    )  # fmt: skip
    if given:
        spec.__dict__["vectors"] = table_of(vocabulary, *given, seed)
    encoded = {s: [vocabulary.encode(r["text"]) for r in rows] for s, rows in splits.items()}
    notes = [*texts.notes, *balance_notes({c: counts[c] for c in classes if counts[c]}), *token_notes(encoded, context)]
    if hold_out:
        held = len(texts.splits["train"]) - len(splits["train"])
        notes.append(Note("info", f"{counted(held, 'text')} labelled {scope!r} are not trained; a threshold finds such texts"))
    if given:
        notes.append(vector_note(vocabulary, encoded["train"], given[0]))
    numbers = {c: n for n, c in enumerate(classes)}
    rows = {
        s: [{"tokens": ids[:context], "y": numbers[r["label"]]} for ids, r in zip(encoded[s], splits[s], strict=True)]
        for s in splits
    }
    size = {s: len(r) for s, r in splits.items()}
    facts = texts.facts | {"vocabulary": vocabulary.size, "out_of_scope": scope or None}
    return RaggedData(
        spec, Summary(texts.title, size, facts, tuple(notes), texts.sha256), rows, batch=batch, seed=seed,
        lengths={"tokens": "lengths"}, raw=lambda split, rows: [splits[split][n]["text"] for n in rows],
    )  # fmt: skip


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


def with_words(vocabulary: Vocabulary, words: Sequence[str]) -> Vocabulary:
    """A word vocabulary with more words at its end. Raises ConfigError for other kinds."""
    if not words:
        return vocabulary
    if vocabulary.kind != "word":
        raise ConfigError(f"vectors= are of words, and vocab={vocabulary.kind} has none; set vocab=word")
    known = set(vocabulary.pieces)
    more = [w for w in dict.fromkeys(w.lower() if vocabulary.lower else w for w in words) if w not in known]
    return Vocabulary("word", (*vocabulary.pieces, *more), specials=vocabulary.specials, lower=vocabulary.lower)


def table_of(vocabulary: Vocabulary, words: Sequence[str], vectors: Tensor, seed: int) -> Tensor:
    """A row for every id, (vocabulary, width): the vector of its word (or of its lower-case form), else random numbers of the
    same spread (Kim 2014, section 3.2)."""
    spread = float(vectors.std()) * 3**0.5
    generator = torch.Generator().manual_seed(fold(seed, "vectors"))
    table = torch.empty(vocabulary.size, vectors.shape[1]).uniform_(-spread, spread, generator=generator)
    at = {w: n for n, w in reversed(list(enumerate(words)))}
    found = [(n, at.get(w, at.get(w.lower(), -1))) for n, w in enumerate(vocabulary.pieces, len(vocabulary.specials))]
    ids = torch.tensor([pair for pair in found if pair[1] >= 0]).reshape(-1, 2)
    table[ids[:, 0]] = vectors[ids[:, 1]].float()
    return table


def vector_note(vocabulary: Vocabulary, encoded: Sequence[Sequence[int]], words: Sequence[str]) -> Note:
    """How many of the words that are trained have a vector. Raises ConfigError when none has."""
    known = set(words)
    first = len(vocabulary.specials)
    seen = {vocabulary.pieces[i - first] for ids in encoded for i in ids if i >= first}
    share = sum(w in known or w.lower() in known for w in seen) / max(len(seen), 1)
    if not share:
        raise ConfigError("none of the words trained on has a vector in that file; is it of another language?")
    text = f"{share:.1%} of the different words trained on have a pre-trained vector, the others start at random"
    return Note("warning" if share < 0.5 else "info", text)


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
