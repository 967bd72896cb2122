"""engram chat: talk with a run that was trained on conversations."""

from __future__ import annotations

import sys
from typing import Any

import click

from engram.app.cli.options import recipe_class, recipe_option, run_argument
from engram.app.cli.output import is_terminal, json_line
from engram.core.errors import ConfigError


@click.command("chat")
@run_argument
@click.option("--system", default="", metavar="TEXT", help="What the assistant is told before you speak.")
@click.option("--tokens", default=200, show_default=True, type=click.IntRange(1), help="Longest answer, in tokens.")
@click.option("--temperature", default=0.7, show_default=True, type=click.FloatRange(0), help="0 takes the most probable.")
@click.option("--top-p", default=0.95, show_default=True, type=click.FloatRange(0, 1, min_open=True))
@click.option("--seed", default=0, show_default=True, type=int)
@click.option("--json", "as_json", is_flag=True, help="JSON lines: one object per answer.")
@recipe_option
def command(
    run: str, system: str, tokens: int, temperature: float, top_p: float, seed: int, as_json: bool, recipe_file: str | None
) -> None:
    """Talk with a trained chat run, line by line; an empty line or Ctrl-D ends it, /new starts a new conversation."""
    from engram.app.run import load
    from engram.inference.generate import Generator

    found = load(run, recipe=recipe_class(recipe_file))
    talker, template = found.predictor, getattr(found.spec, "template", None)
    if not isinstance(talker, Generator) or template is None:
        raise ConfigError(f"{run} was not trained on conversations; train one with: engram train chat start_from={run}")
    start: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    talk = list(start)
    while True:
        if is_terminal() and not as_json:
            click.echo("you: ", nl=False, err=True)
        line = sys.stdin.readline().rstrip("\n")
        if not line:
            return
        if line == "/new":
            talk = list(start)
            continue
        talk.append({"role": "user", "content": line})
        answer = ""
        for piece in talker.stream(talk, tokens=tokens, temperature=temperature, top_p=top_p, seed=seed + len(talk)):
            answer += piece.text
            if not as_json:
                click.echo(piece.text, nl=False)
                sys.stdout.flush()
        click.echo(json_line({"input": line, "text": answer}) if as_json else "")
        talk.append({"role": "assistant", "content": answer})
