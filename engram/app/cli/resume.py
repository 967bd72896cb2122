"""engram resume: go on with a run that was stopped, killed or crashed."""

from __future__ import annotations

import click

from engram.app.cli.options import json_option, recipe_class, recipe_option, run_argument
from engram.app.cli.train import show_run


@click.command("resume")
@run_argument
@recipe_option
@json_option
@click.option("--no-report", is_flag=True, help="Leave report.html and report.png out.")
@click.option("--quiet", is_flag=True, help="No talk on stderr, only errors.")
def command(run: str, recipe_file: str | None, as_json: bool, no_report: bool, quiet: bool) -> None:
    """Go on with a stopped run, exactly as if it had not stopped."""
    from engram.app.api import resume

    done = resume(run, recipe=recipe_class(recipe_file), progress=not quiet, report=not no_report)
    show_run(done, as_json, quiet)
