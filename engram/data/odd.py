"""Classes kept out of training, so that a network that has never seen them can be asked whether it finds them odd."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from engram.core.data import Data, Note
from engram.core.errors import ConfigError, did_you_mean
from engram.data.memory import MemoryData
from engram.data.stream import StreamData


def odd_classes(classes: Sequence[str], odd: str = "", normal: str = "") -> tuple[str, ...]:
    """The names of the odd classes: those listed in `odd`, or all but those in `normal`, split at commas; () for neither.

    Raises ConfigError on both, on an unknown name, and when nothing or everything would be odd.
    """
    if not odd and not normal:
        return ()
    knob, given = ("odd", odd) if odd else ("normal", normal)
    if odd and normal:
        raise ConfigError(f"odd={odd} and normal={normal} say the same thing in two ways; give one of them")
    if not classes:
        raise ConfigError(f"{knob}={given} names classes, and these pictures have none; give a folder per class")
    names = [name.strip() for name in given.split(",") if name.strip()]
    for name in names:
        if name not in classes:
            raise ConfigError(f"{knob}={given}: no class {name!r}{did_you_mean(name, classes)}; there are {_some(classes)}")
    found = tuple(c for c in classes if (c in names) == bool(odd))
    if not found or len(found) == len(classes):
        raise ConfigError(f"{knob}={given} makes {'every' if found else 'no'} class odd; some must be normal and some odd")
    return found


def without(data: Data, odd: Sequence[str]) -> Data:
    """The same pictures less those of the classes `odd` in training and validation; the test split keeps them.

    Raises ConfigError when no picture is left to train on.
    """
    if not odd:
        return data
    assert isinstance(data, (MemoryData, StreamData))
    classes: tuple[str, ...] = data.spec.classes  # type: ignore[attr-defined]
    numbers = torch.tensor([classes.index(name) for name in odd])
    held: dict[str, Any] = data.splits if isinstance(data, MemoryData) else data.files
    labels = {s: data.splits[s]["y"] if isinstance(data, MemoryData) else (data.labels or {})[s] for s in held}
    rows = {s: (~torch.isin(y, numbers) | (s == "test")).nonzero()[:, 0] for s, y in labels.items()}
    left_out = sum(len(labels[s]) - len(rows[s]) for s in rows)
    if not len(rows["train"]):
        raise ConfigError(f"without {_some(odd)} there is no picture left to train on")
    note = Note("info", f"{left_out:,} pictures of {_some(odd)} are kept out of training and validation as the odd ones")
    counts = data.summary.rows | {s: len(index) for s, index in rows.items()}
    summary = dataclasses.replace(data.summary, rows=counts, notes=(*data.summary.notes, note))

    theirs, spec = data._names, data.spec  # and not `data`, which would keep all its pictures in memory

    def names(split: str, wanted: list[int]) -> list[str]:
        assert theirs is not None
        return theirs(split, [int(rows[split][r]) for r in wanted])

    if isinstance(data, StreamData):
        files = {s: [data.files[s][int(r)] for r in index] for s, index in rows.items()}
        kept = {s: labels[s][index] for s, index in rows.items()}
        return StreamData(
            spec, summary, files, kept, load=data.load, batch=data.batch, seed=data.seed, transform=data.transform,
            raw=lambda split, wanted: data.raw(split, [int(rows[split][r]) for r in wanted]), names=names if theirs else None,
            workers=data.workers, depth=data.depth,
        )  # fmt: skip
    splits = {s: data.splits[s] if s == "test" else {n: t[rows[s]] for n, t in data.splits[s].items()} for s in rows}
    made = MemoryData(
        spec, summary, splits, batch=data.batch, seed=data.seed, transform=data.transform, names=names if theirs else None,
        raw=lambda split, wanted: [spec.picture(made.splits[split]["x"][r]) for r in wanted],  # type: ignore[attr-defined]
    )  # fmt: skip
    return made


def _some(names: Sequence[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
