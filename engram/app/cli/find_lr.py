"""engram find-lr: which learning rates train this network on this data."""

from __future__ import annotations

import dataclasses

import click

from engram.app.cli.arguments import KnobCommand, split_arguments
from engram.app.cli.complete import complete_train
from engram.app.cli.options import json_option
from engram.app.cli.output import emit, emit_json


@click.command("find-lr", cls=KnobCommand)
@click.argument("arguments", nargs=-1, metavar="[RECIPE|PATH] [key=value ...]", shell_complete=complete_train)
@json_option
def command(arguments: tuple[str, ...], as_json: bool) -> None:
    """Find learning rates that train.

    A range test (Smith 2015); nothing is kept.
    """
    recipe, knobs = split_arguments(arguments)
    from engram.app.api import find_lr

    found = find_lr(recipe or "cnn", **knobs)
    emit_json(dataclasses.asdict(found)) if as_json else emit(str(found))
