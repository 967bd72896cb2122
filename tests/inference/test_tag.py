"""Tagger: words, tags and entities per sentence; its figures; the same answer alone and in a batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from engram.core.batch import Batch
from engram.core.spec import Spec
from engram.inference.tag import Tagger
from engram.models.recurrent import RecurrentTagger
from engram.nn.bio import constraints
from engram.nn.crf import CRF

TAGS = ("O", "B-per", "I-per", "B-loc", "I-loc")
NAMES = {"Ada": 1, "Byron": 2, "London": 3, "York": 4}


@dataclass(frozen=True, kw_only=True)
class Toy(Spec):
    """Words that are known names, all others number 5."""

    def words(self, raw: Any) -> list[list[str]]:
        return [line.split() for line in ([raw] if isinstance(raw, str) else raw)]

    def encode(self, raw: Any) -> Batch:
        ids = [[NAMES.get(w, 5) for w in words] for words in self.words(raw)]
        longest = max(map(len, ids))
        tokens = torch.tensor([row + [0] * (longest - len(row)) for row in ids])
        return {"tokens": tokens, "lengths": torch.tensor([len(row) for row in ids])}

    def read(self, source: Any, rows: int = 256) -> Iterator[tuple[list[str], Any]]:
        yield from ()

    def labelled(self, source: Any, rows: int = 256) -> Iterator[Batch]:
        yield from ()

    def example(self, batch: int = 2) -> Batch:
        return {"tokens": torch.zeros(batch, 3, dtype=torch.int64), "lengths": torch.full((batch,), 3)}


class ById(torch.nn.Module):
    """Name number i has tag i; strong scores, so that rules must hold against them."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(9.0))

    def forward(self, tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(tokens % 5, 5) * self.scale


def crf() -> CRF:
    return CRF(5, *constraints(TAGS), learned=False)


def test_words_tags_and_entities() -> None:
    told = Tagger(ById(), crf(), Toy(), TAGS)(input=["Ada Byron left London", "in London York"])
    assert told["words"] == [["Ada", "Byron", "left", "London"], ["in", "London", "York"]]
    assert told["tags"] == [["B-per", "I-per", "O", "B-loc"], ["O", "B-loc", "I-loc"]]
    assert told["entities"] == [
        [{"text": "Ada Byron", "label": "per", "start": 0, "end": 2}, {"text": "London", "label": "loc", "start": 3, "end": 4}],
        [{"text": "London York", "label": "loc", "start": 1, "end": 3}],
    ]
    assert set(told) == set(Tagger.gives)


def test_rules_hold_against_the_scores() -> None:
    """'Byron' alone would be I-per, which may not stand first."""
    (tags,) = Tagger(ById(), crf(), Toy(), TAGS)(input="Byron")["tags"]
    assert tags != ["I-per"]


def test_figures() -> None:
    """One of two entities found, none too many: precision 1, recall 1/2, F1 2/3; 3 of 4 words."""
    spec = Toy()
    batch = spec.encode(["Ada left", "to go"]) | {"tags": torch.tensor([[1, 0], [0, 3]])}
    predictor = Tagger(ById(), crf(), spec, TAGS)
    assert predictor.outputs(batch)["targets"].tolist() == [[1, 0], [0, 3]]
    scores = predictor.scores([batch], [["Ada left", "to go"]])
    assert scores is not None
    totals = scores.parts.sum(0, keepdim=True)
    found = {name: float(figure.statistic(totals)) for name, figure in scores.figures.items()}
    assert found == {"f1": 2 / 3, "precision": 1.0, "recall": 0.5, "accuracy": 0.75}
    assert scores.examples[0] == {"input": "Ada left", "target": "", "prediction": "Ada (per)"}
    assert predictor.scores([spec.encode("Ada")], []) is None


def test_a_sentence_alone_equals_itself_in_a_batch() -> None:
    torch.manual_seed(0)
    model = RecurrentTagger(6, 16, tags=5).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p)
    predictor = Tagger(model, crf(), Toy(), TAGS)
    lines = ["Ada Byron left London for York with York", "Byron", "York left Ada"]
    together = predictor(input=lines)["tags"]
    assert [predictor(input=line)["tags"][0] for line in lines] == together
    predictor.tune(bf16=True, channels_last=False)
    assert [len(tags) for tags in predictor(input=lines)["tags"]] == [8, 1, 3]
