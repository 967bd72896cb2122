"""From texts to vectors whose cosine says how alike they are in meaning."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from engram.core.batch import Batch
from engram.core.predictor import Field, Figure, Predictor, Scores
from engram.core.spec import Spec

EXAMPLES = 16
TOKENS = 8192  # read together, padding included
NEAR = (1, 5, 10)
ROWS = 1024  # compared with all others at once


class Texts(Protocol):
    """What embedding asks of the Spec."""

    def texts(self, raw: Any) -> list[str]: ...
    def ids(self, text: str, name: str) -> list[int]: ...


class Embedder(Predictor):
    """`model` maps (tokens, lengths) to unit vectors (B, width)."""

    takes: ClassVar = {"input": Field("input", "a text, a list of them, or a path to a file of lines")}
    gives: ClassVar = {"embedding": Field("hits", "numbers whose scalar product with those of another text is their likeness")}

    def __init__(self, model: nn.Module, spec: Spec):
        self.model, self.spec = model, spec

    def tune(self, *, bf16: bool, channels_last: bool) -> None:
        """Stays in the weights' own format."""

    def outputs(self, batch: Batch) -> dict[str, Tensor]:
        """{"source": (B, width)}, and "target" when the batch has it."""
        sides = [n for n in ("source", "target") if n in batch]
        return {n: self._vectors(batch[n], batch[f"{n}_lengths"]) for n in sides}

    def scores(self, batches: Iterable[Batch], rows: Iterable[list[Any]]) -> Scores | None:
        """How often the own target of a source is among the nearest of all different targets, and its mean reciprocal rank."""
        found = [self.outputs(batch) for batch in batches if "target" in batch]
        if not found:
            return None
        given = [row for chunk in rows for row in chunk]
        sources, targets = (torch.cat([f[n] for f in found]) for n in ("source", "target"))
        texts = [str(r.get("target", r.get("context", n))) for n, r in enumerate(given) if isinstance(r, dict)]
        if len(texts) < len(targets):  # rows are not at hand: each target is itself
            texts = list(map(str, range(len(targets))))
        first = {text: n for n, text in reversed(list(enumerate(texts)))}  # the same text twice is one thing to find
        different = sorted(first.values())
        place = {n: at for at, n in enumerate(different)}
        own = torch.tensor([place[first[text]] for text in texts])
        ranks, best = ranks_of(sources, targets[different], own)
        parts = torch.stack([*((ranks <= k).double() for k in NEAR), 1 / ranks.double(), torch.ones(len(ranks)).double()], 1)
        figures = {
            "mrr": Figure("mean reciprocal rank of the own target", lambda s: s[:, 3] / s[:, 4]),
            **{f"recall@{k}": _recall(n, k) for n, k in enumerate(NEAR)},
        }
        examples = [
            {"input": _said(row), "target": texts[n], "prediction": texts[different[int(best[n])]]}
            for n, row in enumerate(given[:EXAMPLES])
        ]
        guess = f"an order by chance has {sum(1 / n for n in range(1, len(different) + 1)) / len(different):.4f}"
        return Scores(figures, parts, f"pairs, among {len(different):,} targets", guess, examples)

    def __call__(self, *, input: Any) -> dict[str, list[Any]]:
        """{"embedding": a list of floats per text}."""
        return {"embedding": self.embed(self._spec.texts(input)).tolist()}

    def embed(self, texts: Sequence[str]) -> Tensor:
        """(texts, width) float32, those of like length read together."""
        ids = [self._spec.ids(text, f"text {n}" if len(texts) > 1 else "the text") for n, text in enumerate(texts, 1)]
        order = sorted(range(len(ids)), key=lambda n: len(ids[n]))
        found: list[tuple[list[int], Tensor]] = []
        while order:
            long = len(ids[order[-1]])
            group, order = order[-max(TOKENS // long, 1) :], order[: -max(TOKENS // long, 1)]
            tokens = torch.zeros(len(group), long, dtype=torch.int64)
            for at, n in enumerate(group):
                tokens[at, : len(ids[n])] = torch.tensor(ids[n])
            found.append((group, self._vectors(tokens, torch.tensor([len(ids[n]) for n in group]))))
        whole = torch.cat([v for _, v in found])
        return whole[torch.tensor([n for group, _ in found for n in group]).argsort()]

    def _vectors(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        device = next(self.model.parameters()).device
        tokens = tokens[:, : int(lengths.max())]  # padding beyond the longest row may be beyond the network's context
        with torch.inference_mode():
            return self.model.eval()(tokens.to(device), lengths.to(device)).float().cpu()

    @property
    def _spec(self) -> Texts:
        return self.spec  # type: ignore[return-value]


def ranks_of(sources: Tensor, targets: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """The rank (N,), from 1, of target `own` (N,) among all targets for each source, and the nearest target (N,).

    Targets that are as near count as nearer, so a network that gives one vector for all gains nothing.
    """
    ranks, best = [], []
    for part in range(0, len(sources), ROWS):
        cosines = sources[part : part + ROWS] @ targets.T
        mine = cosines.gather(1, own[part : part + ROWS, None])
        ranks.append((cosines >= mine).sum(1))
        best.append(cosines.argmax(1))
    return torch.cat(ranks), torch.cat(best)


def _recall(column: int, k: int) -> Figure:
    words = "own target is the nearest" if k == 1 else f"own target among the {k} nearest"
    return Figure(words, lambda s: s[:, column] / s[:, 4], "percent")


def _said(row: Any) -> str:
    return str(row.get("source", row.get("question", ""))) if isinstance(row, dict) else str(row)
