"""Which recipe suits some texts: labelled or tagged, plain, pairs, conversations. Only the start of a file is looked at."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from engram.data.sources import BUILT_IN
from engram.recipes import names

FORM_OF = {
    "pydoc": "corpus", "pydoc_topics": "labelled", "pydoc_code": "tagged", "tinyshakespeare": "corpus", "wikitext2": "corpus",
    "sst2": "labelled", "imdb": "labelled", "clinc150": "labelled", "wnut17": "tagged", "conll2003": "tagged",
    "multi30k": "pairs", "numbers": "pairs", "dialogsum": "pairs", "squad": "questions",
}  # fmt: skip
RECIPES = {
    "labelled": ("textcnn",),
    "tagged": ("lstm",),
    "corpus": ("gpt",),
    "pairs": ("transformer", "seq2seq"),
    "questions": ("bert",),
    "conversations": ("chat",),
}
WHAT = {
    "labelled": "labelled texts", "tagged": "tagged words", "corpus": "plain text", "pairs": "pairs of texts",
    "questions": "questions with answers", "conversations": "conversations",
}  # fmt: skip
COLUMNS = (".conll", ".bio", ".iob", ".iob2")
PLAIN = (".txt", ".md", ".text")
ROWS = 200  # rows of a table that are looked at
LONG = 4  # words of a cell, on average, from which a column is one of texts

Found = tuple[str, dict[str, Any], str]  # recipe, knobs, why


def of_form(form: str, what: str, knobs: Mapping[str, Any] | None = None) -> Found | None:
    """The recipe for a form of text; None when there is none."""
    recipe = next((r for r in RECIPES[form] if r in names()), "")
    return (recipe, dict(knobs or {}), f"{what} ({WHAT[form]})") if recipe else None


def of_set(name: str) -> Found | None:
    """The recipe for a built-in set of texts; None for tables and images."""
    base = name.partition(":")[0]
    if base not in BUILT_IN or BUILT_IN[base].kind != "text":
        return None
    return of_form(FORM_OF[base], f"{name} is a built-in set of texts")


def of_file(path: Path) -> Found | None:
    """The recipe for a file of texts; None when it is a table of numbers and words, or nothing that can be told."""
    suffix = path.suffix.lower()
    if suffix in COLUMNS:
        return of_form("tagged", f"{path.name} has a word and a tag on each line")
    with path.open("rb") as stream:
        head = stream.read(1 << 16)
    if suffix in PLAIN:
        return None if not head.strip() or _is_table(head) else of_form("corpus", f"{path.name} is a text")
    if suffix in (".jsonl", ".ndjson"):
        return of_rows(_json_rows(head), path.name)
    return of_rows(_csv_rows(head, path.name), path.name) if suffix in (".csv", ".tsv") else None


def of_rows(rows: Sequence[Mapping[str, Any]], name: str) -> Found | None:
    """The recipe for rows of texts: by the usual names, or by one column of long texts and one of labels; None for others."""
    from engram.data.text_tables import LABEL, PAIRS, TEXT

    columns = list(dict.fromkeys(str(k) for row in rows for k in row))
    lower = {c.lower() for c in columns}
    if not columns:
        return None
    if lower & {"messages", "conversations"}:
        return of_form("conversations", f"{name} has messages")
    if lower & {"words", "tokens"} and lower & {"tags", "ner_tags"}:
        return of_form("tagged", f"{name} has words and tags")
    if {"context", "question"} <= lower and lower & {"answer", "answers"}:
        return of_form("questions", f"{name} has contexts and questions")
    columns = [c for c in columns if c.lower() not in ("id", "index", "idx", "no", "number", "") and "unnamed" not in c.lower()]
    texts = [c for c in columns if _words(rows, c) >= LONG]
    if len(columns) == 2 and any(set(pair) == {c.lower() for c in columns} for pair in PAIRS) and len(texts) != 1:
        return of_form("pairs", f"{name} has the columns {' and '.join(columns)}")
    if len(columns) == 1 and columns == texts:
        return of_form("corpus", f"{name} has the column {columns[0]!r} of texts")
    if len(columns) != 2 or len(texts) != 1:
        return None
    text, label = texts[0], next(c for c in columns if c not in texts)
    values = [str(row.get(label)) for row in rows]
    if len(set(values)) > max(2, len(values) // 2):
        return None  # a number or a name for each text: no classes
    usual = (
        next((c for c in TEXT if c in lower), "") == text.lower()
        and next((c for c in LABEL if c in lower), "") == label.lower()
    )
    knobs = {} if usual else {"text": text, "label": label}
    return of_form("labelled", f"{name} has texts in the column {text!r} and labels in {label!r}", knobs)


def of_folder(path: Path) -> Found | None:
    """The recipe for a folder of texts; None when it holds none."""
    from engram.data.text_folders import classes, find_texts

    root = path / "train" if (path / "train").is_dir() else path
    found = classes(root)
    loose = any(p.suffix.lower() in PLAIN for p in root.iterdir() if p.is_file())
    if len(found) > 1 and not loose:
        return of_form("labelled", f"{path} is a folder with texts in a folder for each of {len(found)} labels")
    if next(find_texts(root), None):
        return of_form("corpus", f"{path} is a folder of texts")
    return None


def _words(rows: Sequence[Mapping[str, Any]], column: str) -> float:
    cells = [row.get(column) for row in rows]
    return sum(len(c.split()) for c in cells if isinstance(c, str)) / max(len(cells), 1)


def _is_table(head: bytes) -> bool:
    """Whether every one of the first lines has the same number of one separator, as no prose has."""
    lines = [line for line in head.decode("utf-8", "replace").splitlines()[:-1] if line.strip()][:20]
    return len(lines) > 1 and any(lines[0].count(s) and len({line.count(s) for line in lines}) == 1 for s in "\t;|,")


def _json_rows(head: bytes) -> list[dict[str, Any]]:
    rows = []
    for line in islice(head.decode("utf-8", "replace").splitlines(), ROWS):
        try:
            row = json.loads(line)
        except ValueError:
            break  # the line that the head cuts
        if isinstance(row, dict):
            rows.append(row)
    return rows


def _csv_rows(head: bytes, name: str) -> list[dict[str, Any]]:
    from engram.data.sniff import sniff

    fmt = sniff(head, name)
    if fmt.kind != "csv":
        return []
    text = head.decode(fmt.encoding, "replace")
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=fmt.delimiter)
        rows = [dict(row) for row in islice(reader, ROWS)]
    except csv.Error:
        return []
    whole = len(head) < 1 << 16
    return [row for row in (rows if whole else rows[:-1]) if None not in row]
