"""engram encode: pictures as the codes of a trained run."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import click

from engram.app.cli.options import json_option, recipe_class, recipe_option, run_argument
from engram.app.cli.output import emit, json_line


@click.command("encode")
@run_argument
@click.argument("source", metavar="PICTURES|-", type=click.Path(allow_dash=True))
@click.option("--output", "-o", type=click.Path(dir_okay=False), metavar="FILE", help="Write there: .npy or .csv.")
@click.option("--rows", default=256, show_default=True, type=click.IntRange(1), help="Pictures at a time: bounds the memory.")
@json_option
@recipe_option
def command(run: str, source: str, output: str | None, rows: int, as_json: bool, recipe_file: str | None) -> None:
    """Code pictures with RUN: CSV (input,c0,c1...) on stdout, or a file, whose path then goes to stdout.

    PICTURES is a file, a folder with all below it in sorted order, or - for standard input. A .npy file holds the codes alone,
    in that order.
    """
    from engram.app.rebuild import codes, csv_lines, write_codes
    from engram.app.run import load

    found = codes(load(run, recipe=recipe_class(recipe_file)), source, rows)
    if output is not None:
        shape = write_codes(found, Path(output))
        emit(json_line({"path": output, "shape": shape}) if as_json else output)
    elif as_json:
        for names, block in found:
            for name, code in zip(names, block, strict=True):
                emit(json_line({"input": name, "code": code.tolist()}))
    else:
        csv.writer(sys.stdout, lineterminator="\n").writerows(csv_lines(found))
