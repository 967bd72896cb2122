"""engram compare: several runs side by side."""

from __future__ import annotations

import click

from engram.app.cli.options import json_option, runs_argument
from engram.app.cli.output import emit_json


@click.command("compare")
@runs_argument
@json_option
def command(runs: tuple[str, ...], as_json: bool) -> None:
    """Show runs side by side.

    Knobs that differ, test figures with intervals, and whether the difference is chance.
    """
    if len(runs) < 2:
        raise click.UsageError(f"compare takes two runs or more, got {len(runs)}; `engram list runs` lists them")
    from engram.app.api import compare

    found = compare(*runs)
    emit_json(found)
