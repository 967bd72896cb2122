"""A linear classifier of hashed n-grams that votes beside a network: its logits are added and both are trained together.

Paper: Cheng et al. 2016, "Wide & deep learning". It knows rare words by their letters and needs few texts, so it helps where
most words are seen once. The n-grams come from `engram.data.grams`: numbers below half the table are words, the others letters.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

GAIN = 5.0  # the weights start at 0 and move this much faster than those of the network


class GramVotes(nn.Embedding):
    """n-grams (B, G) of texts, padded with 0, to logits (B, classes); `size` numbers that n-grams are hashed to."""

    def __init__(self, size: int, classes: int) -> None:
        super().__init__(size, classes)
        nn.init.zeros_(self.weight)

    def forward(self, grams: Tensor | None) -> Tensor:
        """The rows of a text's n-grams added up, those of words and those of letters as unit vectors each."""
        if grams is None:
            raise ValueError("this network reads the n-grams of each text too: give grams (B, G)")
        letters = (grams >= len(self.weight) // 2).to(self.weight)
        words = (grams > 0).to(self.weight) - letters
        shares = _unit(words) + _unit(letters)
        return GAIN * F.embedding_bag(grams, self.weight, per_sample_weights=shares, mode="sum")


def _unit(kind: Tensor) -> Tensor:
    """Ones and zeros (B, G), each row divided by its length as a vector."""
    return kind / kind.sum(1, keepdim=True).clamp(min=1).sqrt()
