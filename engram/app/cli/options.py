"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from engram.app.cli.complete import complete_run

if TYPE_CHECKING:
    from engram.core.recipe import Recipe

run_argument = click.argument("run", metavar="RUN", type=click.Path(), shell_complete=complete_run)
runs_argument = click.argument("runs", metavar="RUN RUN ...", type=click.Path(), nargs=-1, shell_complete=complete_run)
json_option = click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")
recipe_option = click.option(
    "--recipe",
    "recipe_file",
    type=click.Path(),
    metavar="FILE",
    help="The recipe file of a run that was trained with your own recipe; its code is run.",
)


def recipe_class(file: str | None) -> type[Recipe] | None:
    """The Recipe of --recipe FILE; None when it was not given. Raises ConfigError."""
    if file is None:
        return None
    from engram.recipes import find

    return find(file)
