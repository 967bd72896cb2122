"""Labelled and tagged texts made of Python's own reference manual, which every Python carries: they need no network.

They are for trying things out: small, in one author's English, and with answers that follow from the manual's own marks.
"""

from __future__ import annotations

import re

from engram.data.text_rows import Row, Texts, sha256_of_rows
from engram.data.vocabulary import split_words

TOPICS = {
    "compound": "compound statements",
    "types": "data model",
    "specialnames": "special methods",
    "formatstrings": "format strings",
    "string-methods": "string methods",
    "debugger": "debugger",
}
FEWEST, MOST = 5, 60  # words of a paragraph
_CODE = re.compile(r'"([^"\n]+)"')


def pydoc_topics() -> Texts:
    """Paragraphs of the manual, labelled by the chapter that they stand in."""
    rows: list[Row] = []
    for name, title in TOPICS.items():
        rows += [{"text": " ".join(p.split()), "label": title} for p in _paragraphs(name) if len(p.split()) >= FEWEST]
    rows = list({r["text"]: r for r in rows}.values())
    return Texts("labelled", {"train": rows}, "", sha256_of_rows({"train": rows}))


def pydoc_code() -> Texts:
    """Paragraphs of prose, in which what the manual sets in quotation marks, its code, is tagged; the marks are taken away."""
    rows: list[Row] = []
    for name in TOPICS:
        for paragraph in _paragraphs(name):
            text = " ".join(paragraph.split())
            if paragraph.startswith((" ", "*", "|", "+")) or text.count('"') % 2 or not FEWEST <= len(text.split()) <= MOST:
                continue
            words: list[str] = []
            tags: list[str] = []
            for number, piece in enumerate(_CODE.split(text)):
                found = split_words(piece)
                words += found
                tags += (["B-code"] + ["I-code"] * (len(found) - 1))[: len(found)] if number % 2 else ["O"] * len(found)
            rows.append({"words": words, "tags": tags})
    rows = list({" ".join(r["words"]): r for r in rows}.values())
    return Texts("tagged", {"train": rows}, "", sha256_of_rows({"train": rows}), facts={"scheme": "BIO"})


def _paragraphs(name: str) -> list[str]:
    from pydoc_data.topics import topics

    return [p.strip("\n") for p in re.split(r"\n\s*\n", topics[name]) if p.strip()]
