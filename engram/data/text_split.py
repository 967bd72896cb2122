"""From rows as they were read to rows to train on: empty ones dropped, missing splits cut, copies across splits counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from engram.core.data import Note
from engram.core.errors import ConfigError, DataError
from engram.data.split import SPLITS, duplicates_across, split_rows
from engram.data.text_rows import NOUN, Row, Texts, counted, is_empty, plain

MANY = 20  # documents from which a corpus is split by document
SHOWN = 3


def finish(texts: Texts, name: str, seed: int = 0, val: float = 0.1, test: float = 0.1) -> Texts:
    """Drop empty rows, cut the splits that the source does not have, count classes and copies, and write the title.

    Raises DataError when no rows are left or all have one label, ConfigError on shares that leave nothing to train on.
    """
    check_shares(val, test)
    form, noun, notes = texts.form, NOUN[texts.form], list(texts.notes)
    splits = {s: [r for r in texts.splits[s] if not is_empty(r, form)] for s in SPLITS if s in texts.splits}
    dropped = sum(map(len, texts.splits.values())) - sum(map(len, splits.values()))
    if dropped:
        notes.append(Note("warning", f"{counted(dropped, f'empty {noun}')} left out"))
    if not splits.get("train"):
        empty = f"only empty {noun}s" if dropped else f"no {noun}s"
        raise DataError(f"{name} holds {empty}{' in train' if len(splits) > 1 else ''}; there is nothing to train on")
    splits = {s: rows for s, rows in splits.items() if rows}
    _check_characters(splits, form, name)
    facts = {**texts.facts, "form": form}
    if form == "labelled":
        _check_labels(Counter(r["label"] for r in splits["train"]), splits, name, notes)
    whole = len(splits["train"])
    splits, how = _cut(splits, form, seed, val, test, noun)
    if how:
        facts["split"] = how
    if form == "labelled":
        facts["classes"] = dict(sorted(Counter(r["label"] for r in splits["train"]).items()))
    if form == "tagged":
        facts["tags"] = dict(sorted(Counter(t for r in splits["train"] for t in r["tags"]).items()))
    if len(splits) > 1 and whole > 1:
        keys = {s: [_key(r, form) for r in rows] for s, rows in splits.items()}
        notes += [Note(n.level, n.text.replace(" rows", f" {noun}s")) for n in duplicates_across(keys).notes()]
    rows = sum(map(len, splits.values())) if not how.startswith("by position") else whole
    characters = sum(len(plain(r, form)) for part in splits.values() for r in part)
    facts |= {"rows": {s: len(r) for s, r in splits.items()}, "characters": characters}
    classes = f" in {counted(len(facts['classes']), 'class').replace('classs', 'classes')}" if form == "labelled" else ""
    title = f"{texts.title or name}: {counted(rows, noun)}{classes}, {characters:,} characters"
    return replace(texts, splits=splits, title=title, notes=tuple(notes), facts=facts)


def check_shares(val: float, test: float) -> None:
    """Raises ConfigError unless both are shares and leave something to train on."""
    if not 0 <= val < 1 or not 0 <= test < 1 or val + test >= 1:
        raise ConfigError(f"val={val:g} and test={test:g} must be shares from 0 that leave some for train, such as 0.1 and 0.1")


def _check_characters(splits: dict[str, list[Row]], form: str, name: str) -> None:
    """JSON and Python can hold half a character, which no file and no tokenizer can."""
    for split, rows in splits.items():
        for number, row in enumerate(rows, 1):
            try:
                plain(row, form).encode()
            except UnicodeEncodeError as error:
                half = ascii(error.object[error.start])
                raise DataError(f"{name}: {split} row {number} holds half a character ({half}); mend or remove it") from None


def _check_labels(classes: Counter[str], splits: dict[str, list[Row]], name: str, notes: list[Note]) -> None:
    if len(classes) == 1:
        raise DataError(f"every text of {name} has the label {next(iter(classes))!r}; a classifier needs two or more classes")
    rows = sum(classes.values())
    if len(classes) == rows and rows > 2:
        raise DataError(f"{name} has {rows:,} texts and as many labels; name the right column with label=COLUMN")
    rare = [c for c, n in classes.items() if n == 1]
    if rare:
        shown = ", ".join(map(repr, rare[:SHOWN]))
        notes.append(Note("warning", f"{counted(len(rare), 'label')} with a single text each cannot be tested: {shown}"))
    new = sorted({r["label"] for s in splits if s != "train" for r in splits[s]} - set(classes))
    if new:
        raise DataError(
            f"{name}: the label {new[0]!r} is in another split but not in train, so it cannot be learned; "
            "add texts of it to train, or remove it"
        )


def _cut(
    splits: dict[str, list[Row]], form: str, seed: int, val: float, test: float, noun: str
) -> tuple[dict[str, list[Row]], str]:
    """(splits, how they were cut: '' when the source has them all)."""
    train = splits["train"]
    if "val" in splits:
        return splits, ""
    if form == "corpus":
        if not val:
            return splits, ""
        if len(train) >= MANY:
            parts = document_split(len(train), seed, val)
            return {"train": [train[i] for i in parts[0]], "val": [train[i] for i in parts[1]]} | _rest(splits), (
                f"{1 - val:.0%} of the documents for train, the others for val, seed {seed}"
            )
        kept, held = _by_position([r["text"] for r in train], 1 - val)
        return {"train": kept, "val": held} | _rest(splits), f"by position: the first {1 - val:.0%} of characters for train"
    if len(train) < 3 or not val + test:
        return splits, ""
    test = 0.0 if "test" in splits else test
    labels = [r["label"] for r in train] if form == "labelled" else None
    chosen = split_rows(len(train), labels, (1 - val - test, val, test), seed)
    new = {s: [train[i] for i in rows] for s, rows in chosen.items() if len(rows)}
    return new | _rest(splits), f"shuffled, {1 - val - test:.0%} train, {val:.0%} val, {test:.0%} test, seed {seed}"


def _rest(splits: dict[str, list[Row]]) -> dict[str, list[Row]]:
    return {s: rows for s, rows in splits.items() if s == "test"}


def document_split(n: int, seed: int, val: float) -> tuple[list[int], list[int]]:
    """Numbers of the train and val documents of a corpus of `n`, each in order; val is drawn by `seed`."""
    chosen = split_rows(n, None, (1 - val, val, 0.0), seed)
    return sorted(map(int, chosen["train"])), sorted(map(int, chosen["val"]))


def _by_position(texts: Sequence[str], share: float) -> tuple[list[Row], list[Row]]:
    """The first `share` of all characters, and the rest; the document at the border is cut in two."""
    left = int(sum(map(len, texts)) * share)
    kept: list[Row] = []
    held: list[Row] = []
    for text in texts:
        if left:
            kept.append({"text": text[:left]})
        if len(text) > left:
            held.append({"text": text[left:]})
        left = max(left - len(text), 0)
    return kept, held


def _key(row: Row, form: str) -> bytes:
    """What makes two rows copies: the text, whatever the label."""
    return plain(row, form).encode("utf-8", "surrogatepass")
