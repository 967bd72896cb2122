"""From text to text with an encoder-decoder: translations, summaries; many at once, sorted by length, by beam search."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.core.batch import Batch
from engram.core.errors import ConfigError
from engram.core.predictor import Field, Figure, Predictor, Scores
from engram.core.spec import Spec
from engram.inference.beam import END, Hypothesis, beam_search, greedy
from engram.inference.bleu import BLEU, CHRF, Measure

EXAMPLES = 16
TOKENS = 8192  # of the sources, padding and beams included, that are decoded together


class TextSpec(Protocol):
    """What the translator asks of the Spec."""

    context: int
    target_context: int

    @property
    def target_vocabulary(self) -> Any: ...
    def texts(self, raw: Any) -> list[str]: ...
    def source_ids(self, text: str) -> list[int]: ...
    def references(self, row: Any) -> list[str]: ...
    def decode(self, ids: Sequence[int]) -> str: ...


class Translator(Predictor):
    """`model` maps (source, source_lengths, target_in) to logits and has `start` and `step`; see engram.inference.beam.

    beams, penalty: the search when a call does not say otherwise; beams=1 is greedy
    growth:         a target has at most growth times the tokens of its source, and 10 more; 0 = as many as the Spec allows
    measures:       what `scores` compares a text with its references by
    special:        ids below it stand for no text and are never written, but for </s>
    repeats:        no so many tokens in a row come twice in one target; 0 = they may
    baseline:       (name, what knowing nothing writes for a source), measured beside the model
    """

    takes: ClassVar = {"input": Field("input", "a text, a list of them, rows with a source, or a path to a file of lines")}
    gives: ClassVar = {"text": Field("text", "the target text")}

    def __init__(
        self,
        model: nn.Module,
        spec: Spec,
        *,
        beams: int = 5,
        penalty: float = 1.0,
        growth: float = 2.0,
        measures: Sequence[Measure] = (BLEU, CHRF),
        special: int = 6,
        baseline: tuple[str, Callable[[str], str]] | None = None,
        repeats: int = 0,
    ):
        self.model, self.spec, self.beams, self.penalty, self.growth = model, spec, beams, penalty, growth
        self.measures, self.banned = tuple(measures), tuple(i for i in range(special) if i != END)
        self.baseline, self.repeats = baseline, repeats

    @property
    def _spec(self) -> TextSpec:
        return self.spec  # type: ignore[return-value]

    def tune(self, *, bf16: bool, channels_last: bool) -> None:
        """Compute with a copy of the model in bfloat16, where training did."""
        if bf16:
            self.model = copy.deepcopy(self.model).to(torch.bfloat16)

    def outputs(self, batch: Batch) -> dict[str, Tensor]:
        """{"nll" (B,) nats over the target of each row, "items" (B,) its tokens}; {} without targets."""
        if "target" not in batch:
            return {}
        device = next(self.model.parameters()).device
        source, lengths, target = (batch[n].to(device) for n in ("source", "source_lengths", "target"))
        with torch.inference_mode():
            logits = self.model.eval()(source, lengths, target[:, :-1]).float()
            each = F.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten(), ignore_index=0, reduction="none")
        return {"nll": each.view(len(target), -1).sum(1).cpu(), "items": (target[:, 1:] != 0).sum(1).cpu()}

    def scores(self, batches: Iterable[Batch], rows: Iterable[list[Any]]) -> Scores | None:
        """The measures of rows with references, over the texts that the search finds, and perplexity per target token."""
        given = [row for chunk in rows for row in chunk]
        if not given:
            return None
        references = [self._spec.references(row) for row in given]
        texts = self(input=given)["text"]
        columns = [
            torch.tensor([m.count(text, known) for text, known in zip(texts, references, strict=True)], dtype=torch.float64)
            for m in self.measures
        ]
        found = [self.outputs(batch) for batch in batches]
        columns.append(torch.stack([torch.cat([f[n].double() for f in found]) for n in ("nll", "items")], 1))
        figures, first = {}, 0
        for measure in self.measures:
            figures[measure.name] = _of_columns(measure.figure, first, first + measure.columns)
            first += measure.columns
        figures["perplexity"] = Figure("perplexity per token", lambda s, at=first: (s[:, at] / s[:, at + 1]).exp())
        examples = [
            {"input": self._spec.texts(row)[0], "target": known[0], "prediction": text}
            for row, known, text in zip(given[:EXAMPLES], references, texts, strict=False)
        ]
        return Scores(figures, torch.cat(columns, 1), "texts", self._beside(given, references), examples)

    def _beside(self, rows: Sequence[Any], references: Sequence[Sequence[str]]) -> str:
        if self.baseline is None:
            return ""
        name, write = self.baseline
        texts, first = [write(self._spec.texts(row)[0]) for row in rows], self.measures[0]
        counts = torch.tensor([first.count(*pair) for pair in zip(texts, references, strict=True)], dtype=torch.float64)
        return f"{name} reach {first.figure.words} {float(first.figure.statistic(counts.sum(0, keepdim=True))[0]):.1f}"

    def __call__(
        self, *, input: Any, beams: int | None = None, penalty: float | None = None, most: int = 0, repeats: int | None = None
    ) -> dict[str, list[Any]]:
        """{"text": one per source}. `penalty` as in engram.inference.beam; `most` tokens at most, 0 as `growth` says.

        A source longer than the context is read up to it; see PairSpec.too_long. Raises DataError and ConfigError.
        """
        found = self.search(self._spec.texts(input), beams, penalty, most, repeats)
        return {"text": [self._spec.decode(hypotheses[0].ids) for hypotheses in found]}

    def search(
        self,
        texts: Sequence[str],
        beams: int | None = None,
        penalty: float | None = None,
        most: int = 0,
        repeats: int | None = None,
    ) -> list[list[Hypothesis]]:
        """The hypotheses of each text, best first (one where beams=1)."""
        beams, penalty = self.beams if beams is None else beams, self.penalty if penalty is None else penalty
        repeats = self.repeats if repeats is None else repeats
        if beams < 1 or penalty < 0 or most < 0 or repeats < 0:
            least = f"penalty={penalty}, most={most} and repeats={repeats} at least 0"
            raise ConfigError(f"beams={beams} must be at least 1, {least}")
        ids = [self._spec.source_ids(text) for text in texts]
        found: list[list[Hypothesis]] = [[] for _ in ids]
        self.model.eval()
        for group in _groups([len(i) for i in ids], TOKENS // beams):
            for row, hypotheses in zip(
                group, self._decode([ids[r] for r in group], beams, penalty, most, repeats), strict=True
            ):
                found[row] = hypotheses
        return found

    def _decode(self, ids: list[list[int]], beams: int, penalty: float, most: int, repeats: int) -> list[list[Hypothesis]]:
        device = next(self.model.parameters()).device
        lengths = torch.tensor([len(i) for i in ids], device=device)
        source = torch.zeros(len(ids), int(lengths.max()), dtype=torch.int64, device=device)
        for row, one in enumerate(ids):
            source[row, : len(one)] = torch.tensor(one, device=device)
        limits = [self._limit(len(i), most) for i in ids]
        model: Any = self.model
        if beams == 1:
            found = greedy(model, source, lengths, limits, penalty=penalty, banned=self.banned, repeats=repeats)
            return [[one] for one in found]
        how: dict[str, Any] = {"beams": beams, "penalty": penalty, "banned": self.banned, "repeats": repeats}
        return beam_search(model, source, lengths, limits, **how)

    def _limit(self, length: int, most: int) -> int:
        """Most tokens of a target with its </s>."""
        if most or not self.growth:
            return min(most or self._spec.target_context, self._spec.target_context)
        return min(int(self.growth * length) + 10, self._spec.target_context)


def _groups(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Row numbers in groups of like length, longest first, each of about `tokens` with its padding."""
    groups: list[list[int]] = []
    longest = 0
    for row in sorted(range(len(lengths)), key=lambda r: -lengths[r]):
        if not groups or longest * (len(groups[-1]) + 1) > tokens:
            groups.append([])
            longest = lengths[row]
        groups[-1].append(row)
    return groups


def _of_columns(figure: Figure, first: int, end: int) -> Figure:
    return Figure(figure.words, lambda sums: figure.statistic(sums[:, first:end]), figure.form)
