"""Questions about texts as training data: read, split, cut into windows, answers as places of tokens."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from engram.core.data import Note, Summary
from engram.core.errors import ConfigError, DataError
from engram.data.corpus import make_vocabulary, vocabulary_of
from engram.data.pretrained import read_vectors
from engram.data.question_spec import Pieces, QuestionSpec
from engram.data.ragged import RaggedData
from engram.data.text_rows import Texts, counted
from engram.data.texts import read_texts
from engram.data.vocabulary import UNK, Vocabulary


def questions(
    data: Any,
    *,
    batch: int,
    context: int,
    stride: int = 0,
    seed: int = 0,
    vocab: str = "word",
    vocab_size: int = 30_000,
    least: int = 1,
    lower: bool = True,
    vectors: str = "",
    start_from: str = "",
) -> RaggedData:
    """Questions in windows of `context` tokens; batches are those of QuestionSpec, and a raw row is the question of a window.

    `stride` 0: half of the room that the text has. Words seen fewer than `least` times are unknown. `vectors`: see
    `sentences`. `start_from` takes the vocabulary of a run. Raises DataError and ConfigError.
    """
    texts = data if isinstance(data, Texts) else read_texts(data, "questions", seed=seed)
    if context < 16:
        raise ConfigError(f"context={context} is too short for a question and its text; at least 16, better 256")
    rows = texts.splits["train"]
    bodies = [*dict.fromkeys(r["context"] for r in rows), *(r["question"] for r in rows)]
    given = read_vectors(vectors, start_from, vocab)
    if start_from:
        vocabulary = vocabulary_of(start_from)
    elif vocab == "word":
        vocabulary = given.join(Vocabulary.train("word", bodies, vocab_size, lower=lower, least=least))
    else:
        vocabulary = make_vocabulary(vocab, bodies, vocab_size, lower=lower)
    spec = QuestionSpec(
        vocab=vocabulary.to_json(), context=context, stride=stride or max(context // 2 - 8, 4), title=texts.title,
        unanswerable=any(not r["answers"] for r in rows), vector_width=given.width,
    )  # fmt: skip
    known: dict[str, Pieces] = {}
    splits: dict[str, list[dict[str, Any]]] = {}
    owners: dict[str, list[int]] = {}
    notes = list(texts.notes)
    for split, part in texts.splits.items():
        splits[split], owners[split], lost, long = [], [], 0, 0
        for number, row in enumerate(part):
            pieces = known.setdefault(row["context"], spec.pieces(row["context"]))
            found = spec.examples(row, pieces)
            long += len(found) > 1
            lost += bool(row["answers"]) and not any(end for _, _, end in found)
            for window, start, end in found:
                splits[split].append({"tokens": window.tokens, "segments": window.kinds, "starts": start, "ends": end})
                owners[split].append(number)
        if long:
            text = f"{split}: {counted(long, 'question')} of {len(part):,} with a text longer than {context} tokens: in windows"
            notes.append(Note("info", text))
        if lost:
            notes.append(
                Note("warning", f"{split}: {counted(lost, 'answer')} in no window whole; raise context or lower stride")
            )
    if not any(r["ends"] for r in splits["train"]):
        raise DataError(f"no training question of {texts.title} has an answer in its text")
    places = [math.log(1 + sum(k % 2 for k in r["segments"])) for r in splits["train"]]
    spec = dataclasses.replace(spec, chance=sum(places) / len(places))
    notes += given.give(spec, vocabulary, seed, (i for r in splits["train"] for i in r["tokens"]))
    total, unknown = (sum(f(p.ids) for p in known.values()) for f in (len, lambda ids: ids.count(UNK)))
    if unknown:
        level = "warning" if unknown > total / 10 else "info"
        notes.append(Note(level, f"{unknown / total:.1%} of the tokens of the texts are not in the vocabulary"))
    facts = texts.facts | {"vocabulary": vocabulary.size, "questions": {s: len(r) for s, r in texts.splits.items()}}
    size = {s: len(r) for s, r in splits.items()}
    return RaggedData(
        spec, Summary(texts.title, size, facts, tuple(notes), texts.sha256), {**splits}, batch=batch, seed=seed,
        lengths={"tokens": "lengths"}, raw=lambda split, numbers: [texts.splits[split][owners[split][n]] for n in numbers],
    )  # fmt: skip
