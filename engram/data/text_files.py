"""The user's own texts: one file, two parallel files, a folder, or rows in Python."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engram.core.data import Note
from engram.core.errors import ConfigError, DataError, did_you_mean
from engram.data.text_conll import parse_columns, to_bio
from engram.data.text_decode import lines_of, read_text
from engram.data.text_questions import squad_rows
from engram.data.text_records import from_table
from engram.data.text_rows import Row, Texts, sha256_of_files, sha256_of_rows
from engram.data.text_tables import Names, Table, read_table, table_of

PLAIN = (".txt", ".md", ".text", "")
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
COLUMNS = (".conll", ".bio", ".iob", ".iob2")
KNOWN = (*PLAIN, *TABLES, *COLUMNS)


def from_python(data: Any, form: str, names: Names) -> Texts | None:
    """A list of texts, a list of dicts or a DataFrame; None when it is something else. Raises DataError."""
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(data, pandas.DataFrame):
        if not data.columns.is_unique:
            raise DataError(f"the DataFrame has more than one column called {data.columns[data.columns.duplicated()][0]!r}")
        frame = data.astype(object)
        table = table_of(frame.where(frame.notna(), None).to_dict("records"), "the DataFrame")
        table = Table(table.name, table.records, [str(c) for c in data.columns], table.lines, place="row")
    elif isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
        if not data:
            raise DataError("the list of texts is empty; give some")
        if all(isinstance(item, str) for item in data):
            rows: list[Row] = [{"text": item} for item in data]
            return Texts("corpus", {"train": rows}, f"{len(rows):,} texts", sha256_of_rows({"train": rows}))
        odd = next((d for d in data if not isinstance(d, Mapping)), None)
        if odd is not None and any(isinstance(d, str) for d in data):
            odd = next(d for d in data if not isinstance(d, str))
        if odd is not None:
            raise DataError(f"the list holds a value of type {type(odd).__name__}; give only texts (str) or only rows (dict)")
        table = table_of(data, "the list")
    else:
        return None
    texts = from_table(table, form, names, "")
    return Texts(texts.form, texts.splits, "", sha256_of_rows(texts.splits), texts.notes, texts.facts)


def read_file(path: Path, form: str, names: Names) -> Texts:
    """One file by its ending and by what is asked for. Raises DataError."""
    suffix = path.suffix.lower() if path.suffix.lower() != ".gz" else Path(path.stem).suffix.lower()
    if suffix in (".pkl", ".pickle", ".joblib", ".pt", ".pth"):
        raise DataError(f"{path.name} is a pickle, and opening one can run code; save the texts as .txt, .csv or .jsonl")
    if suffix in COLUMNS or (form == "tagged" and suffix not in TABLES):
        return _conll(path, names.encoding)
    if suffix == ".tsv" and form == "tagged":
        return _conll(path, names.encoding)
    if suffix in TABLES or (suffix in PLAIN and form in ("labelled", "pairs", "questions", "conversations")):
        return _table(path, form, names)
    if given := names.given():
        knob = next(iter(given))
        raise ConfigError(
            f"{knob}={given[knob]} names a column, and {path.name} is plain text; leave {knob} out, or give a table"
        )
    text, found = read_text(path, names.encoding)
    notes = found.notes(path.name)
    if found.blank:
        raise DataError(f"{path.name} is empty")
    if suffix not in KNOWN:
        notes.append(Note("info", f"{path.name} was read as plain text"))
    return Texts("corpus", {"train": [{"text": text}]}, "", found.sha256, tuple(notes), {"encoding": found.encoding})


def _conll(path: Path, encoding: str) -> Texts:
    text, found = read_text(path, encoding)
    if found.blank:
        raise DataError(f"{path.name} is empty")
    rows, places = parse_columns(text, path.name)
    rows, scheme, notes = to_bio(rows, places, path.name)
    return Texts("tagged", {"train": rows}, "", found.sha256, (*found.notes(path.name), *notes), {"scheme": scheme})


def _table(path: Path, form: str, names: Names) -> Texts:
    sha256 = sha256_of_files({path.name: path})
    if path.suffix.lower() == ".json":
        text = read_text(path, names.encoding)[0]
        if text.lstrip().startswith("{") and '"paragraphs"' in text:
            try:
                data = json.loads(text)
            except json.JSONDecodeError as error:
                raise DataError(f"{path.name} is not JSON ({error}); get it again") from None
            return Texts("questions", {"train": squad_rows(data, path.name)}, "", sha256)
    table = read_table(path, names.encoding)
    return from_table(table, form, names, sha256)


def parallel(files: Mapping[str, tuple[Path, Path]], names: Names, languages: tuple[str, str]) -> Texts:
    """Pairs of files, line n of one with line n of the other, by split. Raises DataError with both counts."""
    splits: dict[str, list[Row]] = {}
    notes: list[Note] = []
    paths: dict[str, Path] = {}
    for split, pair in files.items():
        sides = []
        for path in pair:
            text, found = read_text(path, names.encoding)
            notes += found.notes(path.name)
            paths[path.name] = path
            sides.append(lines_of(text))
        if len(sides[0]) != len(sides[1]):
            raise DataError(
                f"{pair[0].name} has {len(sides[0]):,} lines and {pair[1].name} has {len(sides[1]):,}; line n of one must "
                "be the translation of line n of the other"
            )
        splits[split] = [{"source": a, "target": b} for a, b in zip(*sides, strict=True)]
    facts = {"source": languages[0], "target": languages[1]}
    return Texts("pairs", splits, "", sha256_of_files(paths), tuple(notes), facts)


def two_files(data: str, names: Names) -> Texts | None:
    """'train.en,train.de'; None when it is not two paths. Raises DataError when one of them is missing."""
    parts = [p.strip() for p in data.split(",")]
    if len(parts) != 2 or not all(parts) or Path(data).exists():
        return None
    paths = [Path(p).expanduser() for p in parts]
    if not any(p.exists() for p in paths):
        return None
    for path in paths:
        if not path.is_file():
            raise DataError(missing(path))
    languages = paths[0].suffix.lstrip(".") or "source", paths[1].suffix.lstrip(".") or "target"
    return parallel({"train": (paths[0], paths[1])}, names, languages)


def missing(path: Path) -> str:
    """What to say of a path that is not there, with a near name."""
    if path.is_symlink():
        return f"{path} is a link to {os.readlink(path)}, which does not exist"
    if not path.parent.is_dir():
        return f"there is no file {path}, and no folder {path.parent}"
    near = did_you_mean(path.name, sorted(p.name for p in path.parent.iterdir()))
    return f"there is no file {path.name} in {path.parent.resolve()}{near}"
