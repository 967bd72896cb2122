"""engram report: the page of a run, written again from what its folder holds."""

from __future__ import annotations

import click

from engram.app.cli.options import json_option, recipe_class, recipe_option, run_argument
from engram.app.cli.output import emit, emit_json


@click.command("report")
@run_argument
@click.option("--open", "show", is_flag=True, help="Show it in the browser.")
@recipe_option
@json_option
def command(run: str, show: bool, recipe_file: str | None, as_json: bool) -> None:
    """Write report.html and report.png; print the path of the page."""
    from engram.app.run import load

    page = load(run, recipe=recipe_class(recipe_file)).report()
    emit_json({"report": str(page)}) if as_json else emit(str(page))
    if show:
        import webbrowser

        webbrowser.open(page.resolve().as_uri())
