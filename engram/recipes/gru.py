"""Texts to classes, words to tags, or text from text with a GRU: an LSTM with fewer gates.

engram train gru data=reviews.csv
engram train gru data=entities.conll
engram train gru data=novel.txt
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from engram.recipes._recurrent import RecurrentRecipe


@dataclass(frozen=True, kw_only=True)
class Gru(RecurrentRecipe):
    """Gated recurrent units (Cho et al. 2014): an LSTM without a cell of its own, a quarter smaller."""

    cell: ClassVar = "gru"
