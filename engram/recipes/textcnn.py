"""Texts to classes (sentiment, topic, intent) with convolutions over words: your own table of texts and labels.

engram train textcnn data=reviews.csv
engram train textcnn data=clinc150
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
from engram.data.sentence_spec import TextSpec
from engram.data.sentences import sentences
from engram.inference.classify import Classifier
from engram.inference.intent import IntentClassifier
from engram.models.textcnn import TextCNN
from engram.optim.build import build
from engram.optim.knobs import OptimKnobs
from engram.tasks.classify import Classify
from engram.tasks.open_set import OpenSet
from engram.tasks.weights import balanced


@dataclass(frozen=True, kw_only=True)
class Textcnn(Recipe):
    """Convolutions of several widths over word vectors, the maximum over time, a linear classifier (Kim 2014)."""

    tiny: ClassVar = {
        "data": "pydoc_topics", "embed": 16, "channels": 8, "widths": (1, 2), "epochs": 4, "batch": 32, "dropout": 0.0,
    }  # fmt: skip
    specs: ClassVar = (TextSpec,)
    watch: ClassVar = ("accuracy", "max")

    data: Any = knob("pydoc_topics", "pydoc_topics, sst2, clinc150, imdb, or your own table, folder per class or rows")
    epochs: float = knob(10.0, "passes over the training rows", low=0)
    batch: int = knob(50, "rows per optimizer step, over all ranks and micro-batches", low=1)
    text: str = knob("", "column of the texts; '' = the usual names")
    label: str = knob("", "column of the labels; '' = the usual names")
    vocab: Literal["word", "char", "byte", "bpe"] = knob("word", "tokens of the texts")
    vocab_size: int = knob(30_000, "most tokens of a word or bpe vocabulary", low=16)
    least: int = knob(1, "words seen fewer times than this are unknown", low=1)
    lower: bool = knob(True, "read capital letters as small ones")
    context: int = knob(256, "longest text in tokens; what is longer is cut", low=1)
    out_of_scope: str = knob("auto", "label of texts that belong to no class; auto = oos where there is one, '' = none")
    hold_out: bool = knob(False, "do not train out-of-scope texts: a threshold on the probability finds them")
    vectors: str = knob("", "file of pre-trained word vectors (word2vec text or binary, or GloVe)")
    freeze: bool = knob(False, "keep the pre-trained vectors as they are")
    embed: int = knob(300, "numbers per word; with vectors, theirs", low=1)
    widths: tuple[int, ...] = knob((3, 4, 5), "words in the windows of the convolutions", low=1)
    channels: int = knob(100, "features per window width", low=1)
    dropout: float = knob(0.5, "share of features dropped before the classifier", low=0, high=0.95)
    word_dropout: float = knob(0.0, "share of training words made unknown, anew each time", low=0, high=0.95)
    grams: int = knob(0, "size of a table of hashed n-grams of words and letters that vote too; 0 = none", low=0)
    label_smoothing: float = knob(0.0, "share of the target spread over all classes", low=0, high=0.99)
    class_weights: Literal["none", "balanced"] = knob("none", "balanced: rare classes count as much as common ones")
    optim: OptimKnobs = knob(OptimKnobs(name="adamw", lr=1e-3), "optimizer and schedule")

    def make_data(self) -> Data:
        """Texts as rows of tokens, with their classes."""
        return sentences(
            self.data, batch=self.batch, context=self.context, seed=self.seed, vocab=self.vocab, vocab_size=self.vocab_size,
            least=self.least, lower=self.lower, text=self.text, label=self.label, out_of_scope=self.out_of_scope,
            hold_out=self.hold_out, vectors=self.vectors, word_dropout=self.word_dropout,
            grams=self.grams, start_from=self.start_from,
        )  # fmt: skip

    def make_task(self, spec: TextSpec) -> Task:
        """A TextCNN with one logit per class and cross entropy."""
        model = TextCNN(
            spec.vocabulary.size, spec.outputs, spec.vector_width or self.embed, self.widths, self.channels, self.dropout,
            spec.grams,
        )  # fmt: skip
        spec.start(model.embed, freeze=self.freeze)
        if spec.held_out:
            return OpenSet(model, spec.inputs, spec.outputs, label_smoothing=self.label_smoothing)
        weights = balanced(spec.class_counts) if self.class_weights == "balanced" else None
        return Classify(model, spec.inputs, class_weights=weights, label_smoothing=self.label_smoothing)

    def make_optims(self, task: Task) -> dict[str, Optim]:
        """One optimizer for the network."""
        return {"model": build(task, self.optim)}

    def make_predictor(self, task: Task, spec: TextSpec) -> Predictor:
        """Classes with probabilities; with out-of-scope texts, also whether it is none of them."""
        model = task.get_submodule("model")
        if not spec.out_of_scope:
            return Classifier(model, spec, spec.classes, spec.inputs)
        threshold = task.get_buffer("threshold") if spec.held_out else None
        return IntentClassifier(model, spec, spec.classes, spec.inputs, threshold)
