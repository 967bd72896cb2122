"""Rows of texts from tables: CSV, TSV, JSON lines, Parquet, a DataFrame or a list of dicts; which column is what."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engram.core.data import Note
from engram.core.errors import DataError, did_you_mean
from engram.data.sniff import HEAD, sniff
from engram.data.text_decode import lines_of, read_text

# Usual names, best first; they are compared in lower case.
TEXT = (
    *("text", "sentence", "review", "body", "content", "document", "utterance", "message", "tweet", "comment", "article"),
    *("post", "email", "sms", "query", "headline", "description", "question", "title"),
)
LABEL = (
    *("label", "labels", "class", "category", "intent", "sentiment", "target", "topic", "emotion", "tag", "rating", "stars"),
    *("polarity", "spam", "y"),
)
PAIRS = (
    *(("source", "target"), ("src", "tgt"), ("en", "de"), ("en", "fr"), ("english", "german"), ("english", "french")),
    *(("input", "output"), ("dialogue", "summary"), ("article", "summary"), ("article", "highlights")),
    *(("document", "summary"), ("text", "summary"), ("prompt", "response"), ("prompt", "completion")),
    *(("instruction", "response"), ("instruction", "output"), ("question", "answer"), ("source", "translation")),
)


@dataclass(frozen=True)
class Names:
    """What the user named: columns ('' to guess them) and the encoding ('' to see it from the bytes)."""

    text: str = ""
    label: str = ""
    source: str = ""
    target: str = ""
    encoding: str = ""

    def given(self) -> dict[str, str]:
        """The columns that were named, by knob."""
        knobs = {"text": self.text, "label": self.label, "source": self.source, "target": self.target}
        return {knob: column for knob, column in knobs.items() if column}


@dataclass(frozen=True)
class Table:
    """Records as they were read; a cell is text, or what JSON and Parquet hold."""

    name: str
    records: list[dict[str, Any]]
    columns: list[str]
    lines: list[int]  # where each record is, for messages
    notes: tuple[Note, ...] = ()
    place: str = "line"  # what a number in `lines` counts

    def where(self, row: int) -> str:
        """'line 7 of reviews.csv'."""
        return f"{self.place} {self.lines[row]} of {self.name}"


def table_of(records: Sequence[Mapping[str, Any]], name: str) -> Table:
    """Rows given in Python. Raises DataError when one is no dict."""
    for number, record in enumerate(records, 1):
        if not isinstance(record, Mapping):
            raise DataError(f"row {number} of {name} is a {type(record).__name__}, and the rows before are dicts; give dicts")
    rows = [{str(k): v for k, v in record.items()} for record in records]
    return Table(name, rows, list(dict.fromkeys(k for r in rows for k in r)), [*range(1, len(rows) + 1)], place="row")


def read_table(path: Path, encoding: str = "") -> Table:
    """A whole table. Raises DataError with the line that cannot be read."""
    if path.suffix == ".parquet":
        return _parquet(path)
    text, found = read_text(path, encoding)
    notes = tuple(found.notes(path.name))
    if not text.strip():
        raise DataError(f"{path.name} is empty")
    if path.suffix in (".jsonl", ".ndjson") or text.lstrip().startswith("{"):
        return _json_lines(text, path.name, notes)
    if path.suffix == ".json" or text.lstrip().startswith("[{"):
        return _json_list(text, path.name, notes)
    return _csv(text, path, notes)


def _parquet(path: Path) -> Table:
    from engram.data.readers import read_frame

    frame = read_frame(path)[0].astype(object)
    table = table_of(frame.where(frame.notna(), None).to_dict("records"), path.name)
    for record in table.records:
        record |= {k: v.tolist() for k, v in record.items() if type(v).__name__ == "ndarray"}
    return table


def _json_lines(text: str, name: str, notes: tuple[Note, ...]) -> Table:
    records, numbers = [], []
    for number, line in enumerate(lines_of(text), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError(f"line {number} of {name} is not JSON ({error}); each line is one object") from None
        if not isinstance(record, dict):
            raise DataError(f'line {number} of {name} is not a JSON object; each line is one, such as {{"text": "..."}}')
        records.append(record)
        numbers.append(number)
    return Table(name, records, list(dict.fromkeys(k for r in records for k in r)), numbers, notes)


def _json_list(text: str, name: str, notes: tuple[Note, ...]) -> Table:
    try:
        records = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{name} is not JSON ({error}); write one object per line as .jsonl") from None
    if not isinstance(records, list):
        raise DataError(f"{name} is one JSON {type(records).__name__}; texts are a list of objects, or SQuAD's form")
    table = table_of(records, name)
    return Table(name, table.records, table.columns, table.lines, notes, "object")


def _csv(text: str, path: Path, notes: tuple[Note, ...]) -> Table:
    """Every cell stays text: a label 01 stays 01, and a sentence NA is a sentence."""
    delimiter = "\t" if path.suffix == ".tsv" else sniff(text[: HEAD // 4].encode("utf-8", "replace"), path.name).delimiter
    rows, problem = _csv_rows(text, delimiter, path.name, csv.QUOTE_MINIMAL)
    if problem and delimiter == "\t":  # a quotation mark is then often part of the text
        plain, worse = _csv_rows(text, delimiter, path.name, csv.QUOTE_NONE)
        if not worse:
            rows, problem = plain, ""
            notes = (*notes, Note("info", f'the marks " in {path.name} were read as part of the texts, not as quotes'))
    if problem:
        raise DataError(problem)
    header = [cell.strip() for cell in rows[0][1]]
    if twice := [h for h in header if header.count(h) > 1]:
        raise DataError(f"{path.name} has more than one column called {twice[0]!r}; give each its own name")
    records = [dict(zip(header, cells, strict=True)) for _, cells in rows[1:]]
    return Table(path.name, records, header, [line for line, _ in rows[1:]], notes)


def _csv_rows(text: str, delimiter: str, name: str, quoting: Any) -> tuple[list[tuple[int, list[str]]], str]:
    """(rows with the line each ends on, what is wrong)."""
    csv.field_size_limit(1 << 30)  # the usual limit, 131,072 characters, is less than a long document
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, skipinitialspace=True, strict=True)
    rows: list[tuple[int, list[str]]] = []
    try:
        for cells in reader:
            if not cells:
                continue
            rows.append((reader.line_num, cells))
            if len(cells) != len(rows[0][1]):
                return rows, (
                    f"line {reader.line_num} of {name} has {len(cells)} field{'s' * (len(cells) != 1)} and the header has "
                    f"{len(rows[0][1])}; mend that line (a text that holds {delimiter!r} needs quotes)"
                )
    except csv.Error as error:
        return rows, f"line {reader.line_num} of {name}: {error}; look for a quote that is not closed"
    return rows, ""


def column(table: Table, knob: str, named: str, usual: Sequence[str], taken: Sequence[str] = ()) -> str:
    """The column called `named`, else the first usual name; '' when there is none. Raises DataError when `named` is missing."""
    if named:
        if named not in table.columns:
            near = did_you_mean(named, table.columns)
            raise DataError(f"{table.name} has no column {named!r}{near}; {knob}= names one of {_shown(table)}")
        return named
    lower = {c.lower(): c for c in reversed(table.columns) if c not in taken}
    return next((lower[u] for u in usual if u in lower), "")


def pair_columns(table: Table, names: Names) -> tuple[str, str]:
    """The source and target columns, ('', '') when nothing tells them."""
    if names.source or names.target:
        source = column(table, "source", names.source, [a for a, _ in PAIRS])
        target = column(table, "target", names.target, [b for _, b in PAIRS], [source])
        if len(table.columns) == 2 and not (source and target):
            other = next((c for c in table.columns if c not in (source, target)), "")
            source, target = source or other, target or other
        return (source, target) if source and target and source != target else ("", "")
    lower = {c.lower(): c for c in table.columns}
    for a, b in PAIRS:
        if a in lower and b in lower:
            return lower[a], lower[b]
    codes = [c for c in table.columns if len(c) == 2 and c.isalpha()]
    return (codes[0], codes[1]) if len(codes) == 2 == len(table.columns) else ("", "")


def no_columns(table: Table, what: str, how: str) -> DataError:
    """The error for a table whose columns nobody can guess."""
    first = [c for c in table.columns if any(c == r.get(c) for r in table.records[:1000])]
    if first and table.place == "line":
        return DataError(
            f"the first line of {table.name} seems to hold data ({', '.join(table.columns)[:60]}), not column names; "
            f"add a line of names above it, such as {what.replace(' and ', ',')}"
        )
    return DataError(f"cannot tell the columns {what} of {table.name} from its names ({_shown(table)}); name them: {how}")


def _shown(table: Table) -> str:
    more = f" and {len(table.columns) - 12} more" if len(table.columns) > 12 else ""
    return ", ".join(table.columns[:12]) + more
