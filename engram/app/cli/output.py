"""Where words go: `emit` writes data to stdout, `say` talks on stderr. Tables are drawn by rich, imported when there is one."""

from __future__ import annotations

import io
import json
import math
import os
import sys
from collections.abc import Sequence
from typing import Any


def prepare_streams() -> None:
    """Characters that the terminal's encoding lacks are written as \\u escapes instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    """A line of talk."""
    print(text, file=sys.stderr, flush=True)


def emit(text: str) -> None:
    """A line of data."""
    print(text)


def emit_json(value: Any) -> None:
    """One JSON document. Numbers that are not finite become null, so that any JSON reader takes it."""
    print(json.dumps(plain(value), indent=1, ensure_ascii=False), flush=True)


def json_line(value: Any) -> str:
    """One JSON document on one line."""
    return json.dumps(plain(value), ensure_ascii=False)


def plain(value: Any) -> Any:
    """JSON values: paths as text, tuples as lists, numbers that are not finite as null."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


def number(value: Any) -> str:
    """A figure as a person reads it: four significant digits, thousands apart, '-' where there is none."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def typed(value: Any) -> str:
    """A knob's value as it would be typed after `key=`."""
    if isinstance(value, (list, tuple)):
        return ",".join(typed(v) for v in value)
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.10g}"
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


def emit_table(heads: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """A table; columns numbered in `right` are right-aligned. In a pipe every row stays on one line, however wide."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 10_000)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, head in enumerate(heads):
        table.add_column(head, justify="right" if place in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def is_terminal() -> bool:
    """Whether a person reads stdout."""
    return sys.stdout.isatty()
