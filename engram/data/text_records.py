"""Records to rows of a form: labelled texts, pairs, questions, conversations, tagged words, or a corpus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engram.core.data import Note
from engram.core.errors import ConfigError, DataError, did_you_mean
from engram.data.text_conll import to_bio
from engram.data.text_questions import check_answers
from engram.data.text_rows import LAYOUT, Row, Texts, counted, two_turns
from engram.data.text_tables import LABEL, PAIRS, TEXT, Names, Table, column, no_columns, pair_columns

_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
_KNOWN_ROLES = ("system", "user", "assistant")
_CHATS = ("messages", "conversations", "conversation")
_USES = {
    "labelled": ("text", "label"),
    "corpus": ("text", "label"),
    "pairs": ("source", "target"),
    "conversations": ("source", "target"),
}
_PROMPTS = tuple(p for p in PAIRS if p[0] in ("prompt", "instruction"))


def from_table(table: Table, form: str, names: Names, sha256: str) -> Texts:
    """The rows of a table in the form asked for, or in the one that its columns speak of. Raises DataError."""
    if not table.records:
        raise DataError(f"{table.name} has {'column names and ' if table.columns else ''}no rows; add rows")
    lower = {c.lower() for c in table.columns}
    if form == "corpus" and not names.text and (len(table.columns) > 1 or lower & set(_CHATS)):
        spoken = _form_of(table, names, lower)  # pairs and chats become a corpus afterwards; of labels only the texts count
        form = "corpus" if spoken == "labelled" else spoken
    form = form or _form_of(table, names, lower)
    for knob, named in names.given().items():
        if knob not in _USES.get(form, ()):
            raise ConfigError(f"{knob}={named} is not used for {form} data; leave it out")
    if form == "conversations":
        rows, notes = _conversations(table, names)
    elif form == "questions":
        rows, notes = _questions(table)
    elif form == "tagged":
        rows, notes = _tagged(table)
    elif form == "pairs":
        rows, notes = _pairs(table, names)
    elif form == "labelled":
        rows, notes = _labelled(table, names)
    else:
        form, rows, notes = "corpus", *_corpus(table, names)
    kept: Any = form
    return Texts(kept, {"train": rows}, "", sha256, (*table.notes, *notes), {"columns": list(table.columns)})


def _form_of(table: Table, names: Names, lower: set[str]) -> str:
    if names.label:
        return "labelled"
    if names.source or names.target:
        return "pairs"
    if names.text:
        return "labelled" if column(table, "label", "", LABEL, [names.text]) else "corpus"
    if lower & set(_CHATS) and any(isinstance(table.records[0].get(c), list) for c in table.columns if c.lower() in _CHATS):
        return "conversations"
    if {"context", "question"} <= lower and lower & {"answer", "answers"}:
        return "questions"
    if lower & {"words", "tokens"} and lower & {"tags", "ner_tags"}:
        return "tagged"
    if any(set(p) <= lower for p in _PROMPTS):
        return "conversations"
    text = column(table, "text", "", TEXT)
    if text and column(table, "label", "", LABEL, [text]):
        return "labelled"
    if pair_columns(table, names) != ("", ""):
        return "pairs"
    if text:
        return "corpus"
    raise no_columns(table, "text and label", "text=COLUMN label=COLUMN for labels, source=COLUMN target=COLUMN for pairs")


def _labelled(table: Table, names: Names) -> tuple[list[Row], list[Note]]:
    label = column(table, "label", names.label, LABEL, [names.text])
    text = column(table, "text", names.text, TEXT, [label])
    if label and not text and len(table.columns) == 2:
        text = next(c for c in table.columns if c != label)
    if not text or not label:
        raise no_columns(table, "text and label", "text=COLUMN label=COLUMN")
    if text == label:
        raise DataError(f"text= and label= both name {text!r}; name the column of texts and the column of labels")
    rows: list[Row] = []
    for n, record in enumerate(table.records):
        value = record.get(label)
        if isinstance(value, (list, dict)):
            raise DataError(
                f"{table.where(n)}: the label {str(value)[:40]} is a {type(value).__name__}; give one word or number"
            )
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # a whole number beside missing ones
        if value is None or value != value or not str(value).strip():
            continue
        rows.append({"text": _cell(table, n, text), "label": str(value).strip()})
    notes = _taken(names, text=text, label=label)
    if missing := len(table.records) - len(rows):
        notes.append(Note("warning", f"{counted(missing, 'text')} without a label left out"))
    return rows, notes


def _pairs(table: Table, names: Names) -> tuple[list[Row], list[Note]]:
    source, target = pair_columns(table, names)
    if not source:
        raise no_columns(table, "source and target", "source=COLUMN target=COLUMN")
    rows = [{"source": _cell(table, n, source), "target": _cell(table, n, target)} for n in range(len(table.records))]
    return rows, _taken(names, source=source, target=target)


def _corpus(table: Table, names: Names) -> tuple[list[Row], list[Note]]:
    text = column(table, "text", names.text, TEXT) or (table.columns[0] if len(table.columns) == 1 else "")
    if not text:
        raise no_columns(table, "text", "text=COLUMN")
    return [{"text": _cell(table, n, text)} for n in range(len(table.records))], _taken(names, text=text)


def _conversations(table: Table, names: Names) -> tuple[list[Row], list[Note]]:
    chat = column(table, "messages", "", _CHATS)
    if not chat:
        if pair_columns(table, names) == ("", ""):
            raise DataError(
                f"{table.name} has the columns {', '.join(table.columns[:12])}; conversations are {LAYOUT['conversations']}"
            )
        rows, notes = _pairs(table, names)
        return [{"messages": two_turns(r["source"], r["target"])} for r in rows], notes
    return [{"messages": _messages(r.get(chat), table.where(n))} for n, r in enumerate(table.records)], []


def _messages(value: Any, where: str) -> list[dict[str, str]]:
    """Messages in the form of role and content; {"from", "value"} is read too."""
    if not isinstance(value, list):
        raise DataError(f"{where}: the messages are not a list; a conversation is {LAYOUT['conversations']}")
    found = []
    for number, message in enumerate(value, 1):
        if not isinstance(message, Mapping):
            raise DataError(f'{where}: message {number} is not {{"role": ..., "content": "text"}}')
        role, content = message.get("role", message.get("from")), message.get("content", message.get("value"))
        role = _ROLES.get(str(role), role)
        if role not in _KNOWN_ROLES:
            near = did_you_mean(str(role), _KNOWN_ROLES)
            raise DataError(f"{where}: message {number} has the role {role!r}{near}; roles are {', '.join(_KNOWN_ROLES)}")
        if not isinstance(content, str):
            raise DataError(f"{where}: message {number} has no text in content; each message is role and content")
        found.append({"role": str(role), "content": content})
    return found


def _questions(table: Table) -> tuple[list[Row], list[Note]]:
    names = [column(table, c, "", (c, f"{c}s")) for c in ("context", "question", "answer")]
    if not all(names):
        raise DataError(f"{table.name} has the columns {', '.join(table.columns[:12])}; questions are {LAYOUT['questions']}")
    rows: list[Row] = []
    for n, record in enumerate(table.records):
        context, question = (_cell(table, n, c) for c in names[:2])
        start = str(record.get("answer_start", ""))
        answers = _answers(record.get(names[2]), int(start) if start.isdecimal() else None, context)
        if answers is None:
            continue
        identity = str(record.get("id") or table.lines[n])
        rows.append({"id": identity, "title": str(record.get("title") or ""), "context": context, "question": question})
        rows[-1]["answers"] = answers
    check_answers(rows, table.name)
    lost = len(table.records) - len(rows)
    text = f"{counted(lost, 'question')} left out, because the answer is not a part of the context"
    return rows, [Note("warning", text)] if lost else []


def _answers(value: Any, start: int | None, context: str) -> list[dict[str, Any]] | None:
    """Answers with their places; None when one is not in the context. No answer is an empty list."""
    if isinstance(value, Mapping):  # {"text": [...], "answer_start": [...]}
        value = [{"text": t, "answer_start": s} for t, s in zip(value["text"], value["answer_start"], strict=True)]
    if isinstance(value, str) or value is None:
        value = [{"text": value, "answer_start": start}] if value else []
    found = []
    for answer in value:
        text, at = (answer["text"], answer.get("answer_start")) if isinstance(answer, Mapping) else (str(answer), None)
        at = context.find(text) if at is None else at
        if at < 0:
            return None
        found.append({"start": at, "text": text})
    return found


def _tagged(table: Table) -> tuple[list[Row], list[Note]]:
    words, tags = column(table, "words", "", ("words", "tokens")), column(table, "tags", "", ("tags", "ner_tags"))
    if not words or not tags:
        raise DataError(f"{table.name} has the columns {', '.join(table.columns[:12])}; tagged words are {LAYOUT['tagged']}")
    rows: list[Row] = []
    for n, record in enumerate(table.records):
        pair: tuple[Any, Any] = record.get(words), record.get(tags)
        if not all(isinstance(v, list) and all(isinstance(x, str) for x in v) for v in pair):
            raise DataError(f"{table.where(n)}: {words} and {tags} must be lists of words and of tags written as text")
        if len(pair[0]) != len(pair[1]):
            raise DataError(f"{table.where(n)} has {len(pair[0])} words and {len(pair[1])} tags; each word needs one tag")
        rows.append({"words": list(pair[0]), "tags": list(pair[1])})
    places = [[table.lines[n]] * len(r["words"]) for n, r in enumerate(rows)]
    fixed, _, notes = to_bio(rows, places, table.name)
    return fixed, notes


def _cell(table: Table, row: int, name: str) -> str:
    value = table.records[row].get(name)
    if isinstance(value, (list, dict)):
        raise DataError(f"{table.where(row)}: {name} is a {type(value).__name__}, not text")
    return "" if value is None or value != value else str(value)


def _taken(names: Names, **columns: str) -> list[Note]:
    """What was guessed."""
    guessed = {k: c for k, c in columns.items() if k not in names.given()}
    return [Note("info", "columns taken: " + ", ".join(f"{k}={c}" for k, c in guessed.items()))] if guessed else []
