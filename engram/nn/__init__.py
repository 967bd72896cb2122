"""Leaf layers and pure functions that models, tasks and inference share. Imports torch and nothing of ours."""

from __future__ import annotations

from engram.nn.activations import ACTIVATIONS, activation
from engram.nn.attention import Attend, attention_weights, causal_mask, document_mask, lengths_mask
from engram.nn.cache import KVCache
from engram.nn.columns import Columns
from engram.nn.cross_cache import CrossCache, State
from engram.nn.init import SCHEMES, gain, initialise
from engram.nn.norm import NORMS, BatchNorm, norm
from engram.nn.positions import restart, rotate, sinusoidal, turns
from engram.nn.rms import RMSNorm

__all__ = [  # noqa: RUF022  # the order is the table of contents
    "ACTIVATIONS",
    "activation",
    "SCHEMES",
    "initialise",
    "gain",
    "NORMS",
    "norm",
    "BatchNorm",
    "RMSNorm",
    "Columns",
    "Attend",
    "attention_weights",
    "causal_mask",
    "document_mask",
    "lengths_mask",
    "restart",
    "rotate",
    "sinusoidal",
    "turns",
    "KVCache",
    "CrossCache",
    "State",
]
