"""Exact match and F1 against hand-made cases of the official script; spans over windows against brute force."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn

from engram.core.batch import Batch
from engram.data.question_spec import KINDS, QuestionSpec
from engram.data.vocabulary import Vocabulary
from engram.inference.answer import Answerer, exact, f1, gold_answers, owners
from engram.models.bert import BERT, SpanModel
from engram.tasks.span import Span

LETTERS = "a b c d e f g h i j k l m n o p q r s t u v w x y z"


@pytest.mark.parametrize(
    ("answer", "known", "right", "overlap"),
    [
        ("The Oslo", ["oslo!"], 1.0, 1.0),
        ("an apple a day", ["Apple day"], 1.0, 1.0),
        ("Oslo, Norway", ["Oslo"], 0.0, 2 / 3),
        ("in the year 1973", ["1973", "year 1973"], 0.0, 0.8),
        ("Rome", ["Oslo", "Bonn"], 0.0, 0.0),
        ("the the", ["a"], 1.0, 1.0),
        ("", [], 1.0, 1.0),
        ("Oslo", [], 0.0, 0.0),
        ("no no yes", ["no yes yes"], 0.0, 2 / 3),
        ("U.S.", ["US"], 1.0, 1.0),
    ],
)
def test_figures_as_the_official_script(answer: str, known: list[str], right: float, overlap: float) -> None:
    assert exact(answer, known) == right
    assert f1(answer, known) == pytest.approx(overlap)


def test_gold_answers_in_their_forms() -> None:
    assert gold_answers("x") == gold_answers(["x"]) == gold_answers([{"text": "x", "start": 3}]) == ["x"]


def test_a_piece_belongs_to_the_window_that_shows_most_around_it() -> None:
    assert owners([(0, 6), (4, 6)], 10).tolist() == [0] * 5 + [1] * 5


class Fixed(nn.Module):
    """Logits that depend on token and window in no simple way."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(60, 2, generator=torch.Generator().manual_seed(3)))

    def forward(self, tokens: torch.Tensor, lengths: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
        return self.table[tokens] * 3 + 0.1 * torch.arange(tokens.shape[1])[:, None]


def make_spec(**given: Any) -> QuestionSpec:
    vocabulary = Vocabulary.train("word", [LETTERS + " who ?"], 100)
    return QuestionSpec(vocab=vocabulary.to_json(), **{"context": 12, "stride": 4, **given})


@pytest.mark.parametrize("unanswerable", [False, True])
def test_best_spans_and_probabilities_equal_brute_force(unanswerable: bool) -> None:
    spec = make_spec(unanswerable=unanswerable)
    answerer = Answerer(Fixed(), spec, longest=3)
    row = {"question": "who ?", "context": LETTERS}
    out = answerer(input=row, top=10)
    pieces = spec.pieces(LETTERS)
    windows = spec.windows("who ?", pieces)
    assert len(windows) > 3
    owner = owners([(w.begin, w.count) for w in windows], 26)
    scores: dict[tuple[int, int], float] = {}
    nothing = []
    for number, w in enumerate(windows):
        tokens = torch.tensor([w.tokens])
        logits = answerer.model(tokens, torch.tensor([len(w.tokens)]), torch.tensor([w.kinds]))[0].detach()
        nothing.append(float(logits[0].sum()))
        for i, j in itertools.product(range(w.count), repeat=2):
            if i <= j < i + 3 and owner[w.begin + i] == number:
                span = pieces.starts[w.begin + i], pieces.ends[w.begin + j]
                assert span not in scores
                scores[span] = float(logits[w.first + i, 0] + logits[w.first + j, 1])
    if unanswerable:
        scores[0, 0] = min(nothing)
    chances = torch.tensor(list(scores.values())).softmax(0).tolist()
    expected = sorted(zip(chances, scores, strict=True), reverse=True)[:10]
    got = [(a["probability"], (a["start"], a["end"])) for a in out["answers"][0]]
    assert [span for _, span in got] == [span for _, span in expected]
    assert [p for p, _ in got] == pytest.approx([p for p, _ in expected], rel=1e-4)
    assert all(a["text"] == LETTERS[a["start"] : a["end"]] for a in out["answers"][0])
    assert out["text"][0] == out["answers"][0][0]["text"]


def network(spec: QuestionSpec) -> SpanModel:
    torch.manual_seed(0)
    model = SpanModel(BERT(spec.vocabulary.size, spec.context + 4, 1, 2, 16, segments=KINDS), 0.0).eval()
    for p in model.parameters():
        nn.init.normal_(p, std=0.4)
    return model


def test_padding_and_neighbours_change_nothing() -> None:
    spec = make_spec()
    answerer = Answerer(network(spec), spec, longest=4)
    rows = [{"question": "who ?", "context": LETTERS[:n]} for n in (5, 51, 23)] + [{"question": "?", "context": "a"}]
    together = answerer(input=rows)
    for number, row in enumerate(rows):
        alone = answerer(input=[row])
        assert alone["text"][0] == together["text"][number]
        assert alone["probability"][0] == pytest.approx(together["probability"][number], rel=1e-4)
    batch: Batch = spec.encode(rows)
    batch |= {"starts": torch.zeros(len(batch["tokens"]), dtype=torch.int64), "ends": batch["lengths"] - 1}
    wide = batch | {n: torch.cat([batch[n], batch[n].new_zeros(len(batch[n]), 3)], 1) for n in ("tokens", "segments")}
    torch.testing.assert_close(answerer.outputs(wide)["nll"], answerer.outputs(batch)["nll"], rtol=1e-4, atol=1e-5)


def test_the_question_is_never_the_answer_and_the_loss_is_the_mean_of_both_ends() -> None:
    spec = make_spec()
    model = network(spec)
    batch = spec.encode({"question": "who ?", "context": "a b c d"})
    logits = model(batch["tokens"], batch["lengths"], batch["segments"])
    allowed = torch.isfinite(logits[0, :, 0])
    assert allowed.tolist() == [True, False, False, False, True, True, True, True]
    batch |= {"starts": torch.tensor([5]), "ends": torch.tensor([6])}
    loss, _ = Span(model, 1.0).loss(batch, None)  # type: ignore[arg-type]
    by_hand = -(logits[0, :, 0].log_softmax(0)[5] + logits[0, :, 1].log_softmax(0)[6]) / 2
    torch.testing.assert_close(loss, by_hand)
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_scores_count_a_question_once() -> None:
    spec = make_spec()
    answerer = Answerer(network(spec), spec)
    row = {"question": "who ?", "context": LETTERS, "answers": [{"start": 0, "text": "a"}]}
    best = answerer(input=row)["text"][0]
    other = {"question": "who ?", "context": LETTERS, "answers": [{"start": 0, "text": best}]}
    scores = answerer.scores([], [[row, row, other], [other]])
    assert scores is not None
    assert len(scores.parts) == 2
    total = scores.parts.sum(0, keepdim=True)
    assert float(scores.figures["exact"].statistic(total)[0]) == pytest.approx((1 + exact(best, ["a"])) / 2)
