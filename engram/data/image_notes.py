"""What the user should know about a set of images before training: classes, balance, files left out, copies across splits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from engram.core.data import Note, Summary
from engram.core.errors import DataError
from engram.data.checks import balance_notes, check_same_classes, check_size
from engram.data.folders import LAYOUT, Listing
from engram.data.image_spec import ImageSpec
from engram.data.split import duplicates_across
from engram.data.survey import Survey


def class_names(listing: Listing, names: np.ndarray, belongs: np.ndarray, least: int = 2) -> tuple[tuple[str, ...], list[Note]]:
    """Classes in order (numbers by value) of readable images, given their class and split; a class may be in test only.

    Raises DataError when the training images are of fewer than `least` classes, or another split shares no class with them.
    """
    train = sorted({str(n) for n, split in zip(names, belongs, strict=True) if split in ("", "train")})
    if len(train) < least:
        found = f"one class only ({train[0]!r})" if train else "no images that can be read"
        raise DataError(f"{listing.root} has {found} to train on: there is nothing to tell apart; images need {LAYOUT}")
    notes = []
    for split in ("val", "test") if least > 1 else ():
        notes += check_same_classes(train, sorted({str(n) for n in names[belongs == split]}), split)
    if lost := sorted({n for labels in listing.labels.values() for n in labels} - set(names)):
        notes.append(Note("warning", f"no image of {', '.join(lost[:5])} can be read: left out of the classes"))
    return tuple(sorted({str(n) for n in names}, key=_natural)), notes


def folder_notes(listing: Listing, seen: Survey, rows: dict[str, np.ndarray], labels: np.ndarray) -> list[Note]:
    """Files left out, copies across splits and under two classes, and the shape."""
    notes = [Note("info", seen.note)]
    if bad := seen.unreadable:
        total = len(bad) + len(seen.files)
        shown = _some(listing.name(path) for path, _ in bad)
        notes.append(Note("warning", f"{len(bad):,} of {total:,} images cannot be read and are left out: {shown}"))
    if listing.others:
        shown = _some(listing.name(p) for p in listing.others)
        notes.append(Note("info", f"{len(listing.others):,} files are no images and are left out: {shown}"))
    if listing.loose:
        shown = _some(listing.name(p) for p in listing.loose)
        notes.append(Note("warning", f"{len(listing.loose):,} images outside class folders are left out: {shown}"))
    if listing.ignored:
        notes.append(Note("warning", f"beside train/ these folders are left out: {_some(listing.ignored)}"))
    return notes + _copies(listing, seen, rows) + _contradictions(listing, seen, labels)


def image_summary(
    name: str, spec: ImageSpec, rows: dict[str, np.ndarray], labels: np.ndarray, sha256: str, notes: Sequence[Note] = ()
) -> Summary:
    """'digits: 1,797 images 8x8x1 in 10 classes', with rows and classes counted. Raises DataError below 3 images."""
    total = sum(map(len, rows.values()))
    counted = np.bincount(labels, minlength=len(spec.classes)) if spec.classes else ()
    by_class = {c: int(n) for c, n in zip(spec.classes, counted, strict=True)}
    more = check_size(total, name, allow=("tiny",)) + (balance_notes(by_class) if by_class else [])
    classes = f" in {len(spec.classes)} classes" if spec.classes else ""
    if "test" not in rows:
        more.append(Note("info", "there is no test split: the last figures are those of val"))
    return Summary(
        title=f"{name}: {total:,} images {spec.height}x{spec.width}x{spec.channels}" + classes,
        rows={split: len(index) for split, index in rows.items()},
        facts={"classes": by_class, "bytes": total * spec.channels * spec.height * spec.width},
        notes=(*notes, *more),
        sha256=sha256,
    )


def _copies(listing: Listing, seen: Survey, rows: dict[str, np.ndarray]) -> list[Note]:
    """Images of val and test whose decoded pixels are also in train."""
    found = duplicates_across({split: [seen.hashes[r] for r in index] for split, index in rows.items()})
    parts = [f"{n:,} of {found.sizes[s]:,} {s} images ({n / found.sizes[s]:.1%})" for s, n in found.counts.items() if n]
    if not parts:
        return []
    shown = ", ".join(
        f"{listing.name(seen.files[rows[split][row]])} = {listing.name(seen.files[rows['train'][twin]])}"
        for split, row, twin in found.examples
    )
    return [Note("warning", f"{' and '.join(parts)} are exact copies of train images, so the score flatters; e.g. {shown}")]


def _contradictions(listing: Listing, seen: Survey, labels: np.ndarray) -> list[Note]:
    """The same pixels under two classes."""
    first: dict[bytes, int] = {}
    pairs = [
        (row, first[key])
        for row, key in enumerate(seen.hashes)
        if first.setdefault(key, row) != row and labels[first[key]] != labels[row]
    ]
    if not pairs:
        return []
    shown = _some(f"{listing.name(seen.files[a])} = {listing.name(seen.files[b])}" for a, b in pairs)
    return [Note("warning", f"{len(pairs):,} images are under two classes at once, which cannot be learned; e.g. {shown}")]


def _some(names: Iterable[str], most: int = 5) -> str:
    names = list(names)
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")


def _natural(name: str) -> tuple[bool, int, str]:
    return (False, int(name), name) if name.isascii() and name.isdigit() else (True, 0, name)
