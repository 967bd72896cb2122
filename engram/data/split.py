"""Train, validation and test rows: a shuffled, stratified, repeatable split, and a look for rows that are in two of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engram.core.data import Note
from engram.core.errors import ConfigError

SPLITS = ("train", "val", "test")


def split_rows(
    n: int, labels: Any = None, fractions: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0
) -> dict[str, np.ndarray]:
    """Row numbers of 'train', 'val' and 'test', shuffled; a pure function of its arguments.

    With `labels` (n class labels of any kind) every class is spread over the splits by its share and keeps at least one row in
    train, so a class of one row is only there. A wanted split gets at least one row when there are three or more.
    Raises ConfigError when the fractions are not three shares that sum to 1.
    """
    check_fractions(fractions)
    rng = np.random.default_rng(seed)
    order = np.argsort(rng.random(n), kind="stable")
    want = {s: max(round(n * f), 1 if n >= 3 else 0) if f else 0 for s, f in zip(SPLITS[1:], fractions[1:], strict=True)}
    if labels is None:
        cuts = np.cumsum([n - sum(want.values()), want["val"]])
        return dict(zip(SPLITS, np.split(order, cuts), strict=True))
    codes = np.unique(np.asarray(labels), return_inverse=True)[1].reshape(-1)[order]
    counts = np.bincount(codes)
    taken = np.zeros_like(counts)  # rows of each class already given away
    where = np.zeros(n, dtype=np.int64)  # of the shuffled rows: 0 train, 1 val, 2 test
    rows_of = np.split(np.argsort(codes, kind="stable"), np.cumsum(counts)[:-1])
    for number, split in enumerate(SPLITS[1:], 1):
        given = _apportion(want[split], counts, counts - 1 - taken, rng)
        for code in np.flatnonzero(given):
            where[rows_of[code][taken[code] : taken[code] + given[code]]] = number
        taken += given
    return {split: order[where == number] for number, split in enumerate(SPLITS)}


def check_fractions(fractions: Sequence[float]) -> None:
    """Raises ConfigError when `fractions` are not shares of train, val and test."""
    if len(fractions) != 3 or min(fractions) < 0 or fractions[0] == 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ConfigError(
            f"fractions={','.join(f'{f:g}' for f in fractions)} must be three shares for train, val and test that sum to 1, "
            "with some for train; for example 0.8,0.1,0.1"
        )


def _apportion(total: int, counts: np.ndarray, room: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`total` seats over classes in proportion to `counts` by largest remainder (Hamilton), at most `room` each."""
    room = np.maximum(room, 0)
    if total > room.sum():  # nearly every class has one row: no class can then be both learned and tested
        room = np.maximum(counts - (room < counts - 1), 0)
    share = counts * (total / counts.sum())
    given = np.minimum(np.floor(share).astype(np.int64), room)
    tie = rng.random(len(counts))
    for code in np.lexsort((tie, -(share - np.floor(share)))):
        if given.sum() >= total:
            break
        given[code] += given[code] < room[code]
    while given.sum() < min(total, room.sum()):
        code = int(np.argmax(room - given))
        given[code] += 1
    return given


@dataclass(frozen=True)
class Duplicates:
    """Rows of val and test that are also in train: how many, out of how many, and a few as (split, row, row of train)."""

    counts: dict[str, int]  # of every split but train
    sizes: dict[str, int]
    examples: tuple[tuple[str, int, int], ...]

    def notes(self, numbers: Mapping[str, Sequence[int] | np.ndarray] | None = None) -> list[Note]:
        """A warning when there are any; nothing is deleted. `numbers`: of the rows of each split in the source."""
        found = [f"{c:,} of {self.sizes[s]:,} {s} rows ({c / self.sizes[s]:.1%})" for s, c in self.counts.items() if c]
        if not found:
            return []
        names = numbers or {s: range(1, n + 1) for s, n in self.sizes.items()}
        shown = ", ".join(f"{s} row {names[s][row]} = train row {names['train'][twin]}" for s, row, twin in self.examples)
        return [Note("warning", f"{' and '.join(found)} are exact copies of train rows, so the score flatters; e.g. {shown}")]


def duplicates_across(splits: Mapping[str, np.ndarray | Sequence[bytes]], examples: int = 3) -> Duplicates:
    """Exact copies of 'train' rows in the other splits, by a 128-bit hash of each row.

    `splits` gives per split an array with one row per first index, or a list of bytes. One pass; 100,000 rows take well
    under a second.
    """
    seen: dict[bytes, int] = {}
    for row, key in enumerate(_keys(splits["train"])):
        seen.setdefault(key, row)
    counts: dict[str, int] = {}
    shown: list[tuple[str, int, int]] = []
    for split, rows in splits.items():
        if split == "train":
            continue
        twins = [(row, seen[key]) for row, key in enumerate(_keys(rows)) if key in seen]
        counts[split] = len(twins)
        shown += [(split, row, twin) for row, twin in twins[: examples - len(shown)]]
    return Duplicates(counts, {s: len(r) for s, r in splits.items()}, tuple(shown))


def _keys(rows: np.ndarray | Sequence[bytes]) -> list[bytes]:
    if isinstance(rows, np.ndarray):
        flat = np.ascontiguousarray(rows.reshape(len(rows), -1))
        if flat.dtype.kind == "f":
            flat = flat + 0.0  # -0.0 equals 0.0
        width = flat.dtype.itemsize * flat.shape[1]
        data = flat.tobytes()
        rows = [data[i * width : (i + 1) * width] for i in range(len(flat))]
    return [hashlib.blake2b(row, digest_size=16).digest() for row in rows]
