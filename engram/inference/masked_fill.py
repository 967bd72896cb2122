"""Masked-token completion: the most probable tokens for every hidden token of a text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.core.batch import Batch
from engram.core.errors import ConfigError
from engram.core.predictor import Field, Figure, Predictor, Scores
from engram.core.spec import Spec

EXAMPLES = 8
IGNORE, MASK = -100, 4


class GapSpec(Protocol):
    """What filling asks of the Spec."""

    @property
    def vocabulary(self) -> Any: ...
    def prompts(self, raw: Any) -> list[str]: ...


class MaskFiller(Predictor):
    """`model` maps (tokens, lengths, places) to logits (N, vocabulary) of the N places that are set; ids below `special` stand
    for no text and are never given."""

    takes: ClassVar = {"input": Field("input", "a text with <mask> or [MASK], a list of them, or a path to a file of lines")}
    gives: ClassVar = {
        "text": Field("text", "the text with the most probable token in every gap"),
        "fills": Field("hits", "for every gap its most probable tokens: token, probability, 0 to 1"),
    }

    def __init__(self, model: nn.Module, spec: Spec, special: int):
        self.model, self.spec, self.special = model, spec, special

    def tune(self, *, bf16: bool, channels_last: bool) -> None:
        """Stays in the weights' own format."""

    def outputs(self, batch: Batch) -> dict[str, Tensor]:
        """{"nll" (B,) nats over the hidden tokens of each row, "right" (B,) found, "items" (B,) hidden}; {} without targets."""
        if "targets" not in batch:
            return {}
        chosen = batch["targets"] != IGNORE
        logits, targets = self._logits(batch, chosen), batch["targets"][chosen].cpu()
        rows = chosen.nonzero()[:, 0].cpu()
        sums = torch.zeros(2, len(chosen))
        sums[0].index_add_(0, rows, F.cross_entropy(logits, targets, reduction="none"))
        sums[1].index_add_(0, rows, (logits.argmax(1) == targets).float())
        return {"nll": sums[0], "right": sums[1], "items": chosen.sum(1).float().cpu()}

    def scores(self, batches: Iterable[Batch], rows: Iterable[list[Any]]) -> Scores | None:
        """Perplexity and accuracy of hidden tokens; some filled texts as examples."""
        found = [self.outputs(batch) for batch in batches if "targets" in batch]
        if not found:
            return None
        parts = torch.stack([torch.cat([f[name].double() for f in found]) for name in ("nll", "right", "items")], 1)
        figures = {
            "perplexity": Figure("perplexity of hidden tokens", lambda s: (s[:, 0] / s[:, 2].clamp(min=1)).exp()),
            "loss": Figure("nats per hidden token", lambda s: s[:, 0] / s[:, 2].clamp(min=1)),
            "accuracy": Figure("hidden tokens found", lambda s: s[:, 1] / s[:, 2].clamp(min=1), "percent"),
        }
        beside = f"guessing evenly among all tokens has {self._spec.vocabulary.size:,}"
        some = [row for row in next(iter(rows), [])[:EXAMPLES] if isinstance(row, dict) and "answers" in row]
        wrote = self(input=some)["text"] if some else []
        examples = [
            {"input": row["text"], "target": ", ".join(row["answers"]), "prediction": text}
            for row, text in zip(some, wrote, strict=True)
        ]
        return Scores(figures, parts, "windows of text", beside, examples)

    def __call__(self, *, input: Any, top: int = 5) -> dict[str, list[Any]]:
        """{"text": filled, "fills": [[{"token", "probability"}, ...] for every gap]}, one entry per prompt.

        Each gap is filled as if the others stayed hidden. Raises DataError and ConfigError.
        """
        if top < 1:
            raise ConfigError(f"top={top} must be at least 1")
        v = self._spec.vocabulary
        batch = self.spec.encode(self._spec.prompts(input))
        probabilities = self._logits(batch, batch["tokens"] == MASK)[:, self.special :].softmax(1)
        best, ids = probabilities.topk(min(top, probabilities.shape[1]), 1)
        ids = ids + self.special
        texts: list[str] = []
        fills: list[list[Any]] = []
        done = 0
        for row, length in zip(batch["tokens"].tolist(), batch["lengths"].tolist(), strict=True):
            mine = slice(done, done + row.count(MASK))
            done = mine.stop
            fills.append([
                [{"token": v.piece(i), "probability": p} for i, p in zip(some, chances, strict=True)]
                for some, chances in zip(ids[mine].tolist(), best[mine].tolist(), strict=True)
            ])  # fmt: skip
            first = iter(ids[mine, 0].tolist())
            texts.append(v.decode([next(first) if i == MASK else i for i in row[:length]]))
        return {"text": texts, "fills": fills}

    def _logits(self, batch: Batch, places: Tensor) -> Tensor:
        """(N, vocabulary) float32 on the CPU."""
        device = next(self.model.parameters()).device
        lengths = batch["lengths"].to(device) if "lengths" in batch else None
        with torch.inference_mode():
            return self.model.eval()(batch["tokens"].to(device), lengths, places.to(device)).float().cpu()

    @property
    def _spec(self) -> GapSpec:
        return self.spec  # type: ignore[return-value]
