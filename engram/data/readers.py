"""Tables from files: CSV, JSON lines and Parquet, whole with every row checked, or in chunks."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import pandas as pd

from engram.core.errors import DataError, did_you_mean
from engram.data.columns import decimal_points, is_text
from engram.data.known import Known
from engram.data.sniff import HEAD, Format, sniff, sniff_file

SUFFIXES = (".csv", ".tsv", ".txt", ".parquet", ".jsonl")


def existing(source: str | os.PathLike[str]) -> Path:
    """The path of an existing file. Raises DataError that suggests near file names in the folder."""
    path = Path(source).expanduser()
    if path.is_dir():
        names = sorted(p.name for p in path.iterdir() if p.suffix in SUFFIXES)
        raise DataError(f"{path} is a folder, and a table is one file{'; it holds ' + ', '.join(names[:5]) if names else ''}")
    if not path.exists():
        if not path.parent.is_dir():
            raise DataError(f"there is no file {path}, and no folder {path.parent}")
        names = sorted(p.name for p in path.parent.iterdir() if p.is_file())
        raise DataError(f"there is no file {path.name} in {path.parent.resolve()}{did_you_mean(path.name, names)}")
    return path


def read_frame(source: str | os.PathLike[str], known: Known | None = None) -> tuple[pd.DataFrame, Format, str]:
    """A whole file as a DataFrame, how it is written, and the sha256 of its bytes; without `known` the types are guessed.

    Raises DataError when there is no such file, it is no table, a row has too few or too many fields (with its line), column
    names repeat, or there are no rows.
    """
    path = existing(source)
    fmt = sniff_file(path, (known or Known()).decimal)
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        stream.seek(0)
        if fmt.kind == "csv":
            frame = _whole_csv(path, fmt, known or Known())
        else:
            chunks = list(_chunks(stream, fmt, 1 << 16, path.name, Known()))
            frame = pd.concat(chunks or [pd.DataFrame()], ignore_index=True)
    frame.columns = [str(c).strip() for c in frame.columns]
    frame = _numbers(frame, fmt, known) if known else frame
    if not len(frame):
        raise DataError(f"{path.name} has column names and no rows; add rows")
    return frame, fmt, sha256


def read_column(path: Path, fmt: Format, name: str) -> pd.Series:
    """A column of a CSV file as the text that stands there; only empty cells and '?' are missing."""
    options = _csv_options(fmt, Known()) | {"keep_default_na": False, "na_values": ["", "?"], "dtype": str}
    frame: Any = pd.read_csv(path, usecols=lambda column: column.strip() == name, **options)
    return frame.iloc[:, 0]


def read_chunks(source: str | os.PathLike[str], rows: int, known: Known) -> Iterator[pd.DataFrame]:
    """A file, or '-' for standard input, as DataFrames of at most `rows` rows; never held whole. Raises DataError."""
    with ExitStack() as stack:
        if source == "-":
            name, stdin = "standard input", sys.stdin.buffer
            head = stdin.read(HEAD)
            fmt = sniff(head, name, known.decimal)
            if fmt.kind == "parquet":
                raise DataError("Parquet cannot be read from standard input, because its index is at the end; name the file")
            stream = io.BufferedReader(_Joined(head, stdin), HEAD)
        else:
            path = existing(source)
            name, fmt = path.name, sniff_file(path, known.decimal)
            stream = stack.enter_context(io.BufferedReader(io.FileIO(path), HEAD))
        for chunk in _chunks(stream, fmt, rows, name, known):
            chunk.columns = [str(c).strip() for c in chunk.columns]
            yield _numbers(chunk, fmt, known)


def _numbers(frame: pd.DataFrame, fmt: Format, known: Known) -> pd.DataFrame:
    """The frame with decimal points in the numbers of a file that has decimal commas."""
    if fmt.decimal == ".":
        return frame
    return frame.assign(**{n: decimal_points(frame[n]) for n in frame if n not in known.text and is_text(frame[n])})


class _Joined(io.RawIOBase):
    """Bytes that were read already, then the rest of the stream."""

    def __init__(self, head: bytes, rest: IO[bytes]):
        self.head, self.rest = head, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.head[: len(buffer)] or self.rest.read(len(buffer))
        self.head = self.head[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)


def _chunks(stream: io.BufferedReader[Any], fmt: Format, rows: int, name: str, known: Known) -> Iterator[pd.DataFrame]:
    try:
        if fmt.kind == "parquet":
            yield from _parquet(stream, rows, name)
        elif fmt.kind == "jsonl":
            yield from _json_lines(io.TextIOWrapper(stream, fmt.encoding), rows, name)
        else:
            # Lines that are too short are filled with missing values; lines that are too long are errors.
            header = _first_row(io.StringIO(stream.peek(HEAD).decode(fmt.encoding, "ignore"), newline=""), fmt)
            yield from pd.read_csv(stream, chunksize=rows, **_csv_options(fmt, known, header))
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise DataError(f"{name} cannot be read: {str(error).strip().splitlines()[-1]}") from None


def _parquet(stream: IO[bytes], rows: int, name: str) -> Iterator[pd.DataFrame]:
    import pyarrow
    import pyarrow.parquet

    try:
        for batch in pyarrow.parquet.ParquetFile(stream).iter_batches(batch_size=rows):
            yield batch.to_pandas()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{name} is damaged ({str(error).splitlines()[0]}); write or download it again") from None


def _json_lines(lines: IO[str], rows: int, name: str) -> Iterator[pd.DataFrame]:
    held: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row, wrong = json.loads(line), 'is not a JSON object; each line is one, such as {"age": 31}'
        except json.JSONDecodeError as error:
            row, wrong = None, f"is not JSON ({error.msg}); each line is one object"
        if not isinstance(row, dict):
            if held:  # answered before the error
                yield pd.DataFrame(held)
            raise DataError(f"line {number} of {name} {wrong}")
        held.append(row)
        if len(held) == rows:
            yield pd.DataFrame(held)
            held = []
    if held:
        yield pd.DataFrame(held)


def _first_row(lines: IO[str], fmt: Format) -> list[str]:
    return next((row for row in csv.reader(lines, delimiter=fmt.delimiter, skipinitialspace=True) if row), [])


def _csv_options(fmt: Format, known: Known, header: Sequence[str] = ()) -> dict[str, Any]:
    """What `read_csv` is told; `header` holds the names as they are written, perhaps with spaces at their ends."""
    none = [name for name in header if known.none and name.strip() == known.none]
    return {
        "sep": fmt.delimiter,
        "encoding": fmt.encoding,
        "decimal": fmt.decimal,
        "index_col": False,
        "skipinitialspace": True,
        "na_values": ["?"],
        "dtype": {name: str for name in header if name.strip() in known.text and name not in none},
        # pandas takes the bare word as missing, after converters too; spaces at the ends of words mean nothing.
        "converters": {name: lambda cell: "None " if cell == "None" else cell for name in none},
    }


def _whole_csv(path: Path, fmt: Format, known: Known) -> pd.DataFrame:
    header = _header(path, fmt)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header
            frame = pd.read_csv(path, low_memory=False, **_csv_options(fmt, known, header))
    except pd.errors.ParserError as error:
        _check_widths(path, fmt, len(header))
        raise DataError(
            f"{path.name} cannot be read: {str(error).strip().splitlines()[-1]}; look for a quote that is not closed"
        ) from None
    except pd.errors.ParserWarning:
        _check_widths(path, fmt, len(header))
        raise
    if frame.iloc[:, -1].isna().any():  # a short row ends in missing values
        _check_widths(path, fmt, len(header))
    return frame


def _header(path: Path, fmt: Format) -> list[str]:
    """The column names as they are written. Raises DataError when they repeat or look like data."""
    with path.open(encoding=fmt.encoding, newline="") as lines:
        header = _first_row(lines, fmt)
    names = [name.strip() for name in header]
    numbers = [n for n in names if _is_number(n)]
    counted = (
        [str(i) for i in range(int(numbers[0]), int(numbers[0]) + len(numbers))] if numbers and numbers[0].isdigit() else []
    )
    if len(numbers) * 2 >= len(names) and numbers != counted:
        raise DataError(
            f"the first line of {path.name} holds data ({', '.join(names[:4])} ...), not column names; "
            "add a line of names above it"
        )
    if repeated := [n for n, count in Counter(names).items() if count > 1 and n]:
        raise DataError(f"{path.name} has more than one column called {', '.join(map(repr, repeated))}; give each its own name")
    return header


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


def _check_widths(path: Path, fmt: Format, width: int) -> None:
    """Raises DataError that names the first line with another number of fields than the header."""
    with path.open(encoding=fmt.encoding, newline="") as lines:
        rows = csv.reader(lines, delimiter=fmt.delimiter, skipinitialspace=True)
        try:
            for row in rows:
                if len(row) > width == 1:
                    raise DataError(
                        f"the first line of {path.name} is one field and line {rows.line_num} has {len(row)}; "
                        "delete what stands above the column names"
                    )
                if row and len(row) != width:
                    raise DataError(
                        f"line {rows.line_num} of {path.name} has {len(row)} field{'s' * (len(row) != 1)} and the header has "
                        f"{width}; mend that line (a field that holds {fmt.delimiter!r} needs quotes)"
                    )
        except csv.Error as error:
            raise DataError(f"line {rows.line_num} of {path.name}: {error}; look for a quote that is not closed") from None
