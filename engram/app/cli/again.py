"""What `engram reconstruct` and `engram denoise` share: given pictures through a run and out again."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from engram.app.cli.options import json_option, recipe_class, recipe_option, run_argument
from engram.app.cli.output import emit, json_line

REST = """PICTURES is a file, a folder with all below it, or - for standard input. A grid has the first pictures as they are and
below them what became of them; a folder gets every picture under its own name. They come in the size that RUN works in."""


def again(verb: Literal["reconstruct", "denoise"], said: str, file: str) -> click.Command:
    """The command; `said` begins its help page, `file` is written in RUN/samples/ where no output is named."""

    @click.command(verb, help=f"{said}\n\n{REST}")
    @run_argument
    @click.argument("source", metavar="PICTURES|-", type=click.Path(allow_dash=True))
    @click.option("--output", "-o", type=click.Path(), metavar="FILE|DIR", help="A grid of pairs (.png), or a folder.")
    @click.option("--n", "-n", default=16, show_default=True, type=click.IntRange(1), help="How many pictures a grid shows.")
    @click.option("--rows", default=64, show_default=True, type=click.IntRange(1), help="Pictures at a time: bounds memory.")
    @json_option
    @recipe_option
    def command(run: str, source: str, output: str | None, n: int, rows: int, as_json: bool, recipe_file: str | None) -> None:
        from engram.app.rebuild import rebuild
        from engram.app.run import load

        found = load(run, recipe=recipe_class(recipe_file))
        target = Path(output) if output else found.path / "samples" / file
        names = rebuild(found, verb, source, target, n, rows)
        emit(json_line({"path": target, "n": len(names), "inputs": names}) if as_json else str(target))

    return command
