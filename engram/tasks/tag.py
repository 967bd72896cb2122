"""Tagging: one tag per word, by a conditional random field over the sentence or by cross-entropy per word.

Papers: Lample et al. 2016, section 2.2 (CRF). Entities are counted as conlleval does (Tjong Kim Sang & De Meulder 2003):
right only when the type, the first and the last word are right.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.core.batch import Batch, Logs
from engram.core.errors import ConfigError, DataError
from engram.core.task import Ctx, Phase, Task, batch_normed
from engram.nn.bio import IGNORE, constraints, count
from engram.nn.crf import CRF


class Tag(Task):
    """Words to tags.

    Batch: the tensors named by `inputs`, in the order that the model takes them; "lengths" (rows,); "tags" (rows, T), -100
    where there is none. The model gives scores (rows, T, tags). `tags` are their names, from which come the rules of BIO:
    decoding never breaks them. With `crf` transitions are learned and every word within the lengths needs a tag; without,
    each word's tag is learned by itself, and words without one are left out.
    """

    def __init__(
        self, model: nn.Module, tags: tuple[str, ...], inputs: tuple[str, ...] = ("tokens", "lengths"), *, crf: bool = True
    ) -> None:
        super().__init__()
        if len(set(tags)) < len(tags) or not tags:
            raise ConfigError(f"tags must be different names, at least one; got {', '.join(tags) or 'none'}")
        self.model, self.tags, self.inputs, self.learned = model, tags, inputs, crf
        self.crf = CRF(len(tags), *constraints(tags), learned=crf)

    def phases(self) -> tuple[Phase, ...]:
        """One phase, `model`, which trains the transitions too; its weight is the number of tagged words."""
        why = "batch normalisation computes its statistics over the whole batch"
        return (Phase("model", self.loss, self, self.weight, splits=not batch_normed(self.model), why_whole=why),)

    def forward(self, batch: Batch) -> Tensor:
        """Scores (rows, T, tags)."""
        return self.model(*[batch[name] for name in self.inputs])

    def weight(self, batch: Batch) -> Tensor:
        """Words that have a tag."""
        return (batch["tags"] != IGNORE).sum()

    def loss(self, batch: Batch, ctx: Ctx) -> tuple[Tensor, Logs]:
        """Negative log-probability of the tags in nats per tagged word. Raises DataError for tags that it cannot take."""
        return self._loss(self.forward(batch), batch), {}

    def chance_loss(self) -> float:
        """What a network that knows nothing shows: log of the number of tags; under the CRF's rules, of the growth of the
        number of allowed paths per word (the largest eigenvalue of the allowed transitions)."""
        if not self.learned:
            return math.log(len(self.tags))
        allowed = self.crf.get_buffer("transitions_mask").double().cpu()
        return math.log(float(torch.linalg.eigvals(allowed).abs().max()))

    def evaluate(self, batches: Iterable[Batch], ctx: Ctx) -> dict[str, float]:
        """`loss` (as trained), `accuracy` of words, `precision`, `recall` and `f1` of entities. Raises DataError when empty."""
        total, counts = 0.0, torch.zeros(5, dtype=torch.float64)
        for batch in batches:
            scores = self.forward(batch)
            paths = self.crf.decode(scores, batch["lengths"])
            counts += count(paths.cpu(), batch["tags"].cpu(), self.tags).sum(0)
            total += float(self._loss(scores, batch).double() * self.weight(batch))
        if counts[1] == 0:
            raise DataError("there are no tagged words to evaluate; give the split some rows")
        right, words, hit, found, wanted = counts.tolist()
        precision, recall = hit / max(found, 1), hit / max(wanted, 1)
        f1 = 2 * hit / max(found + wanted, 1)
        return {"loss": total / words, "accuracy": right / words, "precision": precision, "recall": recall, "f1": f1}

    def _loss(self, scores: Tensor, batch: Batch) -> Tensor:
        tags, lengths = batch["tags"], batch["lengths"]
        if scores.shape != (*tags.shape, len(self.tags)):
            raise DataError(
                f"the network gives {tuple(scores.shape)} for tags of {tuple(tags.shape)} with {len(self.tags)} names"
            )
        known = tags != IGNORE
        if not self.learned:
            summed = F.cross_entropy(scores.flatten(0, 1).float(), tags.flatten(), ignore_index=IGNORE, reduction="sum")
            return summed / known.sum().clamp(min=1)
        if not bool((known.sum(1) == lengths).all()):
            raise DataError("the CRF needs a tag for every word; give all words tags or set crf=False")
        if not bool(self.crf.allows(tags, lengths).all()):
            raise DataError('a sentence breaks BIO: "I-X" must follow "B-X" or "I-X"; repair its tags or set crf=False')
        return -self.crf(scores, tags, lengths).sum() / lengths.sum().clamp(min=1)
