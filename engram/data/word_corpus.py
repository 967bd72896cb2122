"""A corpus as word numbers: text files read line by line, words counted, rare ones left out, long lines cut."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engram.core.data import Note
from engram.core.errors import DataError, did_you_mean
from engram.data.sources import BUILT_IN
from engram.data.text_rows import as_form
from engram.data.text_sets import read_set
from engram.data.word_spec import WordSpec, cut

LONGEST = 1000  # words of a sentence, as in word2vec.c: a text without line breaks is cut there
BUNDLED = "pydoc"
SUFFIXES = (".txt", ".text", ".md", ".tokens", ".en")


@dataclass(frozen=True)
class Corpus:
    """`tokens` (words,) int32, sentence after sentence; `ends` (sentences,) int64: where each one ends."""

    spec: WordSpec
    tokens: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int64]
    title: str
    raw: int  # words of the text, rare ones included
    sha256: str
    notes: tuple[Note, ...]


def read_corpus(source: Any, *, min_count: int = 5, most: int = 0, lower: bool = True, spaces: bool = False) -> Corpus:
    """The text at `source`: a file, a folder of text files, or the training part of a built-in set. A line is a sentence.

    Words seen fewer than `min_count` times are left out of the text before windows are made, as word2vec.c does, and so are
    all but the `most` commonest (0: all). Raises DataError.
    """
    numbers: defaultdict[str, int] = defaultdict()
    numbers.default_factory = numbers.__len__
    flat, lengths, digest = array("i"), array("q"), hashlib.sha256()
    lines, notes = _text(source)
    for line in lines:
        digest.update(line.encode())
        words = cut(line, lower, spaces)
        flat.extend([numbers[word] for word in words])
        lengths.append(len(words))
    seen = np.frombuffer(flat, np.int32) if len(flat) else np.zeros(0, np.int32)
    counts = np.bincount(seen, minlength=len(numbers))
    order = np.argsort(-counts, kind="stable")
    order = order[counts[order] >= min_count][: most or None]
    what = f"the text of {source or BUNDLED}"
    if not len(seen):
        raise DataError(f"{what} holds no words; give a file or folder with text")
    if len(order) < 2:
        common = int(counts.max())
        raise DataError(
            f"{what} has {len(seen):,} words, but fewer than two different ones come {min_count} times or more (the commonest "
            f"comes {common} times); set min_count lower or give more text"
        )
    renamed = np.full(len(counts), -1, np.int32)
    renamed[order] = np.arange(len(order), dtype=np.int32)
    tokens = renamed[seen]
    held = tokens >= 0
    sentence = np.repeat(np.arange(len(lengths)), np.frombuffer(lengths, np.int64))[held]
    names = list(numbers)
    spec = WordSpec(words=tuple(names[n] for n in order), counts=tuple(counts[order].tolist()), lower=lower, spaces=spaces)
    if len(seen) < 1_000_000:
        few = f"{len(seen):,} words are few: vectors of words seen only some times will mean little"
        notes = (*notes, Note("info", few))
    title = f"{Path(source).name if source else BUNDLED}: {len(seen):,} words, {len(order):,} of them different with a vector"
    return Corpus(spec, tokens[held], _ends(sentence), title, len(seen), digest.hexdigest(), notes)


def _ends(sentence: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Where sentences end, given the sentence of each word; those longer than LONGEST are cut."""
    change = np.flatnonzero(np.diff(sentence)) + 1
    starts = np.concatenate([[0], change])
    ends = np.concatenate([change, [len(sentence)]])
    long = np.flatnonzero(ends - starts > LONGEST)
    extra = [np.arange(starts[n] + LONGEST, ends[n], LONGEST) for n in long]
    return np.sort(np.concatenate([ends, *extra])).astype(np.int64)


def _text(source: Any) -> tuple[Iterable[str], tuple[Note, ...]]:
    """The lines of the corpus, and what is to be said about it."""
    if source in ("", BUNDLED):
        from pydoc_data import topics

        return "\n\n".join(topics.topics.values()).splitlines(), ()
    if not isinstance(source, (str, os.PathLike)):
        raise DataError(f"word vectors learn from a text file or a folder of them, not from {type(source).__name__}")
    path = Path(source).expanduser()
    if isinstance(source, str) and source.partition(":")[0] in BUILT_IN and not path.exists():
        texts = as_form(read_set(source), "corpus", source)
        return (line for row in texts.splits["train"] for line in row["text"].splitlines()), texts.notes
    return (line for found in files(path) for line in read_lines(found)), ()


def files(path: Path) -> list[Path]:
    """The text files at a path, sorted. Raises DataError when there is none."""
    if path.is_file():
        return [path]
    if not path.exists():
        near = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        sets = [name for name, known in BUILT_IN.items() if known.kind == "text"]
        hint = did_you_mean(path.name, [*near, *sets])
        raise DataError(f"there is no file, folder or built-in set of texts {path}{hint}")
    found = sorted(p for p in path.rglob("*") if p.is_file() and (p.suffix.lower() in SUFFIXES))
    if not found:
        raise DataError(f"the folder {path} holds no text files ({', '.join(SUFFIXES)})")
    return found


def read_lines(path: Path) -> Iterable[str]:
    """The lines of a UTF-8 file. Raises DataError that names the line that is not."""
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                try:
                    yield line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    where = f"{path}, line {number}"
                    raise DataError(f"{where}: not UTF-8 text ({error.reason}); convert the file to UTF-8") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
