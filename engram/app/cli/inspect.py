"""engram inspect: what a run does inside for one text."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import click

from engram.app.cli.options import json_option, recipe_class, recipe_option, run_argument
from engram.app.cli.output import json_line
from engram.core.errors import DataError


@click.command("inspect")
@run_argument
@click.argument("source", metavar="[TEXT|FILE|-]", required=False, type=click.Path(allow_dash=True))
@click.option("--layer", type=click.IntRange(1), help="Attention layer, from 1; the last if not given.")
@click.option("--head", type=click.IntRange(1), help="Attention head, from 1; the mean of all if not given.")
@click.option("--answer", default="", metavar="TEXT", help="The class or next token to explain; else the most probable.")
@click.option("--png", type=click.Path(dir_okay=False), metavar="FILE", help="Draw the attention map and saliency there.")
@json_option
@recipe_option
def command(
    run: str, source: str | None, layer: int | None, head: int | None, answer: str, png: str | None, as_json: bool,
    recipe_file: str | None,
) -> None:  # fmt: skip
    """Look inside a run.

    Text: attention of any layer and head, token probabilities, and what the answer hangs on. Pictures (generators and
    autoencoders): the looks of the report, written to RUN/views/ again, of the pictures in FILE or of the run's own test rows.
    """
    from engram.app.inside import draw, inside
    from engram.app.run import load
    from engram.checkpoint.files import write_bytes
    from engram.inference.pictures import Pictures

    found = load(run, recipe=recipe_class(recipe_file))
    if isinstance(found.predictor, Pictures):
        given = {"--layer": layer, "--head": head, "--answer": answer, "--png": png}
        if unused := [name for name, value in given.items() if value]:
            raise click.UsageError(f"{unused[0]} is for runs of text; the looks of pictures go to {found.path}/views/")
        pictures(found, source, as_json)
        return
    if source is None:
        raise click.UsageError("Missing argument 'TEXT|FILE|-'.")
    chunk = next(iter(found.spec.read(source)), None)
    if chunk is None or not len(chunk[1]):
        raise DataError(f"{source} holds no text")
    first = chunk[1][0] if isinstance(chunk[1], list) else chunk[1]
    seen = inside(found, first, layer=layer, head=head, answer=answer)
    if png:
        write_bytes(Path(png), draw(seen))
    if as_json:
        click.echo(json_line(seen))
        return
    said = seen["answer"]
    click.echo(f"answer {said['text']!r}, probability {said['probability']:.3f}")
    strongest = max(seen["saliency"] or [0.0]) or 1.0
    chances = [None, *(p.get("probability") for p in seen.get("probabilities", []))]
    room = max(10, min(40, shutil.get_terminal_size().columns - 40))
    for at, token in enumerate(seen["tokens"]):
        bar = "#" * round(room * seen["saliency"][at] / strongest) if seen["saliency"] else ""
        chance = f"{chances[at]:8.3f}" if at < len(chances) and chances[at] is not None else " " * 8
        click.echo(f"{token!r:>16} {chance}  {bar}")
    if seen["attention"] is not None:
        click.echo(
            f"{len(seen['layers'])} attention layers of {seen['heads']} heads; --png FILE draws one, --json gives it", err=True
        )


def pictures(found: Any, source: str | None, as_json: bool) -> None:
    """The looks of a run of pictures, on file."""
    from engram.app.views import write_views

    if source is None:
        data = found.recipe.make_data()
        split = next(s for s in ("test", "val", "train") if data.size(s))
        views = write_views(found.path, found.predictor, lambda: data.batches(split))
    else:
        views = write_views(found.path, found.predictor, lambda: (found.spec.encode(c) for _, c in found.spec.read(source)))
    for view in views:
        path = found.path / "views" / f"{view.name}.png"
        click.echo(json_line({"title": view.title, "kind": view.kind, "path": path} | view.data) if as_json else str(path))
    if not views:
        click.echo("this run has no looks inside", err=True)
