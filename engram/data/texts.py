"""Texts for language models, classifiers, taggers, translators and chat: built-in sets, the user's files, rows in Python.

Raw text in, plain rows out; nothing is tokenised here and nothing imports torch's tensors.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from engram.core.errors import ConfigError, DataError, did_you_mean
from engram.data.sources import BUILT_IN
from engram.data.text_files import from_python, missing, read_file, two_files
from engram.data.text_folders import read_folder
from engram.data.text_rows import FORMS, Form, Row, Texts, as_form, check_form
from engram.data.text_sets import is_set, read_set
from engram.data.text_split import check_shares, finish
from engram.data.text_stream import stream_documents, stream_files
from engram.data.text_tables import Names

__all__ = ["FORMS", "Form", "Row", "Texts", "corpus_chunks", "corpus_documents", "read_texts"]

CHUNK = 1 << 20  # characters


def read_texts(
    data: Any,
    form: str = "",
    *,
    text: str = "",
    label: str = "",
    source: str = "",
    target: str = "",
    encoding: str = "",
    seed: int = 0,
    val: float = 0.1,
    test: float = 0.1,
) -> Texts:
    """Texts of a built-in set, of a file or folder, or of rows in Python (dicts, a DataFrame, a list of texts).

    `form` says what the caller needs ('' takes what the data is); `text`, `label`, `source` and `target` name columns, and
    `encoding` that of the files ('' looks). Splits that the source does not have are cut from its training rows: `val` and
    `test` shares, shuffled by `seed`, class by class; of a corpus the documents, or of fewer than 20 the last characters (val
    only). Raises DataError when the data cannot be read, is of another form or would teach nothing, ConfigError on a knob.
    """
    check_form(form)
    check_shares(val, test)
    names = Names(text, label, source, target, encoding)
    found, name = _read(data, form, names)
    return finish(as_form(found, form, name), name, seed, val, test)


def _read(data: Any, form: str, names: Names) -> tuple[Texts, str]:
    if not isinstance(data, (str, os.PathLike)):
        found = from_python(data, form, names)
        if found is None:
            raise DataError(f"{type(data).__name__} is no data; give a path, a built-in set's name, a list or a DataFrame")
        return found, "the rows given"
    word = str(os.fspath(data))
    if not word:
        raise DataError("no data given: name a text file, a folder, or a built-in set such as pydoc")
    if "\n" in word or "\0" in word or len(word) > 1000:
        raise DataError(
            f"{word[:40]!r}... is a text, not the name of data; in Python give a list of texts, else put it in a file"
        )
    path = Path(word).expanduser()
    if not path.exists() and is_set(word):
        if given := names.given():
            knob = next(iter(given))
            raise ConfigError(f"{knob}={given[knob]} names a column, and {word} is a built-in set; leave {knob} out")
        return read_set(word), word
    if both := two_files(word, names):
        return both, word
    if path.is_dir():
        try:
            return read_folder(path, form, names), path.resolve().name or word
        except OSError as error:
            raise DataError(f"{error.filename or path} cannot be read ({error.strerror})") from None
    if path.is_file():
        return read_file(path, form, names), path.name
    if word in BUILT_IN:
        read_set(word)  # raises: it is a table or images
    if os.sep in word or path.suffix or path.is_symlink():
        raise DataError(missing(path))
    known = [n for n, s in BUILT_IN.items() if s.kind == "text"]
    near = did_you_mean(word, known)
    raise DataError(f"{word[:200]!r} is no file, no folder and no built-in set of texts{near}; there are {', '.join(known)}")


def corpus_documents(
    data: Any, split: str, size: int = CHUNK, *, seed: int = 0, val: float = 0.1, encoding: str = "", text: str = ""
) -> Iterator[Iterator[str]]:
    """The documents of a corpus, each in pieces of at most `size` characters: those of `read_texts(data, "corpus")`.

    Plain text files are streamed, so a corpus may be larger than memory; tables, rows in Python and built-in sets are read
    whole. A document must be read before the next one is asked for. Raises DataError and ConfigError as `read_texts` does.
    """
    check_shares(val, 0.0)
    if size < 1:
        raise ConfigError(f"size={size} must be at least 1 character")
    files = None if text else stream_files(data)
    if files is not None and any(files.get("train", [])):
        yield from stream_documents(files, split, size, seed, val, encoding)
        return
    rows = read_texts(data, "corpus", text=text, encoding=encoding, seed=seed, val=val).splits.get(split, [])
    for row in rows:
        yield (row["text"][i : i + size] for i in range(0, len(row["text"]), size))


def corpus_chunks(
    data: Any, split: str, size: int = CHUNK, *, seed: int = 0, val: float = 0.1, encoding: str = "", text: str = ""
) -> Iterator[str]:
    """As `corpus_documents`, one document after the other without a mark between."""
    return chain.from_iterable(corpus_documents(data, split, size, seed=seed, val=val, encoding=encoding, text=text))
