"""Text files as characters: which encoding, whether it is text at all, and reading whole or in blocks."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, cast

from engram.core.data import Note
from engram.core.errors import ConfigError, DataError
from engram.data.sniff import HEAD

BLOCK = 1 << 20
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_KINDS = {
    b"PK\x03\x04": "a zip archive or an Office document; unpack it, or save it as plain text",
    b"\xd0\xcf\x11\xe0": "an old Office document; save it as plain text",
    b"%PDF": "a PDF; save its text as .txt",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"GIF8": "an image",
    b"PAR1": "a Parquet file; give it the ending .parquet",
    b"SQLite format 3": "an SQLite database; export the texts as CSV",
    b"\x1f\x8b": "compressed with gzip; unpack it first (gunzip), or give it the ending .gz",
}


@dataclass(frozen=True)
class Scan:
    """What one pass over a text file found."""

    encoding: str
    characters: int  # after \\r\\n became \\n
    blank: bool
    sha256: str
    guessed: bool = False  # the encoding

    def notes(self, name: str) -> list[Note]:
        """A warning when the encoding was guessed."""
        if not self.guessed:
            return []
        return [Note("warning", f"{name} is not UTF-8: read as {self.encoding}; check the accents, or save it as UTF-8")]


def scan(path: Path, encoding: str = "") -> Scan:
    """The encoding (`encoding` when given), length and sha256 of a text file, in one pass of bounded memory.

    UTF-8, UTF-16 and marks at the start are recognised; what is not UTF-8 and has no UTF-8 letters before the first odd byte is
    read as Windows' code page. Raises DataError with the byte's place when the file is binary or has bytes that mean nothing,
    ConfigError when the encoding is unknown.
    """
    encoding = _known(encoding)
    try:
        with opened(path) as stream:
            guess = encoding or _guess(stream.read(HEAD), path.name)
        try:
            return _pass(path, guess)
        except _OddByte as odd:
            if encoding or guess != "utf-8" or odd.letters:
                raise DataError(
                    f"{path.name} is not {guess.removesuffix('-sig')} at byte {odd.offset:,} ({odd.reason}); "
                    "save it again as UTF-8, or name its encoding (encoding=latin-1)"
                ) from None
        try:
            return replace(_pass(path, "cp1252"), guessed=True)
        except _OddByte:
            return replace(_pass(path, "latin-1"), guessed=True)
    except OSError as error:  # also a damaged .gz
        raise DataError(f"{path} cannot be read ({error.strerror or error})") from None
    except EOFError:
        raise DataError(f"{path.name} is cut off; get it again") from None


def blocks(path: Path, encoding: str, size: int = BLOCK) -> Iterator[str]:
    """The characters of a file that `scan` has passed, at most `size` at a time, lines ending in \\n."""
    with io.TextIOWrapper(cast(Any, opened(path)), encoding, newline=None) as lines:
        while block := lines.read(size):
            yield block


def read_text(path: Path, encoding: str = "") -> tuple[str, Scan]:
    """A whole text file and what was found. Raises DataError as `scan` does."""
    found = scan(path, encoding)
    return "".join(blocks(path, found.encoding)), found


def lines_of(text: str) -> list[str]:
    """The lines of a text; only \\n ends a line, so that two files of sentences stay in step."""
    return text.removesuffix("\n").split("\n") if text else []


def opened(path: Path) -> IO[bytes]:
    """The bytes of a file, of a .gz after decompression."""
    return cast("IO[bytes]", gzip.open(path, "rb")) if path.name.endswith(".gz") else path.open("rb")


class _OddByte(Exception):
    def __init__(self, offset: int, reason: str, letters: bool):
        self.offset, self.reason, self.letters = offset, reason, letters


def _pass(path: Path, encoding: str) -> Scan:
    decoder = codecs.getincrementaldecoder(encoding)()
    lines = io.IncrementalNewlineDecoder(None, translate=True)
    digest, characters, blank, letters, done = hashlib.sha256(), 0, True, False, 0
    wide = codecs.lookup(encoding).name.startswith(("utf-16", "utf-32"))
    with opened(path) as stream:
        while True:
            block = stream.read(BLOCK)
            held = len(decoder.getstate()[0])
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                ascii_only = not letters and _before(block, error.start - held).isascii()
                raise _OddByte(done - held + error.start, error.reason, not ascii_only) from None
            if not wide and (null := block.find(b"\0")) >= 0:
                raise DataError(
                    f"{path.name} is a binary file (a zero byte at byte {done + null:,}); texts are .txt or .md files"
                )
            digest.update(block)
            done += len(block)
            letters = letters or not text.isascii()
            blank = blank and not text.strip().strip("\ufeff")
            characters += len(lines.decode(cast(Any, text), final=not block))
            if not block:
                return Scan(encoding, characters, blank, digest.hexdigest())


def _before(block: bytes, end: int) -> bytes:
    return block[: max(end, 0)]


def _known(encoding: str) -> str:
    if not encoding:
        return ""
    try:
        name = codecs.lookup(encoding).name
        codecs.getincrementaldecoder(name)
        "".encode(name)
    except LookupError:
        raise ConfigError(f"encoding={encoding!r} is unknown; usual are utf-8, utf-16, latin-1 and cp1252") from None
    return "utf-8-sig" if name == "utf-8" else name


def _guess(head: bytes, name: str) -> str:
    """The encoding by the first bytes. Raises DataError when they are no text."""
    if head.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    for magic, what in _KINDS.items():
        if head.startswith(magic):
            raise DataError(f"{name} is not a text file: it is {what}")
    low, high = head[:200:2], head[1:200:2]
    if high.count(0) > 0.4 * len(high) and not low.count(0):  # Western letters have one zero byte each
        return "utf-16-le"
    if low.count(0) > 0.4 * len(low) and not high.count(0):
        return "utf-16-be"
    if len(controls := _CONTROL.findall(head)) > len(head) // 50 and controls:
        first = cast("re.Match[bytes]", _CONTROL.search(head)).start()
        raise DataError(f"{name} is a binary file (byte {first:,} is {head[first]:#04x}); texts are .txt or .md files")
    return "utf-8"
