"""Text to word vectors with GloVe: from counts of which words stand together; neighbours, analogies, vectors for other models.

engram train glove data=book.txt
engram neighbours runs/glove-book-001 king queen
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from engram.core.data import Data
from engram.core.knobs import knob
from engram.core.optim import Optim
from engram.core.predictor import Predictor
from engram.core.recipe import Recipe
from engram.core.spec import Spec
from engram.core.task import Task
from engram.data.cooccurrence import Counts
from engram.data.word_corpus import read_corpus
from engram.data.word_spec import WordSpec
from engram.inference.neighbours import Neighbours
from engram.models.glove import GloVe
from engram.optim.rowwise import RowKnobs, build_rows
from engram.tasks.cooccurrence import FitCounts


@dataclass(frozen=True, kw_only=True)
class Glove(Recipe):
    """Vectors whose products are the logarithms of how often words stand together (Pennington et al. 2014)."""

    tiny: ClassVar = {"width": 16, "epochs": 2, "batch": 4096, "min_count": 20, "holdout": 0.02}
    specs: ClassVar = (WordSpec,)
    narrow: ClassVar = True

    data: Any = knob("pydoc", "a text file, a folder of them, or a built-in set of texts; pydoc is CPython's reference manual")
    epochs: float = knob(25.0, "passes over the pairs", low=0)
    batch: int = knob(8192, "pairs of words per optimizer step", low=1)
    clip: float = knob(0.0, "largest norm of the gradient; 0 = do not clip", low=0)
    width: int = knob(100, "numbers in a vector", low=1)
    window: int = knob(10, "words at each side that count", low=1, high=100)
    top: float = knob(10.0, "pairs seen more often count no more (x_max; the paper: 100, for billions of words)", low=0.01)
    power: float = knob(0.75, "how weights rise with the count (alpha of the paper)", low=0, high=1)
    min_count: int = knob(5, "words seen fewer times get no vector", low=1)
    most: int = knob(0, "vectors for so many of the commonest words at most; 0 = no limit", low=0)
    lower: bool = knob(True, "take capital letters as small ones")
    spaces: bool = knob(False, "words are what stands between spaces, punctuation included")
    # With no pairs held out the last vectors are kept: the loss on held-out pairs is lowest long before the vectors are best
    # (docs/recipes/glove.md).
    holdout: float = knob(0.0, "share of the pairs to measure the loss on; the vectors of its lowest are kept", low=0, high=0.5)
    optim: RowKnobs = knob(RowKnobs(lr=0.05, schedule="constant"), "optimizer and schedule")

    def make_data(self) -> Data:
        """The pairs of the text with their counts, in memory."""
        corpus = read_corpus(self.data, min_count=self.min_count, most=self.most, lower=self.lower, spaces=self.spaces)
        data = Counts(corpus, batch=self.batch, window=self.window, holdout=self.holdout, seed=self.seed)
        weight = (data.counts / self.top).clamp(max=1.0) ** self.power
        data.spec = dataclasses.replace(corpus.spec, chance=float((weight * data.counts.log().square()).mean()))
        return data

    def make_task(self, spec: Spec) -> Task:
        """Two vectors and two biases per word."""
        assert isinstance(spec, WordSpec)
        return FitCounts(GloVe(len(spec.words), self.width), self.top, self.power, spec.chance)

    def make_optims(self, task: Task) -> dict[str, Optim]:
        """One optimizer for all tables."""
        return {"model": build_rows(task, self.optim)}

    def make_predictor(self, task: Task, spec: Spec) -> Predictor:
        """The nearest words."""
        assert isinstance(spec, WordSpec)
        model = task.get_submodule("model")
        assert isinstance(model, GloVe)
        return Neighbours(model.vectors(), spec.words, spec)
