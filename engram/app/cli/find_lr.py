"""engram find-lr: which learning rates train this network on this data."""

from __future__ import annotations

import dataclasses
import shlex

import click

from engram.app.cli.arguments import KnobCommand, choose
from engram.app.cli.complete import complete_train
from engram.app.cli.options import json_option
from engram.app.cli.output import emit, emit_json, say
from engram.app.cli.train import check_knobs

SURE = 0.3  # confidence below which a range is a guess


@click.command("find-lr", cls=KnobCommand)
@click.argument("arguments", nargs=-1, metavar="[RECIPE|PATH] [key=value ...]", shell_complete=complete_train)
@json_option
def command(arguments: tuple[str, ...], as_json: bool) -> None:
    """Find learning rates that train.

    A range test (Smith 2015); nothing is kept.
    """
    recipe, knobs = choose(arguments)
    check_knobs(knobs)
    from engram.app.api import find_lr

    found = find_lr(recipe, **knobs)
    if as_json:
        emit_json(dataclasses.asdict(found))
        return
    emit(f"suggested   {found.suggested:.3g}")
    emit(f"range       {found.low:.3g} to {found.high:.3g}")
    emit(f"confidence  {found.confidence:.2f}")
    if found.confidence < SURE:
        say("the loss did not fall clearly, so do not rely on these; more rows per step (batch=...) make it clearer")
    else:
        words = [word for word in arguments if not word.startswith("optim.lr=")]
        say(f"next: {shlex.join(['engram', 'train', *words, f'optim.lr={found.suggested:.2g}'])}")
