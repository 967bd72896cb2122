"""Running text or conversations as training data of a language model: read, split, tokenised, one row of ids per split."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engram.core.data import Note, Summary
from engram.core.errors import ConfigError, DataError, RunError
from engram.data.chat import ChatTemplate, checked, manual
from engram.data.language_spec import LanguageSpec
from engram.data.texts import Texts, read_texts
from engram.data.tokens import TokenData
from engram.data.vocabulary import START, UNK, Vocabulary

FEW_LETTERS = 200  # different characters up to which a small corpus is modelled by characters
SMALL = 2_000_000  # characters


def corpus(
    data: Any,
    *,
    batch: int,
    context: int,
    seed: int = 0,
    vocab: str = "auto",
    vocab_size: int = 8192,
    documents: str = "auto",
    start_from: str = "",
    chat: bool = False,
) -> TokenData:
    """A corpus as windows of `context` tokens. With `chat` the texts are conversations, and only the replies are trained.

    `vocab` auto: characters for a small text of few different ones, else byte pairs; `start_from` takes that of a run.
    `documents` auto: keep documents apart when there are several. Raises DataError and ConfigError.
    """
    rows = manual() if chat and data == "manual" else data
    texts = read_texts(rows, "conversations" if chat else "corpus", seed=seed)
    template = ChatTemplate() if chat else None
    if start_from:
        vocabulary = vocabulary_of(start_from)
        if template:
            check_roles(vocabulary, template.specials, start_from)
    else:
        vocabulary = make_vocabulary(vocab, bodies(texts.splits["train"]), vocab_size)
    splits, starts, trained, notes = {}, {}, {}, list(texts.notes)
    for name, rows in texts.splits.items():
        encoded = [encode_row(vocabulary, template, row) for row in rows]
        encoded = [(ids, own) for ids, own in encoded if len(ids) > 1]
        if not encoded:
            continue
        splits[name] = np.concatenate([ids for ids, _ in encoded]).astype(np.uint16 if vocabulary.size < 65536 else np.int32)
        starts[name] = np.cumsum([0, *(len(ids) for ids, _ in encoded[:-1])])
        if template:
            trained[name] = np.concatenate([own for _, own in encoded])
        if unknown := int((splits[name] == UNK).sum()):
            share = unknown / len(splits[name])
            notes.append(
                Note("warning" if share > 0.1 else "info", f"{name}: {share:.1%} of the tokens are not in the vocabulary")
            )
    if len(splits.get("train", ())) < 2:
        raise DataError(f"{texts.title} holds no text to train on")
    apart = documents == "on" or chat or (documents == "auto" and len(starts["train"]) > 1)
    counts = {name: len(ids) for name, ids in splits.items()}
    title = f"{texts.title}, {counts['train']:,} tokens to train on ({vocabulary.kind} vocabulary of {vocabulary.size:,})"
    facts = texts.facts | {"tokens": counts, "documents": {n: len(s) for n, s in starts.items()}}
    size = {name: -(-count // context) for name, count in counts.items()}
    spec = LanguageSpec(
        vocab=vocabulary.to_json(), context=context, chat=template.to_json() if template else {}, title=texts.title
    )
    return TokenData(
        spec, Summary(title, size, facts, tuple(notes), texts.sha256), splits, context=context, batch=batch, seed=seed,
        starts=starts if apart else None, trained=trained or None, raw=prompts_of(texts, vocabulary, splits, context, chat),
    )  # fmt: skip


def make_vocabulary(kind: str, texts: Sequence[str], size: int, extra: Sequence[str] = (), lower: bool = False) -> Vocabulary:
    """The vocabulary of some texts; 'auto' looks at them."""
    if kind == "auto":
        few = sum(map(len, texts)) <= SMALL and len(set().union(*map(set, texts))) <= FEW_LETTERS
        kind = "char" if few and size >= FEW_LETTERS else "bpe"
    if kind == "bpe" and size < 300:
        raise ConfigError(f"vocab_size={size} is too small for byte pairs (256 bytes and the special tokens); at least 300")
    return Vocabulary.train(kind, texts, size, extra=extra, lower=lower)


def bodies(rows: Iterable[dict[str, Any]]) -> list[str]:
    """All text of corpus rows or conversations."""
    return [t for row in rows for t in ([row["text"]] if "text" in row else [m["content"] for m in row["messages"]])]


def encode_row(vocabulary: Vocabulary, template: ChatTemplate | None, row: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """(ids, which are trained) of one document or conversation."""
    if template:
        ids, own = template.encode(vocabulary, checked(row["messages"]))
        return np.array(ids, np.int32), np.array(own)
    ids = np.concatenate([[START], vocabulary.encode_array(row["text"])])
    return ids, np.ones(len(ids), bool)


def prompts_of(texts: Texts, vocabulary: Vocabulary, splits: dict[str, np.ndarray], context: int, chat: bool) -> Any:
    """How `Data.raw` gives prompts: the first quarter of a window as text, or a conversation up to its last reply."""

    def raw(split: str, rows: list[int]) -> list[Any]:
        if chat:
            held = texts.splits[split]
            return [_until_reply(held[row % len(held)]["messages"]) for row in rows]
        ids, length = splits[split], max(context // 4, 1)
        found = [vocabulary.decode(ids[row * context : row * context + length].tolist()) for row in rows]
        return [text or " " for text in found]

    return raw


def _until_reply(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    last = max((n for n, m in enumerate(messages) if m["role"] == "assistant"), default=len(messages))
    return messages[:last] or messages


def vocabulary_of(run: str) -> Vocabulary:
    """The vocabulary of a run, so that its weights can be gone on with. Raises RunError."""
    path = Path(run) / "run.json"
    try:
        spec = json.loads(path.read_text("utf-8"))["spec"]
    except (OSError, ValueError, KeyError):
        raise RunError(f"start_from={run} is not a run, or its run.json is damaged") from None
    if not isinstance(spec.get("vocab"), dict):
        raise ConfigError(
            f"start_from={run}: that run has no vocabulary (it is no run of text), so it cannot be gone on with here"
        )
    return Vocabulary.from_json(spec["vocab"])


def check_roles(vocabulary: Vocabulary, roles: Sequence[str], run: str) -> None:
    """Raises ConfigError when a vocabulary has no tokens for the roles of a chat."""
    if missing := [name for name in roles if name not in vocabulary.specials]:
        raise ConfigError(f"start_from={run}: its vocabulary has no {', '.join(missing)}, so it cannot be taught to chat")
