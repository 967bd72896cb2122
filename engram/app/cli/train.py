"""engram train: look at the data, pick or take a network, train it, measure it, report on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from engram.app.cli.arguments import KnobCommand, choose, split_arguments
from engram.app.cli.complete import complete_train
from engram.app.cli.output import emit, emit_json, is_terminal, say, typed

EPILOG = """\b
Examples:
  engram train                                    recipe cnn on bundled digits
  engram train cnn --help                         every knob of recipe cnn
  engram train resnet data=photos/ epochs=20 optim.lr=0.05
  engram train houses.csv target=price            the network is picked and the reason said
  engram train my_recipe.py                       your own; `engram new my_recipe` writes one

The run folder is printed on stdout when that is not a terminal, so run=$(engram train cnn) works. Ctrl-C saves the state."""


@click.command("train", cls=KnobCommand, add_help_option=False, epilog=EPILOG)
@click.argument("arguments", nargs=-1, metavar="[RECIPE|PATH] [key=value ...]", shell_complete=complete_train)
@click.option("--out", type=click.Path(), metavar="DIR", help="The run folder; else runs/RECIPE-DATA-NUMBER.")
@click.option("--dry-run", is_flag=True, help="Show what would be trained, with memory and time; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="The result as JSON on stdout.")
@click.option("--no-report", is_flag=True, help="Leave report.html and report.png out.")
@click.option("--quiet", is_flag=True, help="No talk on stderr, only errors.")
@click.option("-h", "--help", "wants_help", is_flag=True, help="Show this page; after a RECIPE or PATH its knobs.")
@click.pass_context
def command(
    ctx: click.Context,
    arguments: tuple[str, ...],
    out: str | None,
    dry_run: bool,
    as_json: bool,
    no_report: bool,
    quiet: bool,
    wants_help: bool,
) -> None:
    """Train a network.

    RECIPE is a name from `engram list` or your own FILE.py; PATH is your data (a table, or a folder of images per class):
    Engram looks at it and picks the network. Every other argument sets a knob: epochs=5 optim.lr=0.01, in any order.
    """
    if wants_help:
        named = split_arguments(arguments)[0]
        click.echo(ctx.get_help() if named is None else _knob_page(ctx, named))
        return
    recipe, knobs = choose(arguments)
    check_knobs(knobs)
    if dry_run:
        from engram.app.cli.dry_run import in_words
        from engram.app.dryrun import dry_run as look

        found = look(recipe, knobs)
        emit_json(found) if as_json else emit(in_words(found))
        say("nothing was trained or written")
        return
    from engram.app.api import train

    run = train(recipe, out=out, progress=not quiet, report=not no_report, command=["engram", *ctx.obj], **knobs)
    show_run(run, as_json, quiet)


def check_knobs(knobs: dict[str, Any]) -> None:
    """A knob must not be mistaken for an argument of `engram.train` itself. Raises UsageError."""
    options = {"out": "; write --out DIR", "report": "; write --no-report", "progress": "; write --quiet"}
    if reserved := {"recipe", "command", "on_event", *options} & knobs.keys():
        raise click.UsageError(f"{min(reserved)} is not a knob{options.get(min(reserved), '')}")


def show_run(run: Any, as_json: bool, quiet: bool) -> None:
    """Where the run is, for scripts; as JSON with its figures."""
    if as_json:
        folder = run.folder
        report = str(folder.html) if folder.html.exists() else None
        emit_json({"run": str(run.path), "recipe": run.info["recipe"], "report": report, "result": run.result})
    elif quiet or not is_terminal():
        emit(str(run.path))


def _knob_page(ctx: click.Context, recipe: str) -> str:
    """Usage, then every knob with default, help and type: the recipe's own, those of all recipes, and nested ones by name."""
    import dataclasses

    from engram.app.pick import pick
    from engram.core.knobs import knobs_of
    from engram.core.recipe import Recipe
    from engram.recipes import find

    name, _, why = pick(recipe, {})
    cls = find(name)
    shared = {f.name for f in dataclasses.fields(Recipe)}
    own = vars(cls).get("__annotations__", {})
    groups: dict[str, list[tuple[str, str]]] = {f"Knobs of {Path(name).stem}": [], "Knobs of every recipe": []}
    for key, info in knobs_of(cls).items():
        head, dot, _ = key.partition(".")
        title = f"Knobs {head}.*" if dot else f"Knobs of {Path(name).stem}"
        if not dot and head in shared and head not in own:
            title = "Knobs of every recipe"
        kind = "" if info.type == "text" else f"  [{info.type.replace('|', ' | ')}]"
        groups.setdefault(title, []).append((f"{key}={typed(info.default)}", f"{info.help}{kind}"))
    page = ctx.make_formatter()
    page.write_usage("engram train", f"{recipe} [key=value ...] [OPTIONS]")
    page.write_paragraph()
    for line in [*why, (cls.__doc__ or "").strip().partition("\n")[0]]:
        page.write_text(line)
    for title, rows in groups.items():
        if rows:
            with page.section(title):
                page.write_dl(rows, col_max=40)
    page.write_paragraph()
    page.write_text("`engram train --help` lists the options.")
    return page.getvalue().rstrip()
