"""Sentence embeddings: texts of like meaning get vectors that lie near each other. For search, grouping, finding duplicates:

engram train sentence data=notes/
engram train sentence data=squad
engram search runs/sentence notes/ "how do I renew the certificate"
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from engram.core.data import Data
from engram.core.errors import ConfigError
from engram.core.knobs import knob
from engram.core.optim import Optim
from engram.core.predictor import Predictor
from engram.core.recipe import Recipe
from engram.core.task import Task
from engram.data.question_spec import KINDS
from engram.data.sentence_pairs import EmbedSpec, sentence_pairs
from engram.inference.embed import Embedder
from engram.models.bert import BERT, EmbedModel
from engram.optim.build import build
from engram.optim.knobs import OptimKnobs
from engram.tasks.contrast import Contrast

SAME = ("context", "layers", "heads", "width", "hidden")


@dataclass(frozen=True, kw_only=True)
class Sentence(Recipe):
    """An encoder after BERT whose features are averaged, trained by contrast: pairs, or texts beside themselves (SimCSE)."""

    tiny: ClassVar = {
        "data": "pydoc_topics", "vocab": "word", "vocab_size": 500, "context": 12, "layers": 1, "heads": 2, "width": 16,
        "dropout": 0.0, "steps": 60, "batch": 16, "temperature": 0.2, "optim.lr": 3e-3,
    }  # fmt: skip
    specs: ClassVar = (EmbedSpec,)
    watch: ClassVar = ("recall", "max")

    data: Any = knob("pydoc", "pairs, questions with paragraphs, or plain text: a set's name or the path of your own")
    source: str = knob("", "pairs: the column of one side; '' = by its name")
    target: str = knob("", "pairs: the column of the other side; '' = by its name")
    text: str = knob("", "plain text in a table: its column")
    views: Literal["same", "halves"] = knob(
        "halves", "plain text: a passage beside itself (dropout differs), or its two halves"
    )
    epochs: float = knob(10.0, "passes over the training rows", low=0)
    batch: int = knob(64, "rows per optimizer step: each is compared with all others", low=2)
    vocab: Literal["bpe", "word", "char", "byte"] = knob("bpe", "tokens")
    vocab_size: int = knob(8192, "most tokens of a word or bpe vocabulary", low=16)
    lower: bool = knob(True, "read capital letters as small ones")
    vectors: str = knob("", "file of pre-trained word vectors (word2vec text or binary, or GloVe) of as many numbers as width")
    freeze: bool = knob(False, "keep the pre-trained vectors as they are")
    context: int = knob(128, "most tokens of a text; what is longer is cut", low=4)
    layers: int = knob(2, "Transformer blocks", low=1)
    heads: int = knob(4, "attention heads of each block; must divide width", low=1)
    width: int = knob(192, "numbers per token, and of an embedding", low=2)
    hidden: int = knob(0, "width inside the feed-forward layers; 0 = 4 width", low=0)
    dropout: float = knob(0.1, "share of features dropped in training; views=same needs some", low=0, high=0.95)
    temperature: float = knob(0.05, "what cosines are divided by: smaller = only the nearest others matter", low=0.001)
    optim: OptimKnobs = knob(OptimKnobs(name="adamw", lr=5e-4, weight_decay=0.01), "optimizer and schedule")

    def make_data(self) -> Data:
        """Pairs of texts as batches of like length."""
        if self.start_from:
            self._check_start()
        data = sentence_pairs(
            self.data, batch=self.batch, context=self.context, views=self.views, seed=self.seed, vocab=self.vocab,
            vocab_size=self.vocab_size, lower=self.lower, source=self.source, target=self.target, text=self.text,
            vectors=self.vectors, start_from=self.start_from,
        )  # fmt: skip
        if self.views == "same" and not self.dropout and str(data.summary.facts["pairs"]).startswith("passages"):
            raise ConfigError("views=same with dropout=0 puts the same vector on both sides; set dropout=0.1 or views=halves")
        return data

    def make_task(self, spec: EmbedSpec) -> Task:
        """An encoder with mean pooling, and contrast within the batch."""
        spec.check_width(self.width, self.heads)
        encoder = BERT(
            spec.vocabulary.size, self.context, self.layers, self.heads, self.width, self.hidden, segments=KINDS,
            dropout=self.dropout,
        )  # fmt: skip
        spec.start(encoder.tokens, freeze=self.freeze, scale=True)
        return Contrast(EmbedModel(encoder), temperature=self.temperature, batch=self.batch)

    def make_optims(self, task: Task) -> dict[str, Optim]:
        """One optimizer for the network."""
        return {"model": build(task, self.optim)}

    def make_predictor(self, task: Task, spec: EmbedSpec) -> Predictor:
        """Embeds texts."""
        return Embedder(task.get_submodule("model"), spec)

    def _check_start(self) -> None:
        """The encoder of a run is gone on with only when it has the sizes of this one."""
        try:
            knobs = json.loads((Path(self.start_from) / "run.json").read_text("utf-8"))["knobs"]
        except (OSError, ValueError, KeyError):
            return  # vocabulary_of tells
        if other := [n for n in SAME if n in knobs and knobs[n] != getattr(self, n)]:
            asked = " ".join(f"{n}={knobs[n]}" for n in other)
            raise ConfigError(f"start_from={self.start_from} was trained with {asked}; set the same here")
