"""The CRF against every path counted one by one, and BIO tags against tables by hand."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from engram.nn.bio import constraints, spans
from engram.nn.crf import CRF

TAGS = ("O", "B-a", "I-a", "B-b", "I-b")


def crf(tags: tuple[str, ...] = TAGS[:4], learned: bool = True) -> CRF:
    torch.manual_seed(0)
    made = CRF(len(tags), *constraints(tags), learned=learned).double()
    for p in made.parameters():
        torch.nn.init.normal_(p)
    return made


def paths(made: CRF, scores: Tensor) -> dict[tuple[int, ...], Tensor]:
    """The score of every path of one row (T, tags) that is allowed."""
    found = {}
    length, tags = scores.shape
    for path in itertools.product(range(tags), repeat=length):
        if not made.start_mask[path[0]] or not made.end_mask[path[-1]]:
            continue
        if any(not made.transitions_mask[a, b] for a, b in itertools.pairwise(path)):
            continue
        moves = sum((made.transitions[a, b] for a, b in itertools.pairwise(path)), start=torch.zeros((), dtype=torch.float64))
        found[path] = made.start[path[0]] + made.end[path[-1]] + moves + sum(scores[t, y] for t, y in enumerate(path))
    return found


@pytest.mark.parametrize("learned", [True, False])
def test_equals_every_path_counted(learned: bool) -> None:
    """Log-partition, path score, Viterbi and gradients to 1e-9; what stands beyond the lengths changes nothing."""
    made = crf(learned=learned)
    lengths = torch.tensor([5, 1, 3])
    scores = torch.randn(3, 6, 4, dtype=torch.float64)
    scores[1, 1:] = 90.0
    scores.requires_grad_()
    gold = torch.tensor([[0, 1, 2, 2, 3, -100], [3, -100, -100, -100, -100, -100], [1, 2, 0, -100, -100, -100]])
    wanted_log, wanted_score = [], []
    best = made.decode(scores, lengths)
    for row, n in enumerate(lengths.tolist()):
        every = paths(made, scores[row, :n])
        wanted_log.append(torch.stack(list(every.values())).logsumexp(0))
        wanted_score.append(every[tuple(gold[row, :n].tolist())])
        assert tuple(best[row, :n].tolist()) == max(every, key=lambda p: float(every[p].detach()))
        assert (best[row, n:] == -1).all()
    torch.testing.assert_close(made.log_partition(scores, lengths), torch.stack(wanted_log), atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(made.score(scores, gold, lengths), torch.stack(wanted_score), atol=1e-10, rtol=1e-10)
    wanted = torch.stack(wanted_score) - torch.stack(wanted_log)
    got = torch.autograd.grad(made(scores, gold, lengths).square().sum(), [scores, *made.parameters()])
    expected = torch.autograd.grad(wanted.square().sum(), [scores, *made.parameters()])
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)
    assert not got[0][1, 1:].any()


def test_probabilities_of_all_allowed_paths_sum_to_one() -> None:
    made = crf()
    scores = torch.randn(1, 4, 4, dtype=torch.float64)
    every = torch.tensor(list(itertools.product(range(4), repeat=4)))
    chances = made(scores.expand(len(every), -1, -1), every, torch.full((len(every),), 4)).exp()
    torch.testing.assert_close(chances.sum(), torch.ones((), dtype=torch.float64))
    allowed = made.allows(every, torch.full((len(every),), 4))
    assert (chances[allowed] > 0).all()
    assert (chances[~allowed] == 0).all()
    assert 0 < int(allowed.sum()) == len(paths(made, scores[0])) < len(every)


def test_decoding_respects_constraints_against_strong_scores() -> None:
    made = CRF(5, *constraints(TAGS))
    scores = torch.randn(200, 12, 5) * 50
    assert made.allows(made.decode(scores, torch.full((200,), 12)), torch.full((200,), 12)).all()
    assert not made.allows(scores.argmax(2), torch.full((200,), 12)).all()


def test_ends_and_empty_rows() -> None:
    made = CRF(2, ends=torch.tensor([True, False]))
    scores = torch.tensor([[[0.0, 9.0], [0.0, 9.0]]]).expand(2, -1, -1)
    lengths = torch.tensor([2, 0])
    assert made.decode(scores, lengths).tolist() == [[1, 0], [-1, -1]]
    assert made.log_partition(scores, lengths)[1] == 0
    assert made(scores, torch.zeros(2, 2, dtype=torch.int64), lengths)[1] == 0


def test_bfloat16_scores_are_summed_in_float32() -> None:
    made, scores = CRF(3), torch.randn(2, 30, 3).bfloat16()
    assert made.log_partition(scores, torch.tensor([30, 30])).dtype == torch.float32


def test_constraints_of_bio() -> None:
    allowed, starts = constraints(TAGS)
    assert starts.tolist() == [True, True, False, True, False]
    assert allowed.int().tolist() == [
        [1, 1, 0, 1, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 1, 1],
        [1, 1, 0, 1, 1],
    ]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O O", []),
        ("B-a I-a O B-b", [("a", 0, 2), ("b", 3, 4)]),
        ("B-a B-a I-a", [("a", 0, 1), ("a", 1, 3)]),
        ("B-a I-b I-b", [("a", 0, 1), ("b", 1, 3)]),  # conlleval: another type begins a new entity
        ("O I-a I-a", [("a", 1, 3)]),
        ("I-a O I-a", [("a", 0, 1), ("a", 2, 3)]),
    ],
)
def test_spans(tags: str, expected: list[tuple[str, int, int]]) -> None:
    assert spans(tags.split()) == expected


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"transitions of 3 tags need a mask of shape \(3, 3\), got \(2, 2\)"):
        CRF(3, torch.ones(2, 2, dtype=torch.bool))
