"""Text to text with T5: plain text teaches it to fill gaps, pairs of texts to translate or to sum up. Both in turn:

engram train t5 data=novel.txt --out runs/gaps
engram train t5 data=summaries.csv source=article target=summary start_from=runs/gaps
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Literal

from engram.core.data import Data
from engram.core.errors import ConfigError
from engram.core.knobs import knob
from engram.core.optim import Optim
from engram.core.predictor import Predictor
from engram.core.recipe import Recipe
from engram.core.spec import Spec
from engram.core.task import Task
from engram.data.pair_spec import PairSpec
from engram.data.pairs import pairs
from engram.data.span_spec import SpanSpec
from engram.data.spans import spans
from engram.data.stored import large
from engram.data.text_stream import stream_files
from engram.data.texts import read_texts
from engram.inference.bleu import BLEU, CHRF
from engram.inference.fill import GapFiller
from engram.inference.rouge import ROUGE, lead
from engram.inference.translate import Translator
from engram.models.t5 import T5 as Network
from engram.optim.build import build
from engram.optim.knobs import OptimKnobs
from engram.tasks.translate import Translate

SUMMARIES = ("summar", "headline", "highlight", "abstract", "tldr", "title")
FORMS = {"gaps": "corpus", "pairs": "pairs"}


@dataclass(frozen=True, kw_only=True)
class T5(Recipe):
    """The encoder-decoder of Raffel et al. 2020; the kind of data says what is learned: gaps of a text, or pairs of texts."""

    tiny: ClassVar = {
        "data": "pydoc", "vocab": "char", "sentinels": 8, "context": 24, "layers": 1, "heads": 2, "width": 32, "dropout": 0.0,
        "steps": 60, "batch": 16,
    }  # fmt: skip
    specs: ClassVar = (SpanSpec, PairSpec)

    data: Any = knob(
        "pydoc", "plain text, or pairs of texts (dialogsum, multi30k, a.en,a.de, a table): a set's name or your own path"
    )
    learn: Literal["auto", "gaps", "pairs"] = knob("auto", "what to learn; auto = what the data has")
    source: str = knob("", "column of the source texts; empty = by its name", of="pairs")
    target: str = knob("", "column of the target texts; empty = by its name", of="pairs")
    epochs: float = knob(8.0, "passes over the training rows", low=0)
    batch: int = knob(32, "rows per optimizer step, over all ranks and micro-batches", low=1)
    vocab: Literal["auto", "char", "byte", "word", "bpe"] = knob(
        "auto", "tokens; auto = characters for a small text, else bpe; with vectors words"
    )
    vocab_size: int = knob(8192, "tokens of a word or bpe vocabulary", low=16)
    vectors: str = knob("", "file of pre-trained word vectors (word2vec text or binary, or GloVe) of as many numbers as width")
    freeze: bool = knob(False, "keep the pre-trained vectors as they are; if tied, the output layer too: it is the same table")
    context: int = knob(128, "most tokens of a source; longer ones are cut", low=4)
    target_context: int = knob(0, "most tokens of a target; 0 = context", low=0, of="pairs")
    corrupt: float = knob(0.15, "share of the tokens cut out", low=0.01, high=0.9, of="gaps")
    span: float = knob(3.0, "tokens cut out in one piece, on average", low=1, of="gaps")
    sentinels: int = knob(100, "most gaps of a text", low=1)
    memory: float = knob(256.0, "MB of text files up to which they are read whole; larger ones become files of tokens", low=0)
    layers: int = knob(4, "blocks of the encoder and of the decoder", low=1)
    heads: int = knob(4, "attention heads of each block", low=1)
    width: int = knob(256, "numbers per token", low=2)
    head_width: int = knob(0, "numbers per head; 0 = width / heads", low=0)
    hidden: int = knob(0, "width inside the feed-forward layers; 0 = 4 width (gated: 8/3 width)", low=0)
    buckets: int = knob(32, "distances that the position bias tells apart, a multiple of 4", low=4)
    furthest: int = knob(128, "distance from which on all are alike", low=4)
    gated: bool = knob(True, "gated feed-forward layers (version 1.1) in place of ReLU (as published first)")
    tied: bool = knob(True, "the output layer is the token table")
    dropout: float = knob(0.1, "share of features dropped in training", low=0, high=0.95)
    label_smoothing: float = knob(0.0, "share of the target spread over all tokens", low=0, high=0.99)
    beams: int = knob(4, "hypotheses that the search keeps; 1 = greedy", low=1, of="pairs")
    penalty: float = knob(0.6, "length penalty of the search; 0 = none", low=0, of="pairs")
    score: Literal["auto", "bleu", "rouge"] = knob(
        "auto", "how texts are compared; auto = ROUGE when the target column is called a summary, headline or the like",
        of="pairs",
    )
    optim: OptimKnobs = knob(OptimKnobs(name="adamw", lr=2e-3, beta2=0.98, weight_decay=0.01), "optimizer and schedule")

    def make_data(self) -> Data:
        """Windows of text with gaps, or pairs."""
        size: dict[str, Any] = {"batch": self.batch, "context": self.context, "seed": self.seed, "vocab_size": self.vocab_size}
        if self._kind() == "gaps":
            return spans(
                self.data, vocab=self.vocab, share=self.corrupt, mean=self.span, sentinels=self.sentinels,
                vectors=self.vectors, start_from=self.start_from, memory=self.memory, **size,
            )  # fmt: skip
        auto = "word" if self.vectors else "bpe"
        return pairs(
            self.data, target_context=self.target_context, vocab=auto if self.vocab == "auto" else self.vocab,
            source=self.source, target=self.target, long="cut", vectors=self.vectors, start_from=self.start_from, **size,
        )  # fmt: skip

    def learned(self, spec: Spec) -> str:
        """See Recipe."""
        return "gaps" if isinstance(spec, SpanSpec) else "pairs"

    def make_task(self, spec: Spec) -> Task:
        """An encoder-decoder and the cross-entropy of the next target token."""
        assert isinstance(spec, (SpanSpec, PairSpec))
        spec.check_width(self.width, 1 if self.head_width else self.heads)
        if not self.head_width and self.width % self.heads:
            raise ConfigError(f"heads={self.heads} must divide width={self.width}, or set head_width")
        hidden = self.hidden or (8 * self.width // 3 if self.gated else 4 * self.width)
        model = Network(
            spec.vocabulary.size, self.layers, self.heads, self.width, self.head_width or self.width // self.heads, hidden,
            buckets=self.buckets, furthest=self.furthest, gated=self.gated, tied=self.tied, dropout=self.dropout,
        )  # fmt: skip
        spec.start(model.tokens, freeze=self.freeze, scale=True)
        return Translate(model, spec.vocabulary.size, label_smoothing=self.label_smoothing)

    def make_optims(self, task: Task) -> dict[str, Optim]:
        """One optimizer for the network."""
        return {"model": build(task, self.optim)}

    def make_predictor(self, task: Task, spec: Spec) -> Predictor:
        """Fills gaps, or writes the target of a source."""
        model = task.get_submodule("model")
        if isinstance(spec, SpanSpec):
            return GapFiller(model, spec)
        assert isinstance(spec, PairSpec)
        summary = any(word in spec.columns[1].lower() for word in SUMMARIES)
        rouge = self.score == "rouge" or (self.score == "auto" and summary)
        return Translator(
            model, spec, beams=self.beams, penalty=self.penalty, growth=0.0, special=len(spec.vocabulary.specials),
            measures=(*ROUGE, BLEU) if rouge else (BLEU, CHRF, *ROUGE[2:]),
            baseline=("the first three sentences", lead) if rouge else None, repeats=3 if rouge else 0,
        )  # fmt: skip

    def _kind(self) -> str:
        """gaps or pairs, as the knobs or the data say."""
        if self.learn != "auto":
            return self.learn
        if self.source or self.target:
            return "pairs"
        path = Path(self.data).expanduser() if isinstance(self.data, (str, PathLike)) and str(self.data) else None
        if path and path.is_file() and stream_files(self.data) is not None:
            return "gaps"  # one plain text file, which need not be read to see what it is
        if large(self.data, self.seed, self.memory):
            return "gaps"
        texts = read_texts(self.data, "", seed=self.seed)
        if texts.form not in FORMS.values():
            raise ConfigError(f"{texts.title} are {texts.form}; t5 learns from pairs, or with learn=gaps from plain text")
        return "pairs" if texts.form == "pairs" else "gaps"
