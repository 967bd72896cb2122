"""A chat partner from a language model: conversations, of which only the replies are trained.

    engram train chat data=talks.jsonl start_from=runs/gpt-pydoc-001
    engram chat runs/chat-talks-001

Each line of the file is {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}.
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
class Chat(Recipe):
    """A decoder as in `gpt`, trained on the replies of packed conversations (Ouyang et al. 2022, section 3.1)."""

    tiny: ClassVar = {
        "vocab": "char", "context": 32, "layers": 1, "heads": 2, "width": 16, "steps": 60, "batch": 8, "dropout": 0.0,
        "optim.lr": 1e-2,
    }  # fmt: skip
    specs: ClassVar = (LanguageSpec,)

    data: Any = knob("manual", "manual (questions about Python from its reference manual), or JSON lines of conversations")
    epochs: float = knob(4.0, "passes over the conversations", low=0)
    batch: int = knob(16, "rows of packed conversations per optimizer step", low=1)
    vocab: Literal["auto", "char", "byte", "word", "bpe"] = knob("auto", "tokens, where no run is started from")
    vocab_size: int = knob(8192, "tokens of a word or bpe vocabulary", low=16)
    vectors: str = knob("", "file of pre-trained word vectors (word2vec text or binary, or GloVe) of as many numbers as width")
    freeze: bool = knob(False, "keep the pre-trained vectors as they are; if tied, the output layer too: it is the same table")
    context: int = knob(256, "tokens that the network sees at once; that of the run started from, at most", low=8)
    layers: int = knob(4, "Transformer blocks", low=1)
    heads: int = knob(4, "attention heads of each block; must divide width", low=1)
    kv_heads: int = knob(0, "key-value heads, a divisor of heads; 0 = as many as heads", low=0)
    width: int = knob(128, "numbers per token", low=2)
    hidden: int = knob(0, "width inside the feed-forward layers; 0 = 4 width (swiglu: 8/3 width)", low=0)
    positions: Literal["learned", "rotary", "sinusoidal"] = knob("rotary", "how the network knows the order of the tokens")
    norm: Literal["layer", "rms"] = knob("rms", "normalisation")
    ffn: Literal["gelu", "swiglu"] = knob("gelu", "feed-forward layers")
    tied: bool = knob(True, "one table for input and output tokens")
    window: int = knob(0, "how many tokens back a token sees; 0 = all of its context", low=0)
    bias: bool = knob(False, "biases in linear layers and layer norms")
    dropout: float = knob(0.1, "share of features dropped in training", low=0, high=0.95)
    label_smoothing: float = knob(0.0, "share of the target spread over all tokens", low=0, high=0.99)
    optim: OptimKnobs = knob(OptimKnobs(name="adamw", lr=1e-3, beta2=0.99), "optimizer and schedule")

    def make_data(self) -> Data:
        """Conversations packed into full rows, each kept apart from its neighbours."""
        return corpus(
            self.data, batch=self.batch, context=self.context, seed=self.seed, vocab=self.vocab, vocab_size=self.vocab_size,
            vectors=self.vectors, start_from=self.start_from, chat=True,
        )  # fmt: skip

    def make_task(self, spec: LanguageSpec) -> Task:
        """A decoder and next-token cross-entropy of the replies."""
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
        """Replies to a message, or to a conversation so far."""
        return Generator(task.get_submodule("model"), spec, ends=(END, START), special=len(spec.vocabulary.specials))
