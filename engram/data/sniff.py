"""What a file is, from its bytes: CSV (with encoding, delimiter and decimal mark), JSON lines, Parquet, or no table at all."""

from __future__ import annotations

import codecs
import csv
import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engram.core.errors import DataError

HEAD = 1 << 16  # bytes that decide what a file is
_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_IMAGE = "an image; tables are CSV, JSON lines or Parquet"
_OTHER_KINDS = {
    b"PK\x03\x04": "a zip archive or an Excel workbook; unpack it, or save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook; save the sheet as CSV",
    b"\x1f\x8b": "compressed with gzip; unpack it first (gunzip)",
    b"\x89PNG": _IMAGE,
    b"\xff\xd8\xff": _IMAGE,
    b"GIF8": _IMAGE,
    b"%PDF": "a PDF; export the table as CSV",
    b"\x93NUMPY": "a NumPy array; save it as CSV with a line of column names",
    b"SQLite format 3": "an SQLite database; export the table as CSV",
    b"ARROW1": "a Feather file; save it as Parquet",
}
_PICKLES = (".pkl", ".pickle", ".joblib")
_PICKLE_START = tuple(bytes([0x80, version]) for version in (2, 3, 4, 5))


@dataclass(frozen=True)
class Format:
    """How a file is written."""

    kind: Literal["csv", "jsonl", "parquet"]
    encoding: str = "utf-8"
    delimiter: str = ","
    decimal: str = "."

    def describe(self) -> str:
        """'CSV in utf-8, separated by comma', for the summary."""
        if self.kind != "csv":
            return "Parquet" if self.kind == "parquet" else "JSON lines"
        comma = ", decimal comma" if self.decimal == "," else ""
        return f"CSV in {self.encoding}, separated by {_DELIMITERS[self.delimiter]}{comma}"


def sniff(head: bytes, name: str, decimal: str = ".") -> Format:
    """What the first HEAD bytes of a file say it is; `decimal` is the mark where 1,234 and 1.234 may be thousands too.

    Raises DataError when it is empty or not a table.
    """
    if Path(name).suffix.lower() in _PICKLES or head.startswith(_PICKLE_START):
        raise DataError(
            f"{name} is a pickle, and opening one can run code; save the table as Parquet or CSV (frame.to_parquet)"
        )
    if head.startswith(b"PAR1"):
        return Format("parquet")
    for magic, what in _OTHER_KINDS.items():
        if head.startswith(magic):
            raise DataError(f"{name} is {what}")
    encoding = _encoding(head)
    if "16" not in encoding and b"\0" in head:
        raise DataError(f"{name} is a binary file; tables are CSV, JSON lines or Parquet")
    text = codecs.getincrementaldecoder(encoding)("replace").decode(head)
    start = text.lstrip()
    if not start:
        raise DataError(f"{name} is empty")
    if re.match(r"<[!?a-zA-Z]", start):
        raise DataError(f"{name} is a web page or XML, not a table; download the file itself")
    if start[0] == "{":
        return Format("jsonl", encoding)
    if start[0] == "[":
        raise DataError(f"{name} is one JSON list; write one JSON object per line instead (JSON lines)")
    if len(head) == HEAD and "\n" in text:
        text = text[: text.rindex("\n")]  # the last line may be cut
    delimiter = _delimiter(text)
    return Format("csv", encoding, delimiter, _decimal(text, delimiter, decimal))


def sniff_file(path: Path, decimal: str = ".") -> Format:
    """As `sniff`, with the encoding that fits the whole file. Raises DataError."""
    with path.open("rb") as stream:
        fmt = sniff(stream.read(HEAD), path.name, decimal)
        if fmt.kind == "parquet" or not fmt.encoding.startswith("utf-8"):
            return fmt
        stream.seek(0)
        decoder = codecs.getincrementaldecoder(fmt.encoding)()
        try:
            while block := stream.read(1 << 20):
                decoder.decode(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            stream.seek(0)
            return dataclasses.replace(fmt, encoding=_western(stream.read()))
    return fmt


def _encoding(head: bytes) -> str:
    if head.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    pairs = head[:200]
    if len(pairs) >= 4 and not any(pairs[1::2]) and all(pairs[0:-1:2]):
        return "utf-16-le"
    if len(pairs) >= 4 and not any(pairs[0::2]) and all(pairs[1::2]):
        return "utf-16-be"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return _western(head)
    return "utf-8"


def _western(data: bytes) -> str:
    """Windows' code page 1252, or latin-1 where the bytes have no meaning in it."""
    try:
        data.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"


def _delimiter(text: str) -> str:
    """The delimiter that cuts most lines into as many fields as the first, and then into the most fields."""
    lines = [line for line in text.splitlines()[:200] if line.strip()]
    scores = {}
    for delimiter in _DELIMITERS:
        try:
            widths = [len(row) for row in csv.reader(lines, delimiter=delimiter, skipinitialspace=True)]
        except csv.Error:
            continue
        if widths and widths[0] > 1:
            scores[delimiter] = (round(widths.count(widths[0]) / len(widths), 1), widths[0])
    return max(scores, key=lambda d: scores[d]) if scores else ","


def _decimal(text: str, delimiter: str, usual: str) -> str:
    """',' when more fields look like 1,5 than like 1.5; only possible where the comma separates nothing. Fields such as 1,234
    and 1.234 say nothing, because they may be thousands; where there are no others the mark is `usual`."""
    if delimiter == ",":
        return "."
    fields = [f.strip().strip('"') for line in text.splitlines()[1:200] for f in line.split(delimiter)]
    commas, points = (sum(map(_is_decimal(*marks), fields)) for marks in ((",", r"\."), (r"\.", ",")))
    return usual if commas == points == 0 else "," if commas > points else "."


def _is_decimal(mark: str, other: str) -> Callable[[str], bool]:
    """Whether a field has this decimal mark beyond doubt: 1,5 and 0,125 and 1.234,5, but not 1,234."""
    number = re.compile(rf"[+-]?(\d+|[1-9]\d{{0,2}}({other}\d{{3}})+){mark}\d+")
    thousands = re.compile(rf"[+-]?[1-9]\d{{0,2}}({mark}\d{{3}})+")
    return lambda field: bool(number.fullmatch(field)) and not thousands.fullmatch(field)
