"""Texts as plain rows: the noun that every text source gives, and how one form of rows becomes another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from engram.core.data import Note
from engram.core.errors import ConfigError, DataError, did_you_mean

Form = Literal["corpus", "labelled", "tagged", "pairs", "questions", "conversations"]
Row = dict[str, Any]
FORMS: tuple[str, ...] = get_args(Form)

# What one row is called, and what a file of that form looks like, for messages.
NOUN = {
    "corpus": "document",
    "labelled": "text",
    "tagged": "sentence",
    "pairs": "pair",
    "questions": "question",
    "conversations": "conversation",
}
LAYOUT = {
    "corpus": "a text file, or a folder of text files",
    "labelled": "a table with a column of texts and one of labels (text=COLUMN label=COLUMN), or a folder per class",
    "tagged": "a file with a word and its tag on each line and an empty line after each sentence",
    "pairs": "a table with two columns (source=COLUMN target=COLUMN), or two files line by line (data=train.en,train.de)",
    "questions": "a JSON file as SQuAD's, or a table with the columns context, question and answer",
    "conversations": 'JSON lines with {"messages": [{"role": ..., "content": ...}, ...]} or {"prompt": ..., "response": ...}',
}
RECIPES = {
    "corpus": "train a language model on it (gpt)",
    "labelled": "train a text classifier on it",
    "tagged": "train a tagger on it",
    "pairs": "train a translation model on it",
    "questions": "train a question answering model on it",
    "conversations": "train a chat model on it",
}


@dataclass(frozen=True)
class Texts:
    """Rows by split ('train', and 'val' and 'test' where there are any).

    corpus {"text"}; labelled {"text", "label"}; tagged {"words", "tags"}; pairs {"source", "target"} and, where a source has
    several good targets, "references"; questions {"id", "title", "context", "question", "answers": [{"start", "text"}]};
    conversations {"messages": [{"role", "content"}]}.
    """

    form: Form
    splits: dict[str, list[Row]]
    title: str
    sha256: str  # of the content
    notes: tuple[Note, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


def check_form(form: str) -> None:
    """Raises ConfigError when `form` is not one of FORMS or empty."""
    if form and form not in FORMS:
        raise ConfigError(f"form={form!r} is no form of text{did_you_mean(form, FORMS)}; there are {', '.join(FORMS)}")


def as_form(texts: Texts, form: str, name: str) -> Texts:
    """The same content in another form. Raises DataError when it cannot be had, with what was found and what is needed."""
    if not form or form == texts.form:
        return texts
    if form == "corpus":
        splits = {s: [{"text": t} for t in _documents(rows, texts.form)] for s, rows in texts.splits.items()}
        note = Note(
            "info", f"the {NOUN[texts.form]}s were joined to a corpus, one document each; labels and tags are not in it"
        )
        if texts.form == "questions":
            note = Note("info", "the corpus is the paragraphs, each once; the questions are not in it")
        return replace(texts, form="corpus", splits=splits, notes=(*texts.notes, note))
    if form == "conversations" and texts.form == "pairs":
        splits = {s: [{"messages": two_turns(r["source"], r["target"])} for r in rows] for s, rows in texts.splits.items()}
        note = Note("info", "each pair was read as a conversation of two turns: the source asks, the target answers")
        return replace(texts, form="conversations", splits=splits, notes=(*texts.notes, note))
    raise DataError(
        f"{name} holds {texts.form} data ({NOUN[texts.form]}s) and {form} data is needed: {LAYOUT[form]}; "
        f"or {RECIPES[texts.form]}"
    )


def two_turns(prompt: str, response: str) -> list[dict[str, str]]:
    """The messages of one question and its answer."""
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]


def _documents(rows: list[Row], form: str) -> Iterable[str]:
    if form == "questions":  # a paragraph has many questions
        return dict.fromkeys(row["context"] for row in rows)
    return [plain(row, form) for row in rows]


def plain(row: Row, form: str) -> str:
    """The text of a row, for a corpus, for duplicates, and to see whether it is empty."""
    if form == "tagged":
        return " ".join(row["words"])
    if form == "pairs":
        return f"{row['source']}\n{row['target']}"
    if form == "questions":
        return f"{row['context']}\n{row['question']}"
    if form == "conversations":
        return "\n".join(message["content"] for message in row["messages"])
    return row["text"]


def is_empty(row: Row, form: str) -> bool:
    """Whether a row has nothing to learn from: no text, no words, or one side of a pair missing."""
    if form == "pairs":
        return not row["source"].strip() or not row["target"].strip()
    if form == "questions":
        return not row["context"].strip() or not row["question"].strip()
    if form == "conversations":
        return not row["messages"] or not all(m["content"].strip() for m in row["messages"])
    return not plain(row, form).strip()


def counted(number: int, noun: str) -> str:
    """'1 text', '1,460 texts'."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def sha256_of_files(files: Mapping[str, Path]) -> str:
    """One digest for several files: the file's own when there is one, else of the names and digests."""
    digests = {}
    for name, path in sorted(files.items()):
        with path.open("rb") as stream:
            digests[name] = hashlib.file_digest(stream, "sha256").hexdigest()
    if len(digests) == 1:
        return next(iter(digests.values()))
    return hashlib.sha256("".join(f"{n}\0{d}\n" for n, d in digests.items()).encode("utf-8", "surrogateescape")).hexdigest()


def sha256_of_rows(splits: Mapping[str, list[Row]]) -> str:
    """The digest of rows given in Python."""
    text = json.dumps(splits, ensure_ascii=True, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
