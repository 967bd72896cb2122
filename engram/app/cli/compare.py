"""engram compare: several runs side by side."""

from __future__ import annotations

import click

from engram.app.cli.options import json_option, runs_argument
from engram.app.cli.output import emit, emit_json, emit_table


@click.command("compare")
@runs_argument
@json_option
def command(runs: tuple[str, ...], as_json: bool) -> None:
    """Show runs side by side.

    Knobs that differ, test figures with 95 % intervals, and for each pair whether the difference is more than chance.
    """
    if len(runs) < 2:
        raise click.UsageError(f"compare takes two runs or more, got {len(runs)}; `engram list runs` lists them")
    from engram.app.api import compare
    from engram.app.compare import rows_of

    found = compare(*runs)
    if as_json:
        emit_json(found)
        return
    heads, rows = rows_of(found)
    emit_table(heads, rows)
    emit("")
    for pair in found["pairs"]:
        emit(pair["sentence"])
