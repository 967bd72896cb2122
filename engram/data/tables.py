"""A table (CSV, JSON lines, Parquet, DataFrame or a built-in set) as data in memory: read, checked, split, encoded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from engram.core.data import Note, Summary
from engram.core.errors import DataError, did_you_mean
from engram.data import checks
from engram.data.columns import Column, find_columns, numbers, words
from engram.data.memory import MemoryData
from engram.data.split import check_fractions, duplicates_across, split_rows
from engram.data.table_fit import fit_spec
from engram.data.table_rows import Loaded, Source, frame_sha256, load_rows, row_hashes
from engram.data.table_spec import TableSpec
from engram.data.targets import TargetKind, choose_kind, choose_target, class_names

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
    own = {s: load_rows(given) for s, given in (("val", val), ("test", test)) if given is not None and not _is_empty(given)}
    if main.test is not None and "test" not in own:
        own["test"] = Loaded(f"{main.name} (test)", main.test, frame_sha256(main.test))
    names = list(main.frame.columns)
    target, notes = choose_target(names, target or main.target, main.name)
    notes = [*main.notes, *notes]
    for name in drop:
        if name == target:
            raise DataError(f"drop={name}: that is the target; leave out another column, or set target=")
        if name not in names:
            known = [n for n in names if n != target]
            raise DataError(f"drop={name}: {main.name} has no such input column{did_you_mean(name, known)}")
    frame = _with_target(main, target, notes)
    notes += checks.check_size(len(frame), main.name, allow)
    columns, said = find_columns(frame.drop(columns=[target, *drop]))
    notes += said
    if not columns:
        raise DataError(
            f"{main.name} has no usable input column beside {target!r}: {'; '.join(n.text for n in said) or 'add a column'}"
        )
    frame: Any  # pandas' own annotations would make every selection a Series or a DataFrame
    frame, said = _clean(frame, columns, main.name, allow)
    notes += said
    problem, said = choose_kind(frame[target], kind)
    frame = _clean_target(frame, target, problem, main.name)
    notes += said + checks.check_leaks(frame[[c.name for c in columns]], frame[target], allow)

    frames: dict[str, Any] = {}
    for split, loaded in own.items():
        if absent := [c.name for c in columns if c.name not in loaded.frame.columns]:
            raise DataError(f"{loaded.name} has no column {absent[0]!r}{did_you_mean(absent[0], loaded.frame.columns)}")
        there = _with_target(loaded, target, notes)
        for column in columns:
            if column.kind == "number" and (bad := numbers(there[column.name])[1]).any():
                text = f"column {column.name!r} of {loaded.name}: {bad.sum():,} cells are no numbers and are taken as missing"
                notes.append(Note("warning", text))
        frames[split], said = _clean(there, columns, loaded.name, allow)
        notes += said
        frames[split] = _clean_target(frames[split], target, problem, loaded.name)
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

    about: dict[str, Any] = {"target": target, "problem": problem}
    if problem == "classification":
        counts = checks.check_classes(frames["train"][target], f"the target {target!r}")
        about["classes"] = class_names(pd.concat([f[target] for f in frames.values()]))
        about["class_counts"] = tuple(counts.get(c, 0) for c in about["classes"])
        notes += checks.balance_notes(counts)
    else:
        y = frames["train"][target].to_numpy(np.float64)
        checks.check_varies(y, f"the target {target!r}")
        about |= {"target_mean": float(y.mean()), "target_std": float(y.std())}
    spec = fit_spec(frames["train"], columns, **about)
    used = [*spec.columns, target]
    notes += duplicates_across({s: row_hashes(f[used]) for s, f in frames.items()}).notes(rows)
    summary = _summary(main, frames, columns, spec, notes, [part.sha256 for part in own.values()])
    splits = {s: spec.encode(f) | {"y": spec.encode_target(f[target])} for s, f in frames.items()}
    return MemoryData(spec, summary, splits, batch=batch, seed=seed, raw=lambda split, rows: _row_dicts(frames[split], rows))


def _is_empty(source: Source) -> bool:
    return isinstance(source, str) and not source


def _with_target(loaded: Loaded, target: str, notes: list[Note]) -> Any:
    """The rows that have a target; how many have not is said in `notes`."""
    frame = loaded.frame
    if target not in frame.columns:
        raise DataError(f"{loaded.name} has no column {target!r}{did_you_mean(target, frame.columns)}")
    there = words(frame[target]).notna().to_numpy()
    if not there.any():
        raise DataError(f"the target {target!r} is empty in every row of {loaded.name}")
    if not there.all():
        notes.append(Note("warning", f"{loaded.name}: {(~there).sum():,} rows without a target ({target!r}) are left out"))
    return frame[there]


def _clean(frame: pd.DataFrame, columns: Sequence[Column], where: str, allow: Sequence[str]) -> tuple[pd.DataFrame, list[Note]]:
    """Number columns as float64, with NaN for words among them; infinite numbers stop here."""
    notes: list[Note] = []
    made = {}
    for column in columns:
        if column.kind == "number":
            values = numbers(frame[column.name])[0]
            notes += checks.check_finite(values, f"column {column.name!r} of {where}", allow, frame.index)
            made[column.name] = np.where(np.abs(values) > checks.LARGEST, np.nan, values)
    return frame.assign(**made), notes


def _clean_target(frame: pd.DataFrame, target: str, kind: str, where: str) -> Any:
    """The target as class names or finite float64."""
    if kind == "classification":
        return frame.assign(**{target: words(frame[target])})
    values, bad = numbers(frame[target])
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(
            f"data row {frame.index[row] + 1} of {where}: the target {target!r} is {frame[target].iloc[row]!r}, not a number"
        )
    checks.check_finite(values, f"the target {target!r} of {where}", (), frame.index)
    there = ~np.isnan(values)
    return frame.assign(**{target: values})[there]


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
