"""Text to word vectors with word2vec (skip-gram or CBOW): neighbours, analogies, vectors for other models.

engram train word2vec data=book.txt
engram neighbours runs/word2vec-book-001 king queen
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from engram.core.data import Data
from engram.core.knobs import knob
from engram.core.optim import Optim
from engram.core.predictor import Predictor
from engram.core.recipe import Recipe
from engram.core.spec import Spec
from engram.core.task import Task
from engram.data.windows import Windows
from engram.data.word_corpus import read_corpus
from engram.data.word_spec import WordSpec
from engram.inference.neighbours import Neighbours
from engram.models.word2vec import Word2Vec
from engram.optim.rowwise import RowKnobs, build_rows
from engram.tasks.skipgram import TellNeighbours

# Three times as fast where the processor has the instructions, and the vectors are as good (docs/recipes/word2vec.md).
PRECISION = "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "auto"


@dataclass(frozen=True, kw_only=True)
class Word2vec(Recipe):
    """Words that stand in like company get like vectors (Mikolov et al. 2013)."""

    tiny: ClassVar = {"width": 32, "epochs": 1, "batch": 4096, "sample": 1e-4}
    specs: ClassVar = (WordSpec,)
    narrow: ClassVar = True

    data: Any = knob("pydoc", "a text file, a folder of them, or a built-in set of texts; pydoc is CPython's reference manual")
    epochs: float = knob(5.0, "passes over the text", low=0)
    batch: int = knob(16384, "words of the text per optimizer step", low=1)
    precision: Literal["auto", "fp32", "bf16"] = knob(PRECISION, "bf16: matrix products in bfloat16; the vectors stay fp32")
    clip: float = knob(0.0, "largest norm of the gradient; 0 = do not clip", low=0)
    kind: Literal["skipgram", "cbow"] = knob("skipgram", "predict the words around a word, or the word from those around it")
    width: int = knob(100, "numbers in a vector", low=1)
    window: int = knob(5, "words at each side, at most; every word draws 1 to this", low=1, high=100)
    noise: int = knob(5, "noise words against one true word", low=1)
    shared: int = knob(32, "noise words drawn for 32 consecutive words, which share them", low=1)
    sample: float = knob(1e-3, "words with a larger share of the text are dropped at random; 0 = none", low=0)
    min_count: int = knob(5, "words seen fewer times get no vector", low=1)
    most: int = knob(0, "vectors for so many of the commonest words at most; 0 = no limit", low=0)
    lower: bool = knob(True, "take capital letters as small ones")
    spaces: bool = knob(False, "words are what stands between spaces, punctuation included")
    holdout: float = knob(0.02, "share of the text to measure the loss on", low=0, high=0.5)
    optim: RowKnobs = knob(RowKnobs(lr=0.2), "optimizer and schedule")

    def make_data(self) -> Data:
        """The text as numbers, windows made batch by batch."""
        corpus = read_corpus(self.data, min_count=self.min_count, most=self.most, lower=self.lower, spaces=self.spaces)
        return Windows(
            corpus, batch=self.batch, window=self.window, sample=self.sample, shared=self.shared, holdout=self.holdout,
            seed=self.seed,
        )  # fmt: skip

    def make_task(self, spec: Spec) -> Task:
        """Two vectors per word: to use, and to score with while training."""
        assert isinstance(spec, WordSpec)
        model = Word2Vec(len(spec.words), self.width, self.window, self.kind, self.noise)
        return TellNeighbours(model, self.noise, per_word=self.kind == "cbow")

    def make_optims(self, task: Task) -> dict[str, Optim]:
        """One optimizer for both tables."""
        return {"model": build_rows(task, self.optim)}

    def make_predictor(self, task: Task, spec: Spec) -> Predictor:
        """The nearest words."""
        assert isinstance(spec, WordSpec)
        model = task.get_submodule("model")
        assert isinstance(model, Word2Vec)
        return Neighbours(model.vectors(), spec.words, spec)
