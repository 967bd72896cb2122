"""Translation with a recurrent encoder-decoder and attention:

engram train seq2seq
engram train seq2seq attention=additive
engram train seq2seq data=train.en,train.de
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
from engram.models.seq2seq import Seq2Seq as Network
from engram.optim.build import build
from engram.optim.knobs import OptimKnobs
from engram.tasks.translate import Translate


@dataclass(frozen=True, kw_only=True)
class Seq2Seq(Recipe):
    """A bidirectional encoder, a decoder that attends to it after Luong et al. 2015 or Bahdanau et al. 2014."""

    tiny: ClassVar = {
        "data": "numbers", "vocab_size": 320, "context": 32, "cell": "gru", "width": 64, "embed": 32, "dropout": 0.0,
        "steps": 60, "batch": 16, "beams": 2, "optim.lr": 0.01,
    }  # fmt: skip
    specs: ClassVar = (PairSpec,)

    data: Any = knob("multi30k", "multi30k (multi30k:en-fr ...), numbers, two files line by line (a.en,a.de), or a table")
    source: str = knob("", "the column of the source texts; empty = by its name")
    target: str = knob("", "the column of the target texts; empty = by its name")
    epochs: float = knob(12.0, "passes over the training pairs", low=0)
    batch: int = knob(128, "pairs per optimizer step, over all ranks and micro-batches", low=1)
    vocab: Literal["bpe", "word", "char", "byte"] = knob("bpe", "tokens")
    vocab_size: int = knob(8192, "tokens of a word or bpe vocabulary", low=16)
    shared: bool = knob(True, "one vocabulary for both sides")
    vectors: str = knob("", "file of pre-trained word vectors (word2vec text or binary, or GloVe); shared=false: of the source")
    freeze: bool = knob(False, "keep the pre-trained vectors as they are")
    context: int = knob(128, "most tokens of a text; longer training pairs are left out, longer sources cut", low=2)
    attention: Literal["multiplicative", "additive"] = knob(
        "multiplicative", "how the decoder looks at the source: Luong's (fast) or Bahdanau's (steps one after another)"
    )
    feed: bool = knob(False, "multiplicative: each step also reads what the step before attended to (slower)")
    norm: bool = knob(True, "LayerNorm before the tanh of the first state and of the output layer", before=False)
    cell: Literal["lstm", "gru", "rnn"] = knob("lstm", "recurrent cell")
    layers: int = knob(1, "layers of the encoder and of the decoder", low=1)
    width: int = knob(256, "numbers in the decoder's state, and in that of each direction of the encoder", low=1)
    embed: int = knob(0, "numbers per token; 0 = width; with vectors, theirs", low=0)
    dropout: float = knob(0.3, "share of features dropped in training", low=0, high=0.95)
    label_smoothing: float = knob(0.1, "share of the target spread over all tokens", low=0, high=0.99)
    beams: int = knob(5, "hypotheses that the search keeps; 1 = greedy", low=1)
    penalty: float = knob(1.0, "length penalty of the search; 0 = none", low=0)
    optim: OptimKnobs = knob(OptimKnobs(name="adamw", lr=5e-3, weight_decay=0.01), "optimizer and schedule")

    def make_data(self) -> Data:
        """Pairs as batches of like length."""
        return pairs(
            self.data, batch=self.batch, context=self.context, seed=self.seed, vocab=self.vocab, vocab_size=self.vocab_size,
            shared=self.shared, source=self.source, target=self.target, vectors=self.vectors,
            start_from=self.start_from,
        )  # fmt: skip

    def make_task(self, spec: PairSpec) -> Task:
        """An encoder-decoder and the cross-entropy of the next target token."""
        model = Network(
            spec.vocabulary.size, spec.target_vocabulary.size, self.width, self.layers, self.attention, self.cell,
            spec.vector_width or self.embed, self.dropout, self.feed, self.norm,
        )  # fmt: skip
        for table in (model.source, model.target) if spec.shared else (model.source,):
            spec.start(table, freeze=self.freeze, scale=True)
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
