"""From sentences to one tag per word and the entities that the tags name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from engram.core.batch import Batch
from engram.core.predictor import Field, Figure, Predictor, Scores
from engram.core.spec import Spec
from engram.inference.outputs import Runner
from engram.nn.bio import count, spans
from engram.nn.crf import CRF

EXAMPLES = 8


class Sentences(Protocol):
    """What a tagger asks of the Spec beside `encode`."""

    def words(self, raw: Any) -> list[list[str]]:
        """The words of each sentence: one tag each."""
        ...


class Tagger(Predictor):
    """The best path of `crf` through the scores (B, T, tags) of `model`; it keeps the rules that the CRF holds."""

    takes: ClassVar = {"input": Field("input", "a sentence, a list of them, lists of words, or a path")}
    gives: ClassVar = {
        "words": Field("words", "the words of the sentence"),
        "tags": Field("tags", "the tag of each word"),
        "entities": Field("entities", "each entity's text, label, start (its first word) and end (the word after its last)"),
    }

    def __init__(
        self,
        model: nn.Module,
        crf: CRF,
        spec: Spec,
        tags: tuple[str, ...],
        inputs: tuple[str, ...] = ("tokens", "lengths"),
    ):
        self.crf, self.spec, self.tags = crf, spec, tags
        self.runner = Runner(model, inputs)

    def tune(self, *, bf16: bool, channels_last: bool) -> None:
        """See Predictor.tune."""
        self.runner.tune(self.spec.example(), bf16, channels_last)

    def outputs(self, batch: Batch) -> dict[str, Tensor]:
        """{"paths": (B, T) int64, -1 beyond the lengths}; with "targets" (B, T), -100 where there is none, if the batch has
        tags."""
        scores = self.runner(batch)
        device = self.crf.get_buffer("start_mask").device
        paths = self.crf.decode(scores.to(device), batch["lengths"].to(device)).cpu()
        return {"paths": paths} | ({"targets": batch["tags"].cpu()} if "tags" in batch else {})

    def scores(self, batches: Iterable[Batch], rows: Iterable[list[Any]]) -> Scores | None:
        """F1, precision and recall of entities (exact spans) and the accuracy of words."""
        found = [self.outputs(batch) for batch in batches if "tags" in batch]
        if not found:
            return None
        figures = {
            "f1": Figure("F1 of entities", lambda s: 2 * s[:, 2] / (s[:, 3] + s[:, 4]).clamp(min=1), "percent"),
            "precision": Figure("precision of entities", lambda s: s[:, 2] / s[:, 3].clamp(min=1), "percent"),
            "recall": Figure("recall of entities", lambda s: s[:, 2] / s[:, 4].clamp(min=1), "percent"),
            "accuracy": Figure("words with the right tag", lambda s: s[:, 0] / s[:, 1].clamp(min=1), "percent"),
        }
        parts = torch.cat([count(f["paths"], f["targets"], self.tags) for f in found])
        some = next(iter(rows), [])[:EXAMPLES]
        told = self(input=some) if some else {"words": [], "entities": []}
        examples = [
            {"input": " ".join(words), "target": "", "prediction": ", ".join(f"{e['text']} ({e['label']})" for e in entities)}
            for words, entities in zip(told["words"], told["entities"], strict=True)
        ]
        return Scores(figures, parts, "sentences", "tagging no word has F1 0", examples)

    def __call__(self, *, input: Any) -> dict[str, list[Any]]:
        """Lists with one entry per sentence: words, tags, and entities [{"text", "label", "start", "end"}]."""
        sentences = self._spec.words(input)
        paths = self.outputs(self.spec.encode(input))["paths"].tolist()
        tags = [[self.tags[i] for i in path if i >= 0] for path in paths]
        return {"words": sentences, "tags": tags, "entities": [_entities(*pair) for pair in zip(sentences, tags, strict=True)]}

    @property
    def _spec(self) -> Sentences:
        return self.spec  # type: ignore[return-value]


def _entities(words: list[str], tags: list[str]) -> list[dict[str, Any]]:
    return [{"text": " ".join(words[a:b]), "label": label, "start": a, "end": b} for label, a, b in spans(tags)]
