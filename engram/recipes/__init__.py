"""One experiment per file; found by file name, imported on demand. Listing does not import torch."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING

from engram.core.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from engram.core.recipe import Recipe


def names() -> list[str]:
    """The built-in recipes: the names of the files in this folder."""
    return sorted(p.stem for p in Path(__file__).parent.glob("*.py") if not p.stem.startswith("_"))


def summary(name: str) -> str:
    """The first line of a recipe file, read without importing it."""
    text = (Path(__file__).parent / f"{name}.py").read_text("utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]


def find(name: str) -> type[Recipe]:
    """The Recipe of a built-in name, or of the user's own file `path/recipe.py`. Raises ConfigError with a suggestion."""
    if name.endswith(".py"):
        return _from_file(Path(name))
    if name not in names():
        raise ConfigError(f"no recipe {name!r}{did_you_mean(name, names())}; `engram list` shows all")
    return _the_recipe(importlib.import_module(f"engram.recipes.{name}"), name)


def _from_file(path: Path) -> type[Recipe]:
    """Runs the user's own file; a run never does so by itself when it is opened."""
    spec = importlib.util.spec_from_file_location(path.stem, path) if path.is_file() else None
    if spec is None or spec.loader is None:
        raise ConfigError(f"no recipe file {path}; `engram new {path.stem}` writes one to start from")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's code may raise anything; say where
        raise ConfigError(f"{path} does not run: {type(error).__name__}: {error}") from error
    return _the_recipe(module, str(path))


def _the_recipe(module: object, name: str) -> type[Recipe]:
    from engram.core.recipe import Recipe

    wanted = getattr(module, "__name__", "")
    found = [
        c for c in vars(module).values()
        if inspect.isclass(c) and issubclass(c, Recipe) and not inspect.isabstract(c) and c.__module__ == wanted
    ]  # fmt: skip
    if len(found) != 1:
        raise ConfigError(f"{name} must define exactly one Recipe, it defines {len(found)}")
    return found[0]


class _Recipes(types.ModuleType):
    """`engram.recipes()` lists the recipes, and `engram.recipes.cnn` is still a module: the package answers calls itself."""

    def __call__(self) -> dict[str, str]:
        return {name: summary(name) for name in names()}


sys.modules[__name__].__class__ = _Recipes
