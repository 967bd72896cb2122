"""A Transformer encoder that fills in hidden words, and is then taught to classify, to tag or to answer questions:

engram train bert
engram train bert data=books/ vocab=bpe
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from engram.core.data import Data
from engram.core.knobs import knob
from engram.core.optim import Optim
from engram.core.predictor import Predictor
from engram.core.recipe import Recipe
from engram.core.spec import Spec
from engram.core.task import Task
from engram.data.corpus import corpus
from engram.data.masked import MaskedSpec, MaskedTokens
from engram.inference.fill import Filler
from engram.models.bert import BERT, MaskedModel
from engram.optim.build import build
from engram.optim.knobs import OptimKnobs
from engram.tasks.masked_token import MaskedToken


@dataclass(frozen=True, kw_only=True)
class Bert(Recipe):
    """BERT (Devlin et al. 2019): plain text teaches it hidden tokens."""

    tiny: ClassVar = {
        "data": "pydoc", "vocab": "char", "context": 16, "layers": 1, "heads": 2, "width": 16, "steps": 60, "batch": 16,
        "dropout": 0.0,
    }  # fmt: skip
    specs: ClassVar = (MaskedSpec,)

    data: Any = knob("pydoc", "pydoc (Python's reference manual), wikitext2, or a text file or folder")
    epochs: float = knob(20.0, "passes over the training rows", low=0)
    batch: int = knob(32, "rows per optimizer step, over all ranks and micro-batches", low=1)
    vocab: Literal["auto", "char", "byte", "word", "bpe"] = knob("auto", "tokens; auto = bpe")
    vocab_size: int = knob(8192, "most tokens of a word or bpe vocabulary", low=16)
    masked: float = knob(0.15, "share of the tokens that is hidden", low=0.01, high=0.9)
    context: int = knob(128, "tokens that the network sees at once", low=4)
    layers: int = knob(4, "Transformer blocks", low=1)
    heads: int = knob(4, "attention heads of each block; must divide width", low=1)
    width: int = knob(192, "numbers per token", low=2)
    hidden: int = knob(0, "width inside the feed-forward layers; 0 = 4 width", low=0)
    dropout: float = knob(0.1, "share of features dropped in training", low=0, high=0.95)
    optim: OptimKnobs = knob(OptimKnobs(name="adamw", lr=1e-3, beta2=0.98, weight_decay=0.01), "optimizer and schedule")

    def make_data(self) -> Data:
        """Windows of text with hidden tokens."""
        tokens = corpus(
            self.data, batch=self.batch, context=self.context, seed=self.seed, vocab="bpe" if self.vocab == "auto" else self.vocab,
            vocab_size=self.vocab_size, documents="off", start_from=self.start_from,
        )  # fmt: skip
        return MaskedTokens(tokens, self.masked)

    def make_task(self, spec: Spec) -> Task:
        """An encoder with the head for hidden tokens."""
        assert isinstance(spec, MaskedSpec)
        size = spec.vocabulary.size
        encoder = BERT(size, self.context, self.layers, self.heads, self.width, self.hidden, dropout=self.dropout)
        return MaskedToken(MaskedModel(encoder, size), size)

    def make_optims(self, task: Task) -> dict[str, Optim]:
        """One optimizer for the network."""
        return {"model": build(task, self.optim)}

    def make_predictor(self, task: Task, spec: Spec) -> Predictor:
        """Fills gaps."""
        assert isinstance(spec, MaskedSpec)
        return Filler(task.get_submodule("model"), spec, len(spec.vocabulary.specials))
