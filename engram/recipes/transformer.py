"""Translation with the Transformer as it was published: an encoder reads the source, a decoder writes the target.

engram train transformer
engram train transformer data=train.en,train.de
engram train transformer data=pairs.csv source=english target=german
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from engram.core.data import Data
from engram.core.knobs import knob
from engram.core.optim import Optim
from engram.core.predictor import Predictor
from engram.core.recipe import Recipe
from engram.core.task import Task
from engram.data.pair_spec import PairSpec
from engram.data.pairs import pairs
from engram.inference.translate import Translator
from engram.models.transformer import Transformer as Network
from engram.optim.build import build
from engram.optim.knobs import OptimKnobs
from engram.tasks.translate import Translate


@dataclass(frozen=True, kw_only=True)
class Transformer(Recipe):
    """The encoder-decoder of Vaswani et al. 2017, small enough for thirty thousand pairs."""

    tiny: ClassVar = {
        "data": "numbers", "vocab": "char", "context": 48, "layers": 1, "heads": 2, "width": 32, "hidden": 32, "dropout": 0.0,
        "steps": 60, "batch": 16, "beams": 2,
    }  # fmt: skip
    specs: ClassVar = (PairSpec,)

    data: Any = knob("multi30k", "multi30k (multi30k:en-fr ...), numbers, two files line by line (a.en,a.de), or a table")
    source: str = knob("", "the column of the source texts; empty = by its name")
    target: str = knob("", "the column of the target texts; empty = by its name")
    epochs: float = knob(20.0, "passes over the training pairs", low=0)
    batch: int = knob(128, "pairs per optimizer step, over all ranks and micro-batches", low=1)
    vocab: Literal["bpe", "word", "char", "byte"] = knob("bpe", "tokens")
    vocab_size: int = knob(8192, "tokens of a word or bpe vocabulary", low=16)
    shared: bool = knob(True, "one vocabulary and one token table for both sides")
    vectors: str = knob(
        "", "file of pre-trained word vectors (word2vec, GloVe) of as many numbers as width; shared=false: of the source"
    )
    freeze: bool = knob(
        False, "keep the pre-trained vectors as they are; if shared and tied, the output layer too: it is the same table"
    )
    context: int = knob(128, "most tokens of a text; longer training pairs are left out, longer sources cut", low=2)
    layers: int = knob(4, "blocks of the encoder and of the decoder", low=1)
    heads: int = knob(4, "attention heads of each block; must divide width", low=1)
    width: int = knob(256, "numbers per token", low=2)
    hidden: int = knob(0, "width inside the feed-forward layers; 0 = 2 width", low=0)
    norm_first: bool = knob(True, "normalise before each layer (trains more easily) in place of after it (as published)")
    tied: bool = knob(True, "the output layer is the target's token table")
    dropout: float = knob(0.3, "share of features dropped in training", low=0, high=0.95)
    label_smoothing: float = knob(0.1, "share of the target spread over all tokens", low=0, high=0.99)
    beams: int = knob(5, "hypotheses that the search keeps; 1 = greedy", low=1)
    penalty: float = knob(1.0, "length penalty of the search; 0 = none", low=0)
    optim: OptimKnobs = knob(OptimKnobs(name="adamw", lr=2e-3, beta2=0.98, weight_decay=0.01), "optimizer and schedule")

    def make_data(self) -> Data:
        """Pairs as batches of like length."""
        return pairs(
            self.data, batch=self.batch, context=self.context, seed=self.seed, vocab=self.vocab, vocab_size=self.vocab_size,
            shared=self.shared, source=self.source, target=self.target, vectors=self.vectors,
            start_from=self.start_from,
        )  # fmt: skip

    def make_task(self, spec: PairSpec) -> Task:
        """An encoder-decoder and the cross-entropy of the next target token."""
        spec.check_width(self.width, self.heads)
        model = Network(
            spec.vocabulary.size, spec.target_vocabulary.size, self.layers, self.heads, self.width,
            self.hidden or 2 * self.width, shared=spec.shared, tied=self.tied, norm_first=self.norm_first,
            dropout=self.dropout, context=max(spec.context, spec.target_context) + 1,
        )  # fmt: skip
        spec.start(model.source or model.target, freeze=self.freeze, scale=True)
        return Translate(model, spec.target_vocabulary.size, label_smoothing=self.label_smoothing)

    def make_optims(self, task: Task) -> dict[str, Optim]:
        """One optimizer for the network."""
        return {"model": build(task, self.optim)}

    def make_predictor(self, task: Task, spec: PairSpec) -> Predictor:
        """Translates."""
        return Translator(
            task.get_submodule("model"), spec, beams=self.beams, penalty=self.penalty,
            special=len(spec.target_vocabulary.specials),
        )  # fmt: skip
