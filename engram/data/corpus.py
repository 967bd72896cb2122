"""Running text or conversations as training data of a language model: read, split, tokenised, one row of ids per split."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engram.core.data import Note, Summary
from engram.core.errors import ConfigError, DataError, RunError
from engram.data.chat import ChatTemplate, checked, manual
from engram.data.language_spec import LanguageSpec
from engram.data.pretrained import read_vectors
from engram.data.sources import cache_folder
from engram.data.stored import LARGE, Large, large, stored
from engram.data.text_rows import Row, counted
from engram.data.texts import read_texts
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
    vectors: str = "",
    start_from: str = "",
    chat: bool = False,
    memory: float = LARGE,
) -> TokenData:
    """A corpus as windows of `context` tokens. With `chat` the texts are conversations, and only the replies are trained.

    `vocab` auto: characters for a small text of few different ones, else byte pairs; `start_from` takes that of a run.
    `vectors` is a file of pre-trained word vectors, of which those of the vocabulary are taken; auto then is words. `documents`
    auto: keep documents apart when there are several. Text files of more than `memory` MB are tokenised once into files of the
    cache. Raises DataError and ConfigError.
    """
    given = read_vectors(vectors, start_from, vocab)
    found = tokenise(
        data, seed=seed, vocab=given.kind(vocab), vocab_size=vocab_size, start_from=start_from, chat=chat, memory=memory,
    )  # fmt: skip
    vocabulary, splits = found.vocabulary, found.splits
    apart = documents == "on" or chat or (documents == "auto" and len(found.starts["train"]) > 1)
    size = {name: -(-len(ids) // context) for name, ids in splits.items()}
    template = ChatTemplate().to_json() if chat else {}
    spec = LanguageSpec(
        vocab=vocabulary.to_json(), context=context, chat=template, title=found.name, vector_width=given.width,
    )  # fmt: skip
    notes = (*found.notes, *given.give(spec, vocabulary, seed))
    return TokenData(
        spec, Summary(found.title, size, found.facts, notes, found.sha256), splits, context=context, batch=batch,
        seed=seed, starts=found.starts if apart else None, trained=found.trained or None,
        raw=prompts_of(found.rows, vocabulary, splits, context, chat),
    )  # fmt: skip


@dataclass(frozen=True)
class Tokenised:
    """Each split as one row of ids, in memory or memory-mapped, with the positions of the documents' first tokens.

    `trained` says which ids are targets (all, if empty); `rows` are the raw rows, {} for a corpus that is not in memory.
    """

    vocabulary: Vocabulary
    splits: dict[str, np.ndarray]
    starts: dict[str, np.ndarray]
    trained: dict[str, np.ndarray]
    rows: dict[str, list[Row]]
    name: str
    facts: dict[str, Any]
    notes: tuple[Note, ...]
    sha256: str

    @property
    def title(self) -> str:
        """One line about the data."""
        v = self.vocabulary
        return f"{self.name}, {len(self.splits['train']):,} tokens to train on ({v.kind} vocabulary of {v.size:,})"


def tokenise(
    data: Any,
    *,
    seed: int,
    vocab: str,
    vocab_size: int,
    extra: Sequence[str] = (),
    start_from: str = "",
    chat: bool = False,
    memory: float = LARGE,
) -> Tokenised:
    """A corpus or conversations as ids; see `corpus`. `extra` are further special tokens. Raises DataError and ConfigError."""
    if not chat and (big := large(data, seed, memory)):
        return _tokenise_large(big, vocab, vocab_size, extra, start_from)
    rows = manual() if chat and data == "manual" else data
    texts = read_texts(rows, "conversations" if chat else "corpus", seed=seed)
    template = ChatTemplate() if chat else None
    if start_from:
        vocabulary = vocabulary_of(start_from)
        if template:
            check_roles(vocabulary, template.specials, start_from)
    else:
        vocabulary = make_vocabulary(vocab, bodies(texts.splits["train"]), vocab_size, extra)
    splits, starts, trained, unknown = {}, {}, {}, {}
    for name, rows in texts.splits.items():
        encoded = [encode_row(vocabulary, template, row) for row in rows]
        encoded = [(ids, own) for ids, own in encoded if len(ids) > 1]
        if not encoded:
            continue
        splits[name] = np.concatenate([ids for ids, _ in encoded]).astype(np.uint16 if vocabulary.size < 65536 else np.int32)
        starts[name] = np.cumsum([0, *(len(ids) for ids, _ in encoded[:-1])])
        if template:
            trained[name] = np.concatenate([own for _, own in encoded])
        unknown[name] = int((splits[name] == UNK).sum())
    notes = (*texts.notes, *_unknown_notes(unknown, splits))
    facts = texts.facts | _counts(splits, starts, texts.title)
    return Tokenised(vocabulary, splits, starts, trained, texts.splits, texts.title, facts, notes, texts.sha256)


def _tokenise_large(big: Large, vocab: str, vocab_size: int, extra: Sequence[str], start_from: str) -> Tokenised:
    """As `tokenise`, without ever holding the text: byte pairs are trained on a part of it, other vocabularies on all."""
    if start_from:
        vocabulary = vocabulary_of(start_from)
    else:
        kind = "bpe" if vocab == "auto" else vocab
        vocabulary = make_vocabulary(kind, big.sample() if kind == "bpe" else big.text(), vocab_size, extra)
    sha256 = big.sha256
    found = {name: stored(big, name, vocabulary, sha256) for name in ("train", "val", "test")}
    kept = {name: split for name, split in found.items() if split}
    splits, starts = {n: s.ids for n, s in kept.items()}, {n: s.starts for n, s in kept.items()}
    characters = sum(s.characters for s in kept.values())
    title = f"{Path(big.data).name}: {counted(sum(map(len, starts.values())), 'document')}, {characters:,} characters"
    where = f"the text is larger than memory={big.limit:g} MB, so its tokens are kept in {cache_folder() / 'tokens'}"
    notes = (Note("info", where), *_unknown_notes({n: s.unknown for n, s in kept.items()}, splits))
    facts = {"characters": characters} | _counts(splits, starts, title)
    return Tokenised(vocabulary, splits, starts, {}, {}, title, facts, notes, sha256)


def _unknown_notes(unknown: dict[str, int], splits: dict[str, np.ndarray]) -> list[Note]:
    shares = {name: count / len(splits[name]) for name, count in unknown.items() if count}
    text = "{}: {:.1%} of the tokens are not in the vocabulary"
    return [Note("warning" if share > 0.1 else "info", text.format(name, share)) for name, share in shares.items()]


def _counts(splits: dict[str, np.ndarray], starts: dict[str, np.ndarray], title: str) -> dict[str, Any]:
    if len(splits.get("train", ())) < 2:
        raise DataError(f"{title} holds no text to train on")
    return {"tokens": {n: len(ids) for n, ids in splits.items()}, "documents": {n: len(s) for n, s in starts.items()}}


def make_vocabulary(kind: str, texts: Iterable[str], size: int, extra: Sequence[str] = (), lower: bool = False) -> Vocabulary:
    """The vocabulary of some texts; 'auto' looks at them."""
    if kind == "auto":
        texts = list(texts)
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


def prompts_of(
    rows_of: dict[str, list[Row]], vocabulary: Vocabulary, splits: dict[str, np.ndarray], context: int, chat: bool
) -> Any:
    """How `Data.raw` gives prompts: the first quarter of a window as text, or a conversation up to its last reply."""

    def raw(split: str, rows: list[int]) -> list[Any]:
        if chat:
            held = rows_of[split]
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
