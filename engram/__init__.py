"""Engram: every kind of neural network trained, looked into, put right, reused and served in the same way.

    import engram
    run = engram.train("cnn", epochs=5)      # or: engram.train("houses.csv", target="price")
    run.predict("photo.png")
    engram.load("runs/cnn-digits-001").evaluate()

Importing this package does not import torch; the first use of a name below does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engram import recipes as recipes
    from engram.app.api import compare, find_lr, resume, train
    from engram.app.run import Run, load
    from engram.core.data import Data, Note, Summary
    from engram.core.errors import ConfigError, DataError, Diverged, EngramError, OutOfMemory, RunError
    from engram.core.knobs import knob
    from engram.core.optim import Optim
    from engram.core.plan import Evaluated, Event, Plan, Saved, Stepped, Stopped
    from engram.core.predictor import Field, Predictor
    from engram.core.recipe import Recipe
    from engram.core.spec import Spec
    from engram.core.task import Ctx, Phase, Task
    from engram.training.fit import fit

__version__ = "0.1.0"

_HOMES = {
    "engram.app.api": ("train", "resume", "compare", "find_lr"),
    "engram.app.run": ("Run", "load"),
    "engram.training.fit": ("fit",),
    "engram.core.recipe": ("Recipe",),
    "engram.core.knobs": ("knob",),
    "engram.core.task": ("Task", "Phase", "Ctx"),
    "engram.core.data": ("Data", "Summary", "Note"),
    "engram.core.spec": ("Spec",),
    "engram.core.predictor": ("Predictor", "Field"),
    "engram.core.optim": ("Optim",),
    "engram.core.plan": ("Plan", "Event", "Stepped", "Evaluated", "Saved", "Stopped"),
    "engram.core.errors": ("EngramError", "RunError", "ConfigError", "DataError", "Diverged", "OutOfMemory"),
}

__all__ = [
    "ConfigError",
    "Ctx",
    "Data",
    "DataError",
    "Diverged",
    "EngramError",
    "Evaluated",
    "Event",
    "Field",
    "Note",
    "Optim",
    "OutOfMemory",
    "Phase",
    "Plan",
    "Predictor",
    "Recipe",
    "Run",
    "RunError",
    "Saved",
    "Spec",
    "Stepped",
    "Stopped",
    "Summary",
    "Task",
    "compare",
    "find_lr",
    "fit",
    "knob",
    "load",
    "recipes",
    "resume",
    "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "recipes":  # the package itself, which can be called
        return importlib.import_module("engram.recipes")
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'engram' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
