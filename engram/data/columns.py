"""What the columns of a table are (number, category, boolean, date) and what their cells say. Doubtful text stays text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from engram.core.data import Note

Cells = Any  # a pandas Series; pandas' own annotations say Series | DataFrame | ndarray too often for a type checker
Kind = Literal["number", "category", "boolean", "date"]
DATE_PARTS = ("year", "month", "day of week", "hour", "days since 1970")
TRUTHS = {"true": "true", "yes": "true", "y": "true", "t": "true", "false": "false", "no": "false", "n": "false", "f": "false"}
_NESTED = (list, dict, set, tuple, bytes, np.ndarray)
_WHOLE = r"^(-?\d+)\.0+$"
_MISSING = {"", "?"}
MISSING_NUMBER = _MISSING | {"-", "--", ".", "na", "n/a", "#n/a", "nan", "null", "none", "missing", "unknown"}
_ID_NAME = re.compile(r"(unnamed: \d+|index|idx|row|(.*[ _-])?(id|uuid|guid)|row[ _-]?(id|number|nr|no))", re.IGNORECASE)
_SIGN, _UNIT = r"[+-]?", r"\s*[%€$£]?"
_ENGLISH = re.compile(rf"{_SIGN}[€$£]?\s*(\d+|\d{{1,3}}(,\d{{3}})+)(\.\d*)?{_UNIT}")  # $1,234.50  12%
_EUROPEAN = re.compile(rf"{_SIGN}[€$£]?\s*(\d{{1,3}}(\.\d{{3}})+,\d+|\d+,(\d{{1,2}}|\d{{4,}})){_UNIT}")  # 1.234,50  12,5
# As in files with decimal commas: 1.234  1.234,5  0,125  12,5 €
_COMMAS = re.compile(rf"({_SIGN}[€$£]?\s*)(\d+|[1-9]\d{{0,2}}(?:\.\d{{3}})+)(?:,(\d+))?({_UNIT})")
_TIME = r"([T ]+(?P<time>\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?)\s*(Z|[+-]\d{2}:?\d{2})?)?"
_YEAR_FIRST = rf"(?P<y>\d{{4}})[-/.](?P<m>\d{{1,2}})[-/.](?P<d>\d{{1,2}}){_TIME}"
_YEAR_LAST = rf"(?P<a>\d{{1,2}})[-/.](?P<b>\d{{1,2}})[-/.](?P<y>\d{{4}}){_TIME}"


@dataclass(frozen=True)
class Column:
    """An input column: missing cells and different values are counted over all rows."""

    name: str
    kind: Kind
    missing: int
    distinct: int
    day_first: bool = False  # dates such as 31.12.2024
    loose: bool = False  # a number column that holds words or infinities too, which are taken as missing


def find_columns(frame: pd.DataFrame) -> tuple[list[Column], list[Note]]:
    """The usable columns in order, and what is to be said: columns left out and why, text that was read as numbers.

    Left out are columns that are empty, constant, different in every row (identifiers) or hold lists.
    """
    found, notes = [], []
    for name in frame.columns:
        series: Cells = frame[name]
        present = series.dropna()
        nested = series.dtype == object and any(isinstance(v, _NESTED) for v in present)
        if nested or not _is_usable(series):
            what = "lists or bytes" if nested else f"values of type {series.dtype}"
            notes.append(Note("warning", f"column {name!r} holds {what} and is left out"))
            continue
        if is_text(series):
            present = present[~present.map(str).str.strip().isin(_MISSING)]
        distinct, missing = int(present.nunique()), len(series) - len(present)
        if reason := _useless(str(name), present, distinct, missing):
            notes.append(Note("info", f"column {name!r} {reason} and is left out"))
            continue
        # One value or nothing is a flag: whether the cell is filled is what it says.
        kind, day_first, said = kind_of(present, distinct) if distinct > 1 else ("category", False, "")
        if kind == "category" and distinct > max(len(present) // 2, 10):
            text = f"column {name!r} is text with {distinct:,} different values in {len(present):,} rows and is left out"
            notes.append(Note("warning", text))
            continue
        notes += [Note("warning" if "missing" in said else "info", f"column {name!r}: {said}")] if said else []
        loose = False
        if kind == "number":
            values, bad = numbers(series)
            missing, loose = int(np.isnan(values).sum()), bool(bad.any())
        found.append(Column(str(name), kind, missing, distinct, day_first, loose))
    return found, notes


def _is_usable(series: Cells) -> bool:
    types = pd.api.types
    real = types.is_numeric_dtype(series) and not types.is_complex_dtype(series)
    return real or is_text(series) or types.is_datetime64_any_dtype(series) or types.is_timedelta64_dtype(series)


def is_text(series: Cells) -> bool:
    """Whether the cells are text or a mixture, and not numbers, booleans or dates already."""
    return series.dtype == object or pd.api.types.is_string_dtype(series) or isinstance(series.dtype, pd.CategoricalDtype)


def _useless(name: str, present: Cells, distinct: int, missing: int) -> str:
    if not len(present):
        return "is empty"
    if distinct == 1 and not missing:
        return f"is {str(present.iloc[0])!r} in every row"
    if distinct < len(present) or len(present) < 5:
        return ""
    if pd.api.types.is_integer_dtype(present) and (_ID_NAME.fullmatch(name) or not name):
        return "numbers the rows"
    if is_text(present) and kind_of(present, distinct)[0] == "category":
        return "is text that differs in every row"
    return ""


def kind_of(present: Cells, distinct: int) -> tuple[Kind, bool, str]:
    """The kind of the cells that are not missing, whether dates are day first, and what to tell the user."""
    if pd.api.types.is_bool_dtype(present):
        return "boolean", False, ""
    if pd.api.types.is_datetime64_any_dtype(present):
        return "date", False, ""
    if not is_text(present):
        return "number", False, ""
    text = present.map(str).str.strip()
    if distinct == 2 and set(text.str.lower().unique()) in ({"true", "false"}, {"yes", "no"}, {"y", "n"}, {"t", "f"}):
        return "boolean", False, ""
    if (said := _numeric_text(text)) is not None:
        return "number", False, said
    text = text.drop_duplicates()
    if text.str.fullmatch(_YEAR_FIRST).all() and dates(text, False).notna().all():
        return "date", False, ""
    if text.str.fullmatch(_YEAR_LAST).all():
        day_first = bool((text.str.extract(_YEAR_LAST)["a"].astype(int) > 12).any()) or bool(text.str.contains(r"^\d+\.").all())
        if dates(text, day_first).notna().all():
            return "date", day_first, f"dates read as {'day' if day_first else 'month'} first, such as {text.iloc[0]}"
    return "category", False, ""


def _numeric_text(text: Cells) -> str | None:
    """What to say when the text holds numbers ('' for plain ones); None when it does not."""
    text = text[~text.str.lower().isin(MISSING_NUMBER)]
    if not len(text):
        return None
    converted: Cells = pd.to_numeric(text, errors="coerce")
    plain = converted.notna()
    rest = text[~plain]
    if not len(rest):
        return ""
    values, bad = numbers(text)
    if not bad.any():
        # One unit for all, and one meaning of the comma; otherwise the column is left as text.
        units = text.str.extract(r"([%€$£])", expand=False).fillna("").nunique()
        european = rest.str.fullmatch(_EUROPEAN) & rest.str.contains(",")
        points = text[plain].str.contains(".", regex=False).any()  # 1.5 beside 1,5
        if units == 1 and ((european.all() and not points) or not european.any()):
            return f"text such as {rest.iloc[0]!r} read as the number {values[int(np.argmin(plain))]:g}"
        return None
    if bad.mean() <= 0.1 and len(np.unique(values[~bad])) > 10:
        words = ", ".join(map(repr, text[bad].unique()[:3]))
        return f"{bad.sum():,} of {len(text):,} cells are no numbers ({words}) and are taken as missing"
    return None


def numbers(series: Cells) -> tuple[np.ndarray, np.ndarray]:
    """Cells as float64 with NaN where missing, and which cells are something else than a number."""
    if pd.api.types.is_timedelta64_dtype(series):
        series = series / pd.Timedelta(days=1)
    if not is_text(series):
        return series.to_numpy(np.float64, na_value=np.nan), np.zeros(len(series), bool)
    text = series.map(str, na_action="ignore").astype(object).where(series.notna(), "").str.strip()
    missing = text.str.lower().isin(MISSING_NUMBER).to_numpy()
    converted: Cells = pd.to_numeric(text.where(~missing), errors="coerce")
    values = converted.to_numpy(np.float64, na_value=np.nan, copy=True)
    if (odd := np.isnan(values) & ~missing).any():
        cells = text[odd]
        values[odd] = cells.map({cell: _number(cell) for cell in cells.unique()}).to_numpy(np.float64)
    return values, np.isnan(values) & ~missing


def _number(cell: str) -> float:
    """'$1,234' -> 1234, '12%' -> 12, '1.234,5' -> 1234.5; NaN when it is none of these."""
    bare = re.sub(r"[€$£%\s]", "", cell)
    if _EUROPEAN.fullmatch(cell):
        return float(bare.replace(".", "").replace(",", "."))
    return float(bare.replace(",", "")) if _ENGLISH.fullmatch(cell) else np.nan


def decimal_points(series: Cells) -> Cells:
    """Text from a file with decimal commas, '1.234,5' as '1234.5' and '0,125' as '0.125'.

    '1.234' is 1234, unless points in other cells of the column are no thousands: then the column stays as it is.
    """
    cells = pd.Series(series.dropna().map(str).str.strip().unique(), dtype=object)
    found = {cell: match for cell in cells if (match := _COMMAS.fullmatch(cell))}
    if any("." in cell and _ENGLISH.fullmatch(cell) for cell in cells if cell not in found):
        return series
    plain = {c: m[1] + m[2].replace(".", "") + (f".{m[3]}" if m[3] else "") + m[4] for c, m in found.items()}
    plain = {cell: number for cell, number in plain.items() if cell != number}
    return series.map(lambda cell: plain.get(str(cell).strip(), cell), na_action="ignore") if plain else series


def words(series: Cells) -> Cells:
    """Cells as trimmed text, NaN where missing; whole numbers lose their '.0', so that 3 and 3.0 are one category."""
    if isinstance(series.dtype, pd.StringDtype):  # the common case, without a Python call per cell
        text = series.str.strip()
        return text.str.replace(_WHOLE, r"\1", regex=True).where(~text.isin(_MISSING))
    text = series.astype(object).map(_word)
    return text.where(~text.isin(_MISSING), None)


def _word(cell: Any) -> str:
    if cell is None or cell is pd.NaT or cell is pd.NA or (isinstance(cell, float) and np.isnan(cell)):
        return ""
    return re.sub(_WHOLE, r"\1", str(cell).strip())


def truths(series: Cells) -> Cells:
    """Cells as 'true', 'false' or NaN."""
    return words(series).str.lower().replace({"1": "true", "0": "false"}).map(TRUTHS)


def dates(series: Cells, day_first: bool) -> Cells:
    """Cells as timestamps without time zone; NaT where missing or not a date."""
    if pd.api.types.is_datetime64_any_dtype(series):
        return series.dt.tz_convert("UTC").dt.tz_localize(None) if series.dt.tz is not None else series
    text = series.map(str, na_action="ignore").astype("str").str.strip()
    iso, last = text.str.extract(f"^{_YEAR_FIRST}$"), text.str.extract(f"^{_YEAR_LAST}$")
    first, second = (last["a"], last["b"]) if day_first else (last["b"], last["a"])
    parts = {"year": iso["y"].fillna(last["y"]), "month": iso["m"].fillna(second), "day": iso["d"].fillna(first)}
    day = pd.to_datetime(pd.DataFrame(parts).apply(pd.to_numeric), errors="coerce")
    time = iso["time"].fillna(last["time"]).fillna("0:00")
    time = time.where(time.str.count(":") == 2, time + ":00")
    return day + pd.to_timedelta(time, errors="coerce")


def date_parts(moments: Cells) -> dict[str, np.ndarray]:
    """DATE_PARTS of timestamps as float64, NaN where missing; Monday is 0 and days have fractions."""
    fields = (moments.dt.year, moments.dt.month, moments.dt.day_of_week, moments.dt.hour)
    days = (moments - pd.Timestamp(0)) / pd.Timedelta(days=1)
    arrays = [p.to_numpy(np.float64, na_value=np.nan) for p in (*fields, days)]
    return dict(zip(DATE_PARTS, arrays, strict=True))
