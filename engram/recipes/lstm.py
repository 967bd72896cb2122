"""Texts to classes, words to tags, or text from text with an LSTM: what the data is says which.

engram train lstm data=reviews.csv
engram train lstm data=entities.conll
engram train lstm data=novel.txt
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from engram.recipes._recurrent import RecurrentRecipe


@dataclass(frozen=True, kw_only=True)
class Lstm(RecurrentRecipe):
    """Long short-term memory (Hochreiter & Schmidhuber 1997, Gers et al. 2000); tags by a CRF (Lample et al. 2016)."""

    cell: ClassVar = "lstm"
