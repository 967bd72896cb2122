"""The layer table of a run, kept in its folder so that the report of a custom recipe needs none of its code."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import torch

from engram.checkpoint.files import write_json
from engram.checkpoint.folder import RunFolder
from engram.core.errors import EngramError
from engram.core.recipe import Recipe
from engram.core.spec import Spec
from engram.insight.summary import summarise

# what a recipe may raise on a batch of zeros, or one of another version on an old run; then there is no table
RECIPE_ERRORS = (ArithmeticError, AttributeError, LookupError, NotImplementedError, RuntimeError, TypeError, ValueError)


def layer_table(recipe: Recipe, spec: Spec) -> list[dict[str, Any]]:
    """The layers of a recipe's networks for one spec, from a copy built on the CPU; the last row is the total."""
    with torch.random.fork_rng(devices=[]):
        task = recipe.make_task(spec)
    return [asdict(row) for row in summarise(task, spec.example())]


def write_layers(folder: RunFolder, recipe: Recipe, spec: Spec) -> None:
    """Write layers.json; nothing when the recipe cannot run on a batch of zeros."""
    try:
        table = layer_table(recipe, spec)
    except (EngramError, *RECIPE_ERRORS):
        return
    write_json(folder.path / "layers.json", table)


def read_layers(folder: RunFolder) -> list[dict[str, Any]]:
    """The kept table; [] when there is none or it is damaged."""
    try:
        return json.loads((folder.path / "layers.json").read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return []
