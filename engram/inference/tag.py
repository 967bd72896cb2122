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
        beside = "tagging no word has F1 0"
        if not any(tag.startswith("B-") for tag in self.tags):  # a tag per word, no spans
            figures, beside = {"accuracy": figures["accuracy"]}, f"guessing evenly is right on {1 / len(self.tags):.1%}"
        return Scores(figures, parts, "sentences", beside, self._examples(next(iter(rows), [])[:EXAMPLES]))

    def _examples(self, rows: list[Any]) -> list[dict[str, Any]]:
        """What was given, wanted and found; the tags of a row are known where it is a dict that has them."""
        told = self(input=rows) if rows else {"words": [], "tags": []}
        wanted = [
            _said(w, r["tags"]) if isinstance(r, dict) and "tags" in r else "" for w, r in zip(told["words"], rows, strict=True)
        ]
        found = [_said(words, tags) for words, tags in zip(told["words"], told["tags"], strict=True)]
        given = [" ".join(words) for words in told["words"]]
        return [{"input": g, "target": w, "prediction": f} for g, w, f in zip(given, wanted, found, strict=True)]

    def __call__(self, *, input: Any) -> dict[str, list[Any]]:
        """Lists with one entry per sentence: words, tags, and entities [{"text", "label", "start", "end"}]."""
        sentences = self._spec.words(input)
        paths = self.outputs(self.spec.encode(input))["paths"].tolist()
        tags = [[self.tags[i] for i in path if i >= 0] for path in paths]
        return {"words": sentences, "tags": tags, "entities": [_entities(*pair) for pair in zip(sentences, tags, strict=True)]}

    @property
    def _spec(self) -> Sentences:
        return self.spec  # type: ignore[return-value]


def _said(words: list[str], tags: list[str]) -> str:
    """'London (place), Ada Lovelace (person)', or each word with its tag where tags name no spans."""
    if any(tag.startswith(("B-", "I-")) for tag in tags) or set(tags) <= {"O"}:
        return ", ".join(f"{e['text']} ({e['label']})" for e in _entities(words, tags)) or "none"
    return " ".join(f"{word}/{tag}" for word, tag in zip(words, tags, strict=True))


def _entities(words: list[str], tags: list[str]) -> list[dict[str, Any]]:
    return [{"text": " ".join(words[a:b]), "label": label, "start": a, "end": b} for label, a, b in spans(tags)]
