"""Text that the user hands to a trained run: a file, standard input, JSON lines, CSV columns, or the text itself."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from engram.core.errors import DataError, did_you_mean

RECORDS = (".jsonl", ".ndjson", ".csv", ".tsv")
ENCODINGS = ("utf-8-sig", "utf-16")


def read_text_file(path: Path) -> tuple[str, str]:
    """(text, encoding) of a file. Raises DataError when it is missing, empty or not text."""
    try:
        data = path.read_bytes()
    except IsADirectoryError:
        raise DataError(f"{path} is a folder; name one text file") from None
    except FileNotFoundError:
        near = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"there is no file {path}{did_you_mean(path.name, near)}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
    return decode_bytes(data, str(path))


def decode_bytes(data: bytes, where: str) -> tuple[str, str]:
    """(text, encoding): UTF-8, or UTF-16 with its mark. Raises DataError that names the first byte that is no text."""
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where} is not {encoding.removesuffix('-sig').upper()} text: byte {error.start} is 0x{data[error.start]:02x}; "
            "save it as UTF-8 (iconv -f LATIN1 -t UTF-8), or give the file that you meant"
        ) from None
    if "\0" in text[:4096]:
        raise DataError(f"{where} holds binary data, not text")
    if not text.strip():
        raise DataError(f"{where} is empty")
    return text, encoding


def text_records(source: Any, keys: Sequence[str], *, whole: bool = False) -> Iterator[tuple[str, Any]]:
    """(name, text or dict) of what is in `source`: '-' (standard input), a path, or a text that is no path.

    .jsonl gives dicts or strings, .csv and .tsv dicts; any other file gives its lines, or with `whole` one text. A string with
    spaces or line breaks that names no file is itself the text. Raises DataError.
    """
    if source == "-":
        yield from _split(decode_bytes(sys.stdin.buffer.read(), "standard input")[0], "standard input", keys, whole)
        return
    path = Path(source)
    if isinstance(source, str) and (any(c.isspace() for c in source) or len(source) > 200) and not _exists(path):
        yield source, source
        return
    if isinstance(source, str) and not _exists(path) and not path.suffix and os.sep not in source:
        raise DataError(f"there is no file {source}; to give the text itself, put it in quotes with a space after it")
    text, _ = read_text_file(path)
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        yield from _table(text, path.name, "\t" if suffix == ".tsv" else ",")
    else:
        yield from _split(text, path.name, keys, whole and suffix not in RECORDS)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # longer than a name may be, or with a zero byte
        return False


def _split(text: str, name: str, keys: Sequence[str], whole: bool) -> Iterator[tuple[str, Any]]:
    if text.lstrip().startswith("{") or (not whole and text.lstrip().startswith('"')):
        yield from _json_lines(text, name)
    elif whole:
        yield name, text
    else:
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                yield f"{name}:{number}", line


def _json_lines(text: str, name: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError:
            raise DataError(f"{name}:{number} is not JSON; every line of a JSON-lines file is one object") from None
        if not isinstance(value, (dict, str)):
            raise DataError(f"{name}:{number} is {type(value).__name__}, and a text or an object is needed")
        yield f"{name}:{number}", value


def _table(text: str, name: str, delimiter: str) -> Iterator[tuple[str, Any]]:
    for number, row in enumerate(csv.DictReader(io.StringIO(text), delimiter=delimiter), 2):
        yield f"{name}:{number}", {k: v for k, v in row.items() if k is not None}
