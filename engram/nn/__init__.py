"""Leaf layers and pure functions that models, tasks and inference share. Imports torch and nothing of ours."""

from __future__ import annotations

from engram.nn.activations import ACTIVATIONS, activation
from engram.nn.columns import Columns
from engram.nn.init import SCHEMES, gain, initialise
from engram.nn.norm import NORMS, BatchNorm, norm

__all__ = [  # noqa: RUF022  # the order is the table of contents
    "ACTIVATIONS",
    "activation",
    "SCHEMES",
    "initialise",
    "gain",
    "NORMS",
    "norm",
    "BatchNorm",
    "Columns",
]
