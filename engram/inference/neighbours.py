"""What word vectors are used for: the words nearest to a word, and analogies, by the cosine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from engram.core.batch import Batch
from engram.core.predictor import Field, Predictor
from engram.core.spec import Spec


def unit(vectors: Tensor) -> Tensor:
    """(words, D) float32 with rows of length 1; a row of zeros stays zero."""
    return torch.nn.functional.normalize(vectors.float(), dim=1)


def nearest(units: Tensor, queries: Tensor, most: int, without: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and numbers (Q, most) of the words nearest to queries (Q, D), those in `without` (Q, any) left out.

    `units` (words, D) has rows of length 1.
    """
    scores = unit(queries) @ units.T
    scores.scatter_(1, without, -2.0)
    best = scores.topk(min(most, scores.shape[1] - without.shape[1]), dim=1)
    return best.values, best.indices


def analogy(units: Tensor, questions: Tensor, most: int = 1) -> tuple[Tensor, Tensor]:
    """a is to b as c is to what: the words nearest to b - a + c, the three left out (3CosAdd, Mikolov et al. 2013c).

    `questions` (Q, 3) numbers of a, b and c; gives cosines and numbers (Q, most).
    """
    a, b, c = (units[questions[:, n]] for n in range(3))
    return nearest(units, b - a + c, most, questions)


class Neighbours(Predictor):
    """Words to the words nearest to them. `vectors` (words, D) belong to the words of `spec`."""

    takes: ClassVar = {
        "input": Field("input", "a word, or a list of words; a list inside it is one row: words to take together")
    }
    gives: ClassVar = {"neighbours": Field("neighbours", "the nearest words with their cosine, nearest first")}

    def __init__(self, vectors: Tensor, words: Sequence[str], spec: Spec, most: int = 10):
        self.vectors, self.words, self.spec, self.most = vectors.detach().cpu(), words, spec, most
        self.units = unit(self.vectors)

    def outputs(self, batch: Batch) -> dict[str, Tensor]:
        """{"embeddings": (B, D)}: the mean vector of each row of "words" (B, L), in which -1 is no word."""
        words = batch["words"].cpu()
        there = (words >= 0).float().unsqueeze(2)  # (B, L, 1)
        return {"embeddings": (self.vectors[words.clamp(min=0)] * there).sum(1) / there.sum(1)}

    def __call__(self, *, input: Any) -> dict[str, list[Any]]:
        """{"neighbours": for each word a list of {"word", "similarity"}}; a row of several words asks for their mean."""
        batch = self.spec.encode(input)
        words = batch["words"]
        without = torch.where(words >= 0, words, words[:, :1])
        cosines, near = nearest(self.units, self.outputs(batch)["embeddings"], self.most, without)
        return {"neighbours": [self.named(c, n) for c, n in zip(cosines.tolist(), near.tolist(), strict=True)]}

    def named(self, cosines: list[float], numbers: list[int]) -> list[dict[str, Any]]:
        """[{"word", "similarity"}, ...]."""
        return [{"word": self.words[n], "similarity": round(c, 4)} for c, n in zip(cosines, numbers, strict=True)]


__all__ = ["Neighbours", "analogy", "nearest", "unit"]
