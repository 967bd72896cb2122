"""engram eval: how good a run is on unseen data, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from engram.app.cli.options import json_option, recipe_class, recipe_option, run_argument
from engram.app.cli.output import emit, emit_json, emit_table, number, say


@click.command("eval")
@run_argument
@click.argument("path", required=False, type=click.Path())
@json_option
@recipe_option
def command(run: str, path: str | None, as_json: bool, recipe_file: str | None) -> None:
    """Figures with 95 % intervals on unseen data.

    They are those of the run's own test split, or of labelled data at PATH in the form that the run was trained on.
    """
    from engram.app.run import load

    result = load(run, recipe=recipe_class(recipe_file)).evaluate(path)
    if as_json:
        emit_json(result)
    else:
        show(result)


def show(result: dict[str, Any]) -> None:
    """The figures as tables: one line each with its interval, then one line per class."""
    metrics = result.get("metrics") or {}
    say(f"{result.get('verdict', '')}".strip() or "no figures")
    emit_table(["METRIC", "VALUE", "95 % LOW", "95 % HIGH"], list(_figures(metrics)), right=[1, 2, 3])
    if per_class := metrics.get("per_class"):
        emit("")
        heads = list(per_class[0])
        rows = [[number(row[head]) for head in heads] for row in per_class]
        emit_table([head.upper() for head in heads], rows, right=range(1, len(heads)))


def _figures(metrics: dict[str, Any]) -> Iterator[list[str]]:
    """Rows of name, value, low, high for {"value", "low", "high"}; plain numbers have no interval."""
    for name, value in metrics.items():
        if isinstance(value, dict) and "value" in value:
            yield [name, number(value["value"]), number(value["low"]), number(value["high"])]
        elif isinstance(value, (int, float)):
            yield [name, number(value), "", ""]
