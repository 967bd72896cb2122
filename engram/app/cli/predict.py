"""engram predict: a run on new inputs, row by row, as many as there are."""

from __future__ import annotations

import csv
import itertools
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from ctypes import c_float
from pathlib import Path
from typing import IO, Any

import click

from engram.app.cli.options import recipe_class, recipe_option, run_argument
from engram.app.cli.output import is_terminal, json_line, plain, say
from engram.core.errors import DataError

Row = dict[str, Any]


@click.command("predict")
@run_argument
@click.argument("source", metavar="FILE|-", type=click.Path(allow_dash=True))
@click.option("--json", "as_json", is_flag=True, help="JSON lines: one object per input.")
@click.option("--rows", default=256, show_default=True, type=click.IntRange(1), help="Inputs read and predicted at a time.")
@click.option("--out", type=click.Path(dir_okay=False), metavar="FILE", help="Write there instead of to stdout.")
@recipe_option
def command(run: str, source: str, as_json: bool, rows: int, out: str | None, recipe_file: str | None) -> None:
    """Predict with a trained run.

    FILE is an image, a folder of images, a table, a file of texts, a text itself in quotation marks, or - for standard input.
    Prints CSV (input,label,probability,p(class)... or
    input,value), and at a terminal one readable line for a single input. Images of a folder that cannot be read are named on
    stderr, with --json as {"input", "unreadable"}; it fails when most cannot be read.
    """
    from engram.app.run import load

    stream = load(run, recipe=recipe_class(recipe_file)).stream(source, rows)
    first = list(itertools.islice(stream, 2))
    if not first:
        raise DataError(f"{'standard input' if source == '-' else source} holds nothing to predict")
    found = _told(itertools.chain(first, stream), as_json)
    with _target(out) as file:
        if as_json:
            _write_json(found, file, rows)
        elif len(first) == 1 and out is None and is_terminal():
            file.write(f"{_readable(first[0])}\n")
        else:
            _write_csv(found, file, rows)


def _told(rows: Iterable[Row], keep: bool) -> Iterator[Row]:
    """The rows. Pictures that cannot be read are counted on stderr at the end; where they are not kept each is said there."""
    total = lost = 0
    for row in rows:
        total += 1
        if "unreadable" in row:
            lost += 1
            if not keep:
                say(f"warning  {row['unreadable']}")
                continue
        yield row
    if lost:
        say(f"warning  {lost:,} of {total:,} images cannot be read and have no prediction")


@contextmanager
def _target(out: str | None) -> Iterator[IO[str]]:
    """stdout, or a file that is there only when the input was read to its end."""
    if out is None:
        yield sys.stdout
        return
    path = Path(out)
    beside = path.with_name(path.name + ".tmp")
    try:
        with beside.open("w", encoding="utf-8", newline="") as file:
            yield file
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _write_json(rows: Iterable[Row], file: IO[str], chunk: int) -> None:
    for number, row in enumerate(rows, 1):
        file.write(json_line(row) + "\n")
        if number % chunk == 0:
            file.flush()


def _write_csv(rows: Iterable[Row], file: IO[str], chunk: int) -> None:
    writer: csv.DictWriter[str] | None = None
    for number, row in enumerate(rows, 1):
        flat = _flat(row)
        if writer is None:
            writer = csv.DictWriter(file, list(flat), lineterminator="\n")
            writer.writeheader()
        writer.writerow(flat)
        if number % chunk == 0:
            file.flush()  # a reader at the other end of a pipe sees each chunk as soon as it is there


def _flat(row: Row) -> dict[str, Any]:
    """One level of columns: {"probabilities": {"cat": 0.9}} is {"p(cat)": 0.9}."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            short = "p" if name == "probabilities" else name
            flat |= {f"{short}({key})": v for key, v in value.items()}
        else:
            flat[name] = json_line(value) if isinstance(value, (list, tuple)) else plain(value)
    return {name: _digits(v) if isinstance(v, float) else v for name, v in flat.items()}


def _digits(value: float) -> str:
    """Nine digits hold a float32 exactly; other numbers, amounts in their own units, have up to fifteen."""
    return f"{value:.9g}" if c_float(value).value == value else f"{value:.15g}"


def _readable(row: Row) -> str:
    """'cat 0.973', or the value."""
    shown = [v for name, v in row.items() if name != "input" and not isinstance(v, (dict, list, tuple))]
    return "  ".join((f"{v:.6g}" if abs(v) < 1e6 else f"{v:.12g}") if isinstance(v, float) else str(v) for v in shown)
