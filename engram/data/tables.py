"""A table (CSV, JSON lines, Parquet, DataFrame or a built-in set) as data in memory: read, checked, split, encoded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from engram.core.data import Note, Summary
from engram.core.errors import DataError, did_you_mean
from engram.data import checks
from engram.data.columns import Column, find_columns, numbers
from engram.data.known import Known, are_numbers
from engram.data.memory import MemoryData
from engram.data.split import check_fractions, duplicates_across, split_rows
from engram.data.table_fit import fit_spec
from engram.data.table_rows import Loaded, Source, frame_sha256, load_rows, row_hashes
from engram.data.table_spec import TableSpec, category_words
from engram.data.targets import TargetKind, choose_kind, choose_target, class_names, clean_target, with_target

__all__ = ["TableSpec", "table"]


def table(
    source: Source,
    *,
    target: str = "",
    kind: TargetKind = "auto",
    val: Source | None = None,
    test: Source | None = None,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    batch: int = 128,
    seed: int = 0,
    drop: Sequence[str] = (),
    allow: Sequence[str] = (),
) -> MemoryData:
    """Read a table, check it, split it and encode it; batches have 'numeric', 'categorical' and 'y' as TableSpec says.

    `source` is a path, a DataFrame or a built-in set's name. `target` is the column to predict ('' chooses and says so), `kind`
    overrules what it is. `val` and `test` are the user's own rows for these splits; otherwise `fractions` of the rows,
    stratified by class. `drop` leaves columns out, `allow` overrules guards (checks.ALLOW). Every choice is in `summary.notes`.
    Raises DataError when the table cannot be read or would teach nothing, ConfigError on a knob.
    """
    checks.check_allow(allow)
    check_fractions(fractions)
    main = load_rows(source)
    names = list(main.frame.columns)
    target, notes = choose_target(names, target or main.target, main.name)
    notes = [*main.notes, *notes]
    for name in drop:
        if name == target:
            raise DataError(f"drop={name}: that is the target; leave out another column, or set target=")
        if name not in names:
            known = [n for n in names if n != target]
            near, there = did_you_mean(name, known), ", ".join(known[:12])
            raise DataError(f"drop={name}: {main.name} has no such input column{near}; it has {there}")
    frame = with_target(main, target, notes, True if kind == "regression" else None)
    notes += checks.check_size(len(frame), main.name, allow)
    columns, said = find_columns(frame.drop(columns=[target, *drop]))
    notes += said
    if not columns:
        raise DataError(
            f"{main.name} has no usable input column beside {target!r}: {'; '.join(n.text for n in said) or 'add a column'}"
        )
    frame: Any  # pandas' own annotations would make every selection a Series or a DataFrame
    frame, said, loose = _clean(frame, columns, main.name, allow)
    notes += said
    problem, said = choose_kind(frame[target], kind)
    frame = clean_target(frame, target, problem, main.name)
    notes += said + checks.check_leaks(frame[[c.name for c in columns]], frame[target], allow)

    known = class_names(frame[target]) if problem == "classification" else ()
    numeric = problem == "regression" or are_numbers(known)
    text = [c.name for c in columns if c.kind != "number"] + [target] * (not numeric)
    files = Known(tuple(text), target if "None" in known else "", main.layout.decimal)
    given = {s: one for s, one in (("val", val), ("test", test)) if one is not None and not _is_empty(one)}
    own = {split: load_rows(one, files) for split, one in given.items()}
    if main.test is not None and "test" not in own:
        own["test"] = Loaded(f"{main.name} (test)", main.test, frame_sha256(main.test))
    frames: dict[str, Any] = {}
    for split, loaded in own.items():
        notes += [Note(note.level, f"{loaded.name}: {note.text}") for note in loaded.notes]
        if absent := [c.name for c in columns if c.name not in loaded.frame.columns]:
            raise DataError(f"{loaded.name} has no column {absent[0]!r}{did_you_mean(absent[0], loaded.frame.columns)}")
        there = with_target(loaded, target, notes, numeric)
        for column in columns:
            if column.kind == "number" and (bad := numbers(there[column.name])[1]).any():
                text = f"column {column.name!r} of {loaded.name}: {bad.sum():,} cells are no numbers and are taken as missing"
                notes.append(Note("warning", text))
        frames[split], said, more = _clean(there, columns, loaded.name, allow)
        notes, loose = notes + said, loose | more
        frames[split] = clean_target(frames[split], target, problem, loaded.name, known)
    labels = frame[target] if problem == "classification" else None
    if labels is not None:
        for split in own:
            notes += checks.check_same_classes(list(labels.unique()), list(frames[split][target].unique()), split)
        notes += checks.order_notes(labels)
    shares = [0.0 if split in own else f for split, f in zip(("train", "val", "test"), fractions, strict=True)]
    parts = split_rows(len(frame), labels, [f / sum(shares) for f in shares], seed)
    frames |= {split: frame.iloc[index] for split, index in parts.items() if len(index)}
    rows = {split: frame.index.to_numpy() + 1 for split, frame in frames.items()}  # numbers in the source
    frames = {split: frames[split].reset_index(drop=True) for split in ("train", "val", "test") if split in frames}

    about: dict[str, Any] = {"target": target, "problem": problem, "decimal": main.layout.decimal}
    if problem == "classification":
        counts = checks.check_classes(frames["train"][target], f"the target {target!r}")
        about["classes"] = class_names(pd.concat([f[target] for f in frames.values()]))
        about["class_counts"] = tuple(counts.get(c, 0) for c in about["classes"])
        notes += checks.balance_notes(counts)
    else:
        y = frames["train"][target].to_numpy(np.float64)
        checks.check_varies(y, f"the target {target!r}")
        about |= {"target_mean": float(y.mean()), "target_std": float(y.std())}
    spec = fit_spec(frames["train"], [replace(c, loose=c.name in loose) for c in columns], **about)
    notes += duplicates_across({s: row_hashes(_comparable(f, spec)) for s, f in frames.items()}).notes(rows)
    summary = _summary(main, frames, columns, spec, notes, [part.sha256 for part in own.values()])
    splits = {s: spec.encode(f) | {"y": spec.encode_target(f[target])} for s, f in frames.items()}
    return MemoryData(spec, summary, splits, batch=batch, seed=seed, raw=lambda split, rows: _row_dicts(frames[split], rows))


def _is_empty(source: Source) -> bool:
    return isinstance(source, str) and not source


def _clean(
    frame: pd.DataFrame, columns: Sequence[Column], where: str, allow: Sequence[str]
) -> tuple[pd.DataFrame, list[Note], set[str]]:
    """Number columns as float64, with NaN for words among them, what is to be said, and the columns that held words or
    infinite numbers. Raises DataError on infinite numbers unless they are allowed."""
    notes: list[Note] = []
    made, loose = {}, set()
    for column in columns:
        if column.kind == "number":
            values, bad = numbers(frame[column.name])
            notes += checks.check_finite(values, f"column {column.name!r} of {where}", allow, frame.index)
            infinite = np.abs(values) > checks.LARGEST
            made[column.name] = np.where(infinite, np.nan, values)
            if bad.any() or infinite.any():
                loose.add(column.name)
    return frame.assign(**made), notes, loose


def _comparable(frame: Any, spec: TableSpec) -> Any:
    """The columns in use, spelt the same in files that were read with other types."""
    spelt = {name: category_words(frame[name], spec.columns[name], known) for name, known in spec.categories.items()}
    return frame.assign(**spelt)[[*spec.columns, spec.target]]


def _row_dicts(frame: pd.DataFrame, rows: list[int]) -> list[dict[str, Any]]:
    """Rows as {column: plain Python value}, None where missing, dates in ISO form."""
    return [{str(k): _plain(v) for k, v in row.items()} for row in frame.iloc[rows].to_dict("records")]


def _plain(cell: Any) -> Any:
    if cell is None or cell is pd.NaT or cell is pd.NA or (isinstance(cell, float) and np.isnan(cell)):
        return None
    return cell.isoformat() if isinstance(cell, pd.Timestamp) else cell


def _summary(
    main: Loaded,
    frames: dict[str, Any],
    columns: Sequence[Column],
    spec: TableSpec,
    notes: list[Note],
    more: list[str],
) -> Summary:
    kinds = [c.kind for c in columns]
    inputs = ", ".join(f"{kinds.count(k)} {k}" for k in dict.fromkeys(kinds))
    total = sum(map(len, frames.values()))
    what = f"{len(spec.classes)} classes" if spec.classes else "a number"
    facts: dict[str, Any] = {
        "format": main.format,
        "target": spec.target,
        "problem": spec.problem,
        "columns": [{"name": c.name, "kind": c.kind, "missing": c.missing, "distinct": c.distinct} for c in columns],
    }
    if spec.classes:
        facts["classes"] = list(spec.classes)
        facts["balance"] = {
            split: {name: int((frame[spec.target] == name).sum()) for name in spec.classes} for split, frame in frames.items()
        }
        facts["majority"] = max(spec.class_counts) / sum(spec.class_counts)
    else:
        facts["target_mean"], facts["target_std"] = spec.target_mean, spec.target_std
    digest = hashlib.sha256("\n".join([main.sha256, *more]).encode()).hexdigest() if more else main.sha256
    many = f"{len(columns)} input{'s' * (len(columns) != 1)}"
    title = f"{main.name}: {total:,} rows, {many} ({inputs}), predicting {spec.target} ({what})"
    return Summary(title, {split: len(frame) for split, frame in frames.items()}, facts, tuple(notes), digest)
