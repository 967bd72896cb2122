"""A Transformer encoder that fills in hidden words, and is then taught to classify, to tag or to answer questions:

engram train bert
engram train bert data=books/ vocab=bpe
engram train bert data=reviews.csv start_from=runs/bert
engram train bert data=squad
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
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
from engram.data.masked import MaskedSpec, MaskedTokens
from engram.data.piece_tags import PieceTagSpec, piece_tags
from engram.data.question_spec import KINDS, QuestionSpec
from engram.data.questions import questions
from engram.data.sentence_spec import TextSpec
from engram.data.sentences import sentences
from engram.data.texts import read_texts
from engram.data.vocabulary import START
from engram.inference.answer import Answerer
from engram.inference.classify import Classifier
from engram.inference.intent import IntentClassifier
from engram.inference.masked_fill import MaskFiller
from engram.inference.tag import Tagger
from engram.models.bert import BERT, MaskedModel, SpanModel, TextModel, WordModel
from engram.optim.build import build
from engram.optim.knobs import OptimKnobs
from engram.tasks.classify import Classify
from engram.tasks.masked_token import MaskedToken
from engram.tasks.span import Span
from engram.tasks.tag import Tag
from engram.tasks.weights import balanced

FORMS = {"gaps": "corpus", "labels": "labelled", "tags": "tagged", "answers": "questions"}
PIECES = ("pieces", "pieces_lengths", "firsts")
SAME = ("context", "layers", "heads", "width", "hidden")


@dataclass(frozen=True, kw_only=True)
class Bert(Recipe):
    """BERT (Devlin et al. 2019). The kind of data says what is learned: plain text hidden tokens, labelled texts their class,
    tagged words their tags, questions about texts where the answer stands."""

    tiny: ClassVar = {
        "data": "pydoc", "vocab": "char", "context": 16, "layers": 1, "heads": 2, "width": 16, "steps": 60, "batch": 16,
        "dropout": 0.0, "optim.lr": 3e-3,
    }  # fmt: skip
    specs: ClassVar = (MaskedSpec, TextSpec, PieceTagSpec, QuestionSpec)

    data: Any = knob("pydoc", "plain text, labelled texts, tagged words or questions: a set's name or the path of your own")
    learn: Literal["auto", "gaps", "labels", "tags", "answers"] = knob("auto", "what to learn; auto = what the data has")
    epochs: float = knob(20.0, "passes over the training rows", low=0)
    batch: int = knob(32, "rows per optimizer step, over all ranks and micro-batches", low=1)
    text: str = knob("", "column of the texts; '' = the usual names", of="labels")
    label: str = knob("", "column of the labels; '' = the usual names", of="labels")
    vocab: Literal["auto", "char", "byte", "word", "bpe"] = knob(
        "auto", "tokens; auto = bpe, for tags and answers words; with vectors words"
    )
    vocab_size: int = knob(8192, "most tokens of a word or bpe vocabulary", low=16)
    least: int = knob(1, "words seen fewer times than this are unknown", low=1, of="labels, tags, answers")
    lower: bool = knob(True, "read capital letters as small ones", of="labels, tags, answers")
    vectors: str = knob("", "file of pre-trained word vectors (word2vec text or binary, or GloVe) of as many numbers as width")
    freeze: bool = knob(False, "keep the pre-trained vectors as they are; for gaps the output layer too: it is the same table")
    masked: float = knob(0.15, "share of the tokens that is hidden", low=0.01, high=0.9, of="gaps")
    stride: int = knob(0, "tokens from one window of a long text to the next; 0 = half of a window", low=0, of="answers")
    longest: int = knob(30, "most tokens of an answer", low=1, of="answers")
    crf: bool = knob(False, "choose the tags of a sentence together (conditional random field)", of="tags")
    out_of_scope: str = knob("auto", "the label of texts that belong to no class; auto = oos, '' = none", of="labels")
    class_weights: Literal["none", "balanced"] = knob(
        "none", "balanced = rare classes count as much as common ones", of="labels"
    )
    label_smoothing: float = knob(0.0, "share of the target spread over all classes", low=0, high=0.99, of="labels")
    context: int = knob(128, "tokens that the network sees at once", low=4)
    layers: int = knob(4, "Transformer blocks", low=1)
    heads: int = knob(4, "attention heads of each block; must divide width", low=1)
    width: int = knob(192, "numbers per token", low=2)
    hidden: int = knob(0, "width inside the feed-forward layers; 0 = 4 width", low=0)
    dropout: float = knob(0.1, "share of features dropped in training", low=0, high=0.95)
    optim: OptimKnobs = knob(OptimKnobs(name="adamw", lr=5e-4, beta2=0.98, weight_decay=0.01), "optimizer and schedule")

    def make_data(self) -> Data:
        """Rows of the kind that the data has."""
        if self.start_from:
            self._check_start()
        texts = read_texts(self.data, FORMS.get(self.learn, ""), text=self.text, label=self.label, seed=self.seed)
        size: dict[str, Any] = {"batch": self.batch, "seed": self.seed, "vocab_size": self.vocab_size}
        size |= {"vectors": self.vectors, "start_from": self.start_from}
        pieces = "word" if self.vectors else "bpe"
        words = {"least": self.least, "lower": self.lower}
        if texts.form == "corpus":
            kind = pieces if self.vocab == "auto" else self.vocab
            found = corpus(self.data, context=self.context, vocab=kind, documents="off", **size)
            return MaskedTokens(found, self.masked)
        kind = "word" if self.vocab == "auto" else self.vocab
        if texts.form == "labelled":
            return sentences(
                texts, context=self.context - 1, vocab=pieces if self.vocab == "auto" else self.vocab, text=self.text,
                label=self.label, out_of_scope=self.out_of_scope, **size, **words,
            )  # fmt: skip
        if texts.form == "tagged":
            return piece_tags(texts, context=self.context, vocab=kind, **size, **words)
        if texts.form == "questions":
            return questions(texts, context=self.context, stride=self.stride, vocab=kind, **size, **words)
        raise ConfigError(f"{texts.title} are {texts.form}; this recipe learns gaps (learn=gaps), labels, tags or answers")

    def learned(self, spec: Spec) -> str:
        """See Recipe."""
        kinds = {MaskedSpec: "gaps", PieceTagSpec: "tags", QuestionSpec: "answers"}
        return kinds.get(type(spec), "labels")

    def make_task(self, spec: Spec) -> Task:
        """An encoder, the same for all uses, with the head and objective of the kind of data."""
        assert isinstance(spec, (MaskedSpec, TextSpec, PieceTagSpec, QuestionSpec))
        size = spec.vocabulary.size
        spec.check_width(self.width, self.heads)
        encoder = BERT(
            size, self.context, self.layers, self.heads, self.width, self.hidden, segments=KINDS, dropout=self.dropout
        )
        spec.start(encoder.tokens, freeze=self.freeze, scale=True)
        if isinstance(spec, MaskedSpec):
            return MaskedToken(MaskedModel(encoder, size), size)
        if isinstance(spec, QuestionSpec):
            return Span(SpanModel(encoder, self.dropout), spec.chance)
        if isinstance(spec, PieceTagSpec):
            return Tag(WordModel(encoder, len(spec.tags), self.dropout), spec.tags, PIECES, crf=self.crf)
        weights = balanced(spec.class_counts) if self.class_weights == "balanced" else None
        model = TextModel(encoder, spec.outputs, START, self.dropout)
        return Classify(model, ("tokens", "lengths"), class_weights=weights, label_smoothing=self.label_smoothing)

    def make_optims(self, task: Task) -> dict[str, Optim]:
        """One optimizer for the network, and the transitions between tags."""
        return {"model": build(task, self.optim)}

    def make_plan(self, data: Data, *, precision: Precision, channels_last: bool = False, compile: bool = False) -> Plan:
        """The state with the lowest loss of hidden tokens, or the highest accuracy, F1 of entities, or right answers."""
        plan = super().make_plan(data, precision=precision, channels_last=channels_last, compile=compile)
        if isinstance(data.spec, MaskedSpec):
            return plan
        entities = isinstance(data.spec, PieceTagSpec) and any(t.startswith("B-") for t in data.spec.tags)
        return dataclasses.replace(plan, watch="f1" if entities else "accuracy", mode="max")

    def make_predictor(self, task: Task, spec: Spec) -> Predictor:
        """Fills gaps, classifies, tags or answers."""
        model = task.get_submodule("model")
        if isinstance(spec, MaskedSpec):
            return MaskFiller(model, spec, len(spec.vocabulary.specials))
        if isinstance(spec, QuestionSpec):
            return Answerer(model, spec, self.longest)
        if isinstance(spec, PieceTagSpec):
            assert isinstance(task, Tag)
            return Tagger(model, task.crf, spec, spec.tags, PIECES)
        assert isinstance(spec, TextSpec)
        kind = IntentClassifier if spec.out_of_scope else Classifier
        return kind(model, spec, spec.classes, ("tokens", "lengths"))

    def _check_start(self) -> None:
        """The encoder of a run is gone on with only when it has the sizes of this one."""
        try:
            knobs = json.loads((Path(self.start_from) / "run.json").read_text("utf-8"))["knobs"]
        except (OSError, ValueError, KeyError):
            return  # vocabulary_of tells
        if other := [n for n in SAME if n in knobs and knobs[n] != getattr(self, n)]:
            asked = " ".join(f"{n}={knobs[n]}" for n in other)
            raise ConfigError(f"start_from={self.start_from} was trained with {asked}; set the same here")
