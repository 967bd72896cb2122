"""GloVe: vectors whose products are the logarithms of how often words stand together (Pennington et al. 2014).

    w_i . w~_j + b_i + b~_j = log X_ij        for every pair that occurs (Eq. 7)

X_ij counts how often word j stands near word i. Each word has a vector as itself, w, and one as company, w~; since X is
symmetric they differ only by their random start, and their sum is what is used (section 4.2).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GloVe(nn.Module):
    """Tables "words" and "company" (words, D), and a bias per word in each role."""

    def __init__(self, words: int, width: int):
        super().__init__()
        for name in ("words", "company"):
            start = (torch.rand(words, width) - 0.5) / width  # as the reference code starts
            self.add_module(name, nn.Embedding(words, width, _weight=start))
            self.add_module(f"{name}_bias", nn.Embedding(words, 1, _weight=torch.zeros(words, 1)))
        self.words: nn.Embedding
        self.company: nn.Embedding
        self.words_bias: nn.Embedding
        self.company_bias: nn.Embedding

    def forward(self, pairs: Tensor) -> Tensor:
        """Pairs (B, 2) of words -> the logarithm of their count (B,), as the vectors say."""
        i, j = pairs.unbind(1)
        product = (self.words(i) * self.company(j)).sum(1)
        return product + self.words_bias(i).squeeze(1) + self.company_bias(j).squeeze(1)

    def vectors(self) -> Tensor:
        """(words, D): w + w~."""
        return (self.words.weight + self.company.weight).detach()
