"""Word vectors on disk: the word2vec text and binary formats and GloVe's text are read, word2vec text is written.

word2vec, text:    "<words> <width>" on the first line, then a word and its numbers per line, between spaces
word2vec, binary:  the same first line, then for each word its bytes, a space, and `width` little-endian float32 numbers
GloVe, text:       as word2vec text without the first line

Also the lists that word vectors are judged by: pairs of words with people's judgement, and analogy questions.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engram.core.errors import DataError, did_you_mean

LONGEST = 4096  # bytes of a word; a longer one means that the numbers do not stand where they should
CHUNK = 1 << 22
PAIRS = {"wordsim353": "wordsim/EN-WS-353-ALL.txt", "simlex999": "wordsim/EN-SIMLEX-999.txt"}
QUESTIONS = "google_analogies/questions-words.txt"

Kind = Literal["word2vec text", "word2vec binary", "glove text"]
Floats = npt.NDArray[np.float32]


def load_vectors(path: str | os.PathLike[str], most: int = 0) -> tuple[list[str], Tensor]:
    """Words and vectors (words, width) float32 of a file in any of the three formats; the first `most` only, if not 0.

    A word that comes again is left out. Raises DataError when the file is missing, cut off, damaged, or its lines have
    different numbers of numbers.
    """
    path = Path(path).expanduser()
    try:
        with path.open("rb") as stream:
            kind = kind_of(stream, path)
            stream.seek(0)
            words, table = _binary(stream, path, most) if kind == "word2vec binary" else _text(stream, path, kind, most)
    except FileNotFoundError:
        near = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"there is no file {path}{did_you_mean(path.name, near)}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
    if not np.isfinite(table).all():
        row = int(np.flatnonzero(~np.isfinite(table).all(1))[0])
        raise DataError(f"{path}: the vector of {words[row]!r} holds a number that is not finite; the file is damaged")
    first = dict(zip(reversed(words), reversed(range(len(words))), strict=True))
    if len(first) < len(words):
        kept = sorted(first.values())
        words, table = [words[n] for n in kept], table[kept]
    return words, torch.from_numpy(table)


def kind_of(stream: IO[bytes], path: Path) -> Kind:
    """The format, from the start of the file. Raises DataError when it is none of the three."""
    line = stream.readline(1 << 20)
    fields = line.split()
    if len(fields) == 2 and all(f.isdigit() for f in fields):
        second = stream.readline(1 << 20).rstrip(b"\n").rstrip(b" ").split(b" ")
        text = len(second) == int(fields[1]) + 1 and all(_is_number(f) for f in second[1:])
        return "word2vec text" if text or not int(fields[0]) else "word2vec binary"
    if len(fields) >= 3 and _is_number(fields[-1]) and _is_number(fields[-2]):
        return "glove text"
    if not line:
        raise DataError(f"{path} is empty")
    raise DataError(f"{path} holds no word vectors: its first line is neither '<words> <width>' nor a word with numbers")


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _text(stream: IO[bytes], path: Path, kind: Kind, most: int) -> tuple[list[str], Floats]:
    said, width, start = 0, 0, 1
    if kind == "word2vec text":
        said, width = _header(stream, path)
        start = 2
    words: list[str] = []
    rows: list[Floats] = []
    for number, line in enumerate(stream, start):
        fields = line.rstrip(b"\r\n").rstrip(b" ").split(b" ")
        if fields == [b""]:
            continue
        if most and len(words) == most:
            break
        width = width or len(fields) - 1
        if len(fields) <= width:
            raise DataError(
                f"{path}, line {number}: {len(fields) - 1} numbers, the others have {width}; the file is cut off or damaged"
            )
        try:
            rows.append(np.array(fields[-width:], np.float32))
        except ValueError:
            raise DataError(f"{path}, line {number}: what should be {width} numbers is not; the file is damaged") from None
        name = b" ".join(fields[:-width])  # GloVe's own files hold a few words with spaces inside
        if len(fields) > width + 1 and _is_number(fields[-width - 1]) and kind == "word2vec text":
            raise DataError(f"{path}, line {number}: {len(fields) - 1} numbers where the first line says {width}")
        words.append(name.decode("utf-8", "replace"))
    if said and len(words) < said and not (most and len(words) == most):
        raise DataError(f"{path} is cut off: its first line says {said:,} words and it holds {len(words):,}")
    if not words:
        raise DataError(f"{path} holds no vectors")
    return words, np.stack(rows)


def _header(stream: IO[bytes], path: Path) -> tuple[int, int]:
    words, width = (int(f) for f in stream.readline().split())
    if not words or not width or words > 1 << 32 or width > 1 << 20:
        raise DataError(f"{path}: its first line says {words:,} words of {width:,} numbers, which no file of vectors has")
    return words, width


def _binary(stream: IO[bytes], path: Path, most: int) -> tuple[list[str], Floats]:
    said, width = _header(stream, path)
    size = path.stat().st_size
    wanted = min(said, most or said)
    if size - stream.tell() < wanted * (4 * width + 1):
        raise DataError(f"{path} is cut off: {said:,} words of {width} numbers do not fit into its {size:,} bytes")
    table = np.empty((wanted, width), np.float32)
    words: list[str] = []
    held, at = b"", 0
    while len(words) < wanted:
        space = held.find(b" ", at)
        end = space + 1 + 4 * width
        if space < 0 or end > len(held):
            more = stream.read(CHUNK)
            if not more or (space < 0 and len(held) - at > LONGEST):
                raise DataError(f"{path} is cut off or damaged at word {len(words) + 1:,} of {said:,}")
            held, at = held[at:] + more, 0
            continue
        name = held[at:space].lstrip(b"\n")
        if len(name) > LONGEST:
            raise DataError(f"{path} is damaged at word {len(words) + 1:,}: no word is {len(name):,} bytes long")
        table[len(words)] = np.frombuffer(held, "<f4", width, space + 1)
        words.append(name.decode("utf-8", "replace"))
        at = end
    return words, table


def save_vectors(path: str | os.PathLike[str], words: Sequence[str], vectors: Tensor) -> None:
    """Write vectors (words, width) as word2vec text. Raises DataError when a word holds a space or the disk refuses."""
    if bad := next((w for w in words if not w or any(c.isspace() for c in w)), None):
        raise DataError(f"the word {bad!r} is empty or holds a space, which word2vec's text format cannot say")
    try:
        with Path(path).expanduser().open("w", encoding="utf-8", newline="\n") as stream:
            stream.write(f"{len(words)} {vectors.shape[1]}\n")
            for word, row in zip(words, vectors.float().cpu().numpy(), strict=True):
                stream.write(f"{word} {' '.join(map(str, row.tolist()))}\n")
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror})") from None


def read_pairs(path: Path) -> list[tuple[str, str, float]]:
    """Lines of two words and a judgement: WordSim-353, SimLex-999 and others. Raises DataError."""
    return [(a, b, float(score)) for a, b, score in _fields(path, 3)]


def read_questions(path: Path) -> list[tuple[str, str, str, str]]:
    """Lines of four words, a is to b as c is to d; section titles are skipped. Raises DataError."""
    return [(a, b, c, d) for a, b, c, d in _fields(path, 4)]


def _fields(path: Path, count: int) -> Iterator[list[str]]:
    try:
        with path.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                fields = line.split()
                if not fields or fields[0] == ":":
                    continue
                if len(fields) != count or (count == 3 and not _is_number(fields[2].encode())):
                    raise DataError(f"{path}, line {number}: {count} fields are expected, a judgement last in a list of pairs")
                yield fields
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); set ENGRAM_DATA to the folder above {path.parent.name}/"
        ) from None


@dataclass(frozen=True)
class Judgements:
    """Lists by name: judged pairs of words, and questions of four words."""

    pairs: dict[str, list[tuple[str, str, float]]]
    questions: dict[str, list[tuple[str, str, str, str]]]


def judgements(folder: str | os.PathLike[str] | None = None) -> Judgements:
    """The lists that are there under `folder` (default: ENGRAM_DATA). Raises DataError when one is damaged."""
    given = folder or os.environ.get("ENGRAM_DATA")
    if not given:
        return Judgements({}, {})
    pairs = {name: Path(given, file) for name, file in PAIRS.items()}
    questions = Path(given, QUESTIONS)
    return Judgements(
        {name: read_pairs(path) for name, path in pairs.items() if path.is_file()},
        {"google_analogies": read_questions(questions)} if questions.is_file() else {},
    )
