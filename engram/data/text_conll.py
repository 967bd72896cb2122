"""Tagged words in columns: a word and its tags on each line, an empty line after each sentence; every scheme becomes BIO.

BIO (IOB2): the first word of a span is B-kind, the others are I-kind. IOB1 (Ramshaw and Marcus 1995) writes B- only where
two spans of a kind touch; IOBES and BILOU mark the last and the single word of a span too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from engram.core.data import Note
from engram.core.errors import DataError
from engram.data.text_rows import Row, counted

_PREFIXED = re.compile(r"([A-Z])-(.+)")
_AS_BIO = {"B": "B", "I": "I", "S": "B", "U": "B", "E": "I", "L": "I"}


def parse_columns(text: str, name: str) -> tuple[list[Row], list[list[int]]]:
    """Sentences {"words", "tags"} and the line number of every word; the first column is the word, the last its tag.

    Columns are cut at tabs where there are any, else at spaces. Lines -DOCSTART- stand between documents and are left out.
    Raises DataError with the line when a line has another number of columns than the first.
    """
    rows: list[Row] = []
    places: list[list[int]] = []
    words: list[str] = []
    tags: list[str] = []
    lines: list[int] = []
    separator = "\t" if "\t" in text else None
    width = 0
    for number, line in enumerate([*text.split("\n"), ""], 1):
        line = line.rstrip("\r")
        if not line.strip() or line.startswith("-DOCSTART-"):
            if words:
                rows.append({"words": words, "tags": tags})
                places.append(lines)
                words, tags, lines = [], [], []
            continue
        cells = line.split(separator)
        width = width or len(cells)
        if len(cells) != width or width < 2 or not cells[0].strip() or not cells[-1].strip():
            missing = "no tag" if len(cells) < 2 else "an empty word or tag" if len(cells) == width else ""
            what = missing or f"{len(cells)} columns and the first has {width}"
            raise DataError(f"line {number} of {name} has {what} ({line.strip()[:40]!r}); each line is a word, then its tag")
        words.append(cells[0].strip())
        tags.append(cells[-1].strip())
        lines.append(number)
    return rows, places


def to_bio(rows: Sequence[Row], places: Sequence[Sequence[int]], name: str) -> tuple[list[Row], str, list[Note]]:
    """(rows with BIO tags, the scheme that was found, notes). Tags without prefixes, such as parts of speech, stay.

    Raises DataError with the line of the first tag when the prefixes belong to no known scheme.
    """
    prefixes: set[str] = set()
    plain, prefixed = "", ""
    for row, lines in zip(rows, places, strict=True):
        for tag, line in zip(row["tags"], lines, strict=True):
            match = _PREFIXED.fullmatch(tag)
            if match and match[1] not in _AS_BIO:
                prefixed = prefixed or f"{tag!r} (line {line})"
            elif match:
                prefixes.add(match[1])
            elif tag != "O":
                plain = plain or f"{tag!r} (line {line})"
    if not prefixes:  # parts of speech, or one tag per kind
        return list(rows), "plain", [Note("info", "the tags have no B- and I-: each word has a tag of its own, no spans")]
    if plain or prefixed:
        raise DataError(
            f"{name}: the tag {plain or prefixed} belongs to no known scheme; known are BIO (B-person, I-person, O), IOB1, "
            "IOBES and BILOU"
        )
    bio = [{**row, "tags": [_simple(t) for t in row["tags"]]} for row in rows]
    starts, stray, first = _starts(bio, places)
    if prefixes & set("SEUL"):
        scheme, notes = ("BILOU" if prefixes & set("UL") else "IOBES"), []
        notes.append(Note("info", f"the tags are in {scheme}; they were read as BIO"))
    elif stray and starts["B"] == starts["touching"]:
        scheme, notes = "IOB1", [Note("info", f"the tags are in IOB1; {counted(stray, 'I-')} at the start of a span became B-")]
    else:
        scheme, notes = "BIO", []
    if stray and scheme != "IOB1":
        text = f"{counted(stray, 'tag')} I- without a B- of its kind before, first on line {first}: read as B-; mend the file"
        notes.append(Note("warning", text))
    return [{**row, "tags": repair(row["tags"])} for row in bio], scheme, notes


def repair(tags: Sequence[str]) -> list[str]:
    """BIO tags in which every I- follows a tag of its kind: a stray I- becomes B-."""
    fixed: list[str] = []
    for tag in tags:
        before = fixed[-1][2:] if fixed and fixed[-1] != "O" else ""
        fixed.append(f"B-{tag[2:]}" if tag.startswith("I-") and tag[2:] != before else tag)
    return fixed


def _simple(tag: str) -> str:
    return tag if tag == "O" else f"{_AS_BIO[tag[0]]}{tag[1:]}"


def _starts(rows: Sequence[Row], places: Sequence[Sequence[int]]) -> tuple[dict[str, int], int, int]:
    """({B- tags, and those that touch a span of their kind}, I- tags that start a span, the line of the first)."""
    counts, stray, first = {"B": 0, "touching": 0}, 0, 0
    for row, lines in zip(rows, places, strict=True):
        before = "O"
        for tag, line in zip(row["tags"], lines, strict=True):
            same = before != "O" and before[2:] == tag[2:]
            if tag.startswith("B-"):
                counts["B"] += 1
                counts["touching"] += same
            elif tag.startswith("I-") and not same:
                stray, first = stray + 1, first or line
            before = tag
    return counts, stray, first
