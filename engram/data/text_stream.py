"""A corpus that is larger than memory, piece by piece: the same documents and the same split as `read_texts` gives."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

from engram.data.text_decode import BLOCK, Scan, blocks, scan
from engram.data.text_files import COLUMNS, TABLES
from engram.data.text_folders import corpus_files
from engram.data.text_split import MANY, document_split

Piece = tuple[Path, Scan, int, int]  # a file, and which of its characters


def stream_files(data: object) -> dict[str, list[Path]] | None:
    """The plain text files of a corpus by split; None when it has to be read whole (tables, rows in Python, built-in sets)."""
    if not isinstance(data, (str, os.PathLike)) or not (path := Path(data).expanduser()).exists():
        return None
    if path.is_dir():
        return corpus_files(path)
    kind = Path(path.name.lower().removesuffix(".gz")).suffix
    return None if kind in (*TABLES, *COLUMNS) else {"train": [path]}


def stream_documents(
    files: dict[str, list[Path]], split: str, size: int = BLOCK, seed: int = 0, val: float = 0.1, encoding: str = ""
) -> Iterator[Iterator[str]]:
    """The documents of a split, each as pieces of at most `size` characters; memory is bounded by `size` and a block.

    Each file is read twice: once for its encoding and length, once for its characters. Raises DataError as `scan` does.
    """
    if split not in files and not (split == "val" and val):
        return
    scans = [(p, scan(p, encoding)) for p in files[split if split in files else "train"]]
    whole: list[Piece] = [(p, s, 0, s.characters) for p, s in scans if not s.blank]
    if split in files and (split != "train" or "val" in files or not val):
        chosen = whole
    elif len(whole) >= MANY:
        chosen = [whole[i] for i in document_split(len(whole), seed, val)[split == "val"]]
    else:
        chosen = _by_position(whole, split == "val", 1 - val)
    for path, found, start, end in chosen:
        yield _range(blocks(path, found.encoding, size), start, end)


def _by_position(whole: Sequence[Piece], last: bool, share: float) -> list[Piece]:
    ends = list(accumulate(piece[3] for piece in whole))
    cut = int((ends[-1] if ends else 0) * share)
    pieces: list[Piece] = []
    for (path, found, _, length), end in zip(whole, ends, strict=True):
        inside = min(max(cut - (end - length), 0), length)  # of this file, for train
        pieces.append((path, found, inside, length) if last else (path, found, 0, inside))
    return [piece for piece in pieces if piece[3] > piece[2]]


def _range(pieces: Iterator[str], start: int, end: int) -> Iterator[str]:
    """The characters from `start` to `end` of a text that comes in pieces."""
    place = 0
    for piece in pieces:
        part = piece[max(start - place, 0) : max(end - place, 0)]
        if part:
            yield part
        place += len(piece)
        if place >= end:
            return
