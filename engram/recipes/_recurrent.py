"""What the recipes rnn, lstm and gru share: the same knobs and wiring around another cell. Not a recipe itself.

The three differ by one word, so this is the one module of the folder that its siblings may import (tests/test_arrows.py lets
names that begin with an underscore through).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Literal

from engram.core.data import Data
from engram.core.errors import ConfigError
from engram.core.knobs import knob
from engram.core.optim import Optim
from engram.core.plan import Plan, Precision
from engram.core.predictor import Predictor
from engram.core.recipe import Recipe
from engram.core.spec import Spec
from engram.core.task import Task
from engram.data.corpus import corpus
from engram.data.language_spec import LanguageSpec
from engram.data.sentence_spec import TextSpec
from engram.data.sentences import sentences
from engram.data.tag_spec import TagSpec
from engram.data.tagged import tagged
from engram.data.text_stream import stream_files
from engram.data.texts import read_texts
from engram.data.vocabulary import END, START
from engram.inference.classify import Classifier
from engram.inference.generate import Generator
from engram.inference.intent import IntentClassifier
from engram.inference.tag import Tagger
from engram.models.recurrent import RecurrentEncoder, RecurrentLM, RecurrentTagger
from engram.optim.build import build
from engram.optim.knobs import OptimKnobs
from engram.tasks.classify import Classify
from engram.tasks.next_token import NextToken
from engram.tasks.open_set import OpenSet
from engram.tasks.tag import Tag
from engram.tasks.weights import balanced

WHOLE = ("tokens", "lengths")
SPELLED = (*WHOLE, "characters")
FORMS = {"labels": "labelled", "tags": "tagged", "text": "corpus"}


@dataclass(frozen=True, kw_only=True)
class RecurrentRecipe(Recipe):
    """What is learned is what the data has: a class for each labelled text, a tag for each word, or the next token of text."""

    specs: ClassVar = (TextSpec, TagSpec, LanguageSpec)
    tiny: ClassVar = {
        "data": "pydoc_topics", "width": 16, "embed": 16, "epochs": 4, "batch": 32, "dropout": 0.0, "context": 40,
        "optim.lr": 1e-2,
    }  # fmt: skip
    cell: ClassVar[str]

    data: Any = knob("pydoc_topics", "labelled texts, tagged words or plain text: a set's name or the path of your own")
    learn: Literal["auto", "labels", "tags", "text"] = knob("auto", "what to learn; auto = what the data has")
    epochs: float = knob(10.0, "passes over the training rows", low=0)
    batch: int = knob(32, "rows per optimizer step, over all ranks and micro-batches", low=1)
    text: str = knob("", "column of the texts; '' = the usual names", of="labels")
    label: str = knob("", "column of the labels; '' = the usual names", of="labels")
    vocab: Literal["auto", "char", "byte", "word", "bpe"] = knob(
        "auto",
        "tokens; auto = words for labels and with vectors, for text characters when it is small, else bpe; tags are of words",
    )
    vocab_size: int = knob(30_000, "most tokens of a word or bpe vocabulary", low=16)
    least: int = knob(1, "words seen fewer times than this are unknown", low=1, of="labels, tags")
    lower: bool = knob(True, "read capital letters as small ones; spelling keeps them", of="labels, tags")
    letters: int = knob(20, "characters of each word that are read too, for unknown words; 0 = none", low=0, of="tags")
    spelling: int = knob(30, "features made of the characters of a word", low=1, of="tags")
    crf: bool = knob(True, "choose the tags of a sentence together (conditional random field)", of="tags")
    documents: Literal["auto", "on", "off"] = knob("auto", "keep documents apart; auto = when there are several", of="text")
    memory: float = knob(
        256.0, "MB of files up to which they are read whole; larger ones become files of tokens", low=0, of="text"
    )
    context: int = knob(256, "labels: longest text in tokens; text: tokens of a training window", low=1)
    out_of_scope: str = knob("auto", "the label of texts that belong to no class; auto = oos, '' = none", of="labels")
    hold_out: bool = knob(False, "do not train out-of-scope texts: a threshold on the probability finds them", of="labels")
    vectors: str = knob("", "file of pre-trained word vectors (word2vec text or binary, or GloVe)")
    freeze: bool = knob(
        False, "keep the pre-trained vectors as they are; for text, if tied, the output layer too: it is the same table"
    )
    embed: int = knob(0, "numbers per token; 0 = width; with vectors, theirs", low=0)
    width: int = knob(128, "numbers of the state, per direction", low=1)
    layers: int = knob(1, "recurrent layers, one above the other", low=1)
    bidirectional: bool = knob(True, "read from both ends", of="labels, tags")
    pool: Literal["max", "mean", "last"] = knob("max", "what of the states is classified", of="labels")
    tied: bool = knob(True, "one table for input and output tokens", of="text")
    dropout: float = knob(
        0.5, "share of features dropped: of the words, between layers and of the last states", low=0, high=0.95
    )
    word_dropout: float = knob(0.0, "share of training words made unknown, anew each time", low=0, high=0.95, of="labels, tags")
    grams: int = knob(0, "size of a table of hashed n-grams of words and letters that vote; 0 = none", low=0, of="labels")
    label_smoothing: float = knob(0.0, "share of the target spread over all", low=0, high=0.99, of="labels, text")
    class_weights: Literal["none", "balanced"] = knob(
        "none", "balanced = rare classes count as much as common ones", of="labels"
    )
    optim: OptimKnobs = knob(OptimKnobs(name="adamw", lr=2e-3), "optimizer and schedule")

    def make_data(self) -> Data:
        """Labelled texts, tagged words or windows of text."""
        wanted = FORMS.get(self.learn, "")
        if wanted == "corpus" or (not wanted and self._is_plain()):
            return self._corpus()
        texts = read_texts(self.data, wanted, text=self.text, label=self.label, seed=self.seed)
        given = {"vectors": self.vectors, "word_dropout": self.word_dropout, "start_from": self.start_from}
        size = {"batch": self.batch, "seed": self.seed, "vocab_size": self.vocab_size, "least": self.least, "lower": self.lower}
        if texts.form == "labelled":
            return sentences(
                texts, context=self.context, vocab="word" if self.vocab == "auto" else self.vocab, text=self.text,
                label=self.label, out_of_scope=self.out_of_scope, hold_out=self.hold_out, grams=self.grams, **size, **given,
            )  # fmt: skip
        if texts.form == "tagged":
            return tagged(texts, letters=self.letters, **size, **given)
        if texts.form != "corpus":
            raise ConfigError(f"{texts.title} are {texts.form}; this recipe learns labels, tags or plain text (learn=text)")
        return self._corpus()

    def learned(self, spec: Spec) -> str:
        """See Recipe."""
        return "text" if isinstance(spec, LanguageSpec) else "tags" if isinstance(spec, TagSpec) else "labels"

    def make_task(self, spec: Spec) -> Task:
        """The network and objective of the kind of data."""
        width, layers, dropout = self.width, self.layers, self.dropout
        if isinstance(spec, LanguageSpec):
            size = spec.vocabulary.size
            embed = spec.vector_width or self.embed
            model = RecurrentLM(size, width, layers, self.cell, embed=embed, tied=self.tied, dropout=dropout)
            spec.start(model.embed, freeze=self.freeze, scale=True)  # tied, the table's spread is that of the logits
            return NextToken(model, size, label_smoothing=self.label_smoothing)
        if isinstance(spec, TagSpec):
            alphabet = spec.characters.size if spec.characters else 0
            tagger = RecurrentTagger(
                spec.vocabulary.size, width, layers, self.cell, self.bidirectional, spec.vector_width or self.embed, dropout,
                len(spec.tags), alphabet, self.spelling,
            )  # fmt: skip
            spec.start(tagger.embed, freeze=self.freeze)
            return Tag(tagger, spec.tags, SPELLED if alphabet else WHOLE, crf=self.crf)
        assert isinstance(spec, TextSpec)
        encoder = RecurrentEncoder(
            spec.vocabulary.size, width, layers, self.cell, self.bidirectional, spec.vector_width or self.embed, dropout,
            spec.outputs, self.pool, spec.grams,
        )  # fmt: skip
        spec.start(encoder.embed, freeze=self.freeze)
        if spec.held_out:
            return OpenSet(encoder, spec.inputs, spec.outputs, label_smoothing=self.label_smoothing)
        weights = balanced(spec.class_counts) if self.class_weights == "balanced" else None
        return Classify(encoder, spec.inputs, class_weights=weights, label_smoothing=self.label_smoothing)

    def make_optims(self, task: Task) -> dict[str, Optim]:
        """One optimizer for the network, and the transitions between tags."""
        return {"model": build(task, self.optim)}

    def make_plan(self, data: Data, *, precision: Precision, channels_last: bool = False, compile: bool = False) -> Plan:
        """The state with the best accuracy, F1 of entities, or loss of the next token."""
        plan = super().make_plan(data, precision=precision, channels_last=channels_last, compile=compile)
        if isinstance(data.spec, LanguageSpec):
            return plan
        spans = isinstance(data.spec, TagSpec) and any(t.startswith("B-") for t in data.spec.tags)
        return dataclasses.replace(plan, watch="f1" if spans else "accuracy", mode="max")

    def make_predictor(self, task: Task, spec: Spec) -> Predictor:
        """A classifier, a tagger or a generator."""
        model = task.get_submodule("model")
        if isinstance(spec, LanguageSpec):
            return Generator(model, spec, ends=(START, END), special=len(spec.vocabulary.specials), limited=False)
        if isinstance(spec, TagSpec):
            assert isinstance(task, Tag)
            return Tagger(model, task.crf, spec, spec.tags, task.inputs)
        assert isinstance(spec, TextSpec)
        if not spec.out_of_scope:
            return Classifier(model, spec, spec.classes, spec.inputs)
        threshold = task.get_buffer("threshold") if spec.held_out else None
        return IntentClassifier(model, spec, spec.classes, spec.inputs, threshold)

    def _is_plain(self) -> bool:
        """Whether the data is one plain text file, which need not be read to see what it is."""
        return (
            isinstance(self.data, (str, PathLike))
            and Path(self.data).expanduser().is_file()
            and stream_files(self.data) is not None
        )

    def _corpus(self) -> Data:
        return corpus(
            self.data, batch=self.batch, context=self.context, seed=self.seed, vocab=self.vocab, vocab_size=self.vocab_size,
            documents=self.documents, vectors=self.vectors, start_from=self.start_from, memory=self.memory,
        )  # fmt: skip
