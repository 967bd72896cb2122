"""Text from text: a Transformer decoder that learns to continue what it reads. With your own file or folder:

engram train gpt
engram train gpt data=novel.txt vocab=bpe
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
from engram.data.corpus import corpus
from engram.data.language_spec import LanguageSpec
from engram.data.vocabulary import END, START
from engram.inference.generate import Generator
from engram.models.gpt import GPT
from engram.optim.build import build
from engram.optim.knobs import OptimKnobs
from engram.tasks.next_token import NextToken


@dataclass(frozen=True, kw_only=True)
class Gpt(Recipe):
    """A decoder after GPT-2 (Radford et al. 2019), next-token prediction; the knobs also make the network of Llama."""

    tiny: ClassVar = {
        "data": "pydoc", "vocab": "char", "context": 16, "layers": 1, "heads": 2, "width": 16, "steps": 60, "batch": 16,
    }  # fmt: skip
    specs: ClassVar = (LanguageSpec,)

    data: Any = knob("pydoc", "pydoc (Python's reference manual), tinyshakespeare, wikitext2, or a text file or folder")
    epochs: float = knob(8.0, "passes over the training text", low=0)
    batch: int = knob(32, "windows of text per optimizer step, over all ranks and micro-batches", low=1)
    vocab: Literal["auto", "char", "byte", "word", "bpe"] = knob(
        "auto", "tokens; auto = characters for a small text, else bpe; with vectors words"
    )
    vocab_size: int = knob(8192, "tokens of a word or bpe vocabulary", low=16)
    vectors: str = knob("", "file of pre-trained word vectors (word2vec text or binary, or GloVe) of as many numbers as width")
    freeze: bool = knob(False, "keep the pre-trained vectors as they are; if tied, the output layer too: it is the same table")
    documents: Literal["auto", "on", "off"] = knob("auto", "keep documents apart; auto = when there are several")
    memory: float = knob(256.0, "MB of text files up to which they are read whole; larger ones become files of tokens", low=0)
    context: int = knob(128, "tokens that the network sees at once", low=2)
    layers: int = knob(4, "Transformer blocks", low=1)
    heads: int = knob(4, "attention heads of each block; must divide width", low=1)
    kv_heads: int = knob(0, "key-value heads, a divisor of heads; 0 = as many as heads", low=0)
    width: int = knob(192, "numbers per token", low=2)
    hidden: int = knob(0, "width inside the feed-forward layers; 0 = 4 width (swiglu: 8/3 width)", low=0)
    positions: Literal["learned", "rotary", "sinusoidal"] = knob("rotary", "how the network knows the order of the tokens")
    norm: Literal["layer", "rms"] = knob("rms", "normalisation")
    ffn: Literal["gelu", "swiglu"] = knob("gelu", "feed-forward layers")
    tied: bool = knob(True, "one table for input and output tokens")
    window: int = knob(0, "how many tokens back a token sees; 0 = all of its context", low=0)
    bias: bool = knob(False, "biases in linear layers and layer norms")
    dropout: float = knob(0.0, "share of features dropped in training", low=0, high=0.95)
    label_smoothing: float = knob(0.0, "share of the target spread over all tokens", low=0, high=0.99)
    optim: OptimKnobs = knob(OptimKnobs(name="muon", lr=2e-3, beta2=0.99, weight_decay=0.1), "optimizer and schedule")

    def make_data(self) -> Data:
        """The text as windows of tokens."""
        return corpus(
            self.data, batch=self.batch, context=self.context, seed=self.seed, vocab=self.vocab, vocab_size=self.vocab_size,
            documents=self.documents, vectors=self.vectors, start_from=self.start_from, memory=self.memory,
        )  # fmt: skip

    def make_task(self, spec: LanguageSpec) -> Task:
        """A decoder and next-token cross-entropy."""
        spec.check_width(self.width, self.heads, rotary=self.positions == "rotary")
        model = GPT(
            spec.vocabulary.size, self.context, self.layers, self.heads, self.width, kv_heads=self.kv_heads,
            hidden=self.hidden, positions=self.positions, norm=self.norm, ffn=self.ffn, tied=self.tied, window=self.window,
            bias=self.bias, dropout=self.dropout,
        )  # fmt: skip
        spec.start(model.tokens, freeze=self.freeze, scale=True)
        return NextToken(model, spec.vocabulary.size, label_smoothing=self.label_smoothing)

    def make_optims(self, task: Task) -> dict[str, Optim]:
        """One optimizer for the network."""
        return {"model": build(task, self.optim)}

    def make_predictor(self, task: Task, spec: LanguageSpec) -> Predictor:
        """Continues prompts."""
        return Generator(task.get_submodule("model"), spec, ends=(START, END), special=len(spec.vocabulary.specials))
