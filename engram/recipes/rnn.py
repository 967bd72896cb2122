"""Texts to classes, words to tags or text from text with an Elman network, the simplest network with a memory.

engram train rnn data=reviews.csv
engram train rnn data=entities.conll
engram train rnn data=novel.txt
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from engram.recipes._recurrent import RecurrentRecipe


@dataclass(frozen=True, kw_only=True)
class Rnn(RecurrentRecipe):
    """The simplest recurrent network (Elman 1990): the state is a tanh of the input and the last state."""

    cell: ClassVar = "rnn"
