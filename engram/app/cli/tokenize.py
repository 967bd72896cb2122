"""engram tokenize: the pieces that a run sees in a text, their ids, and what they cost."""

from __future__ import annotations

from typing import Any

import click

from engram.app.cli.options import json_option, recipe_class, recipe_option, run_argument
from engram.app.cli.output import json_line
from engram.core.errors import ConfigError


@click.command("tokenize")
@run_argument
@click.argument("source", metavar="TEXT|FILE|-", type=click.Path(allow_dash=True))
@json_option
@recipe_option
def command(run: str, source: str, as_json: bool, recipe_file: str | None) -> None:
    """Show the tokens of a text as a run sees them: pieces, ids, how many, and what they cost in memory and compute."""
    from engram.app.run import load
    from engram.app.tokens import token_cost
    from engram.data.text_input import text_records

    found = load(run, recipe=recipe_class(recipe_file))
    vocabulary = getattr(found.spec, "vocabulary", None)
    if vocabulary is None:
        raise ConfigError(f"{run} does not read text, so it has no tokens")
    for name, record in text_records(source, ("text", "prompt", "input"), whole=True):
        text = record if isinstance(record, str) else next((str(record[k]) for k in record), "")
        ids = vocabulary.encode(text)
        cost = token_cost(found, len(ids))
        facts: dict[str, Any] = {"input": name, "tokens": len(ids), "bytes": len(text.encode()), **cost}
        if as_json:
            click.echo(json_line(facts | {"ids": ids, "pieces": [vocabulary.piece(i) for i in ids]}))
            continue
        click.echo("  ".join(f"{vocabulary.piece(i)!r}:{i}" for i in ids))
        unknown = f", {ids.count(1):,} unknown" if 1 in ids else ""
        each = f"{facts['bytes'] / max(len(ids), 1):.2f} bytes each"
        click.echo(f"{len(ids):,} tokens for {facts['bytes']:,} bytes ({each}){unknown}", err=True)
        for line in cost["sentences"]:
            click.echo(line, err=True)
