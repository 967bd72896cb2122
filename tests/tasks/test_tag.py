"""Tag: accumulation is exact, entities are counted as conlleval does, rules hold, and it trains."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from engram.core.batch import split_rows
from engram.core.errors import ConfigError, DataError
from engram.core.task import Ctx
from engram.nn.bio import constraints, count
from engram.tasks.tag import Tag

CTX = Ctx()
TAGS = ("O", "B-a", "I-a", "B-b", "I-b")


class Table(nn.Module):
    """The scores of a word are a row of a table."""

    def __init__(self, vocab: int = 9, tags: int = 5):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Parameter(torch.randn(vocab, tags))

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        return self.table[tokens]


def data(rows: int = 7, longest: int = 6) -> dict[str, Tensor]:
    """Random sentences with tags that keep the rules of BIO, and lengths from 1."""
    g = torch.Generator().manual_seed(1)
    allowed, starts = constraints(TAGS)
    lengths = torch.randint(1, longest + 1, (rows,), generator=g)
    tags = torch.full((rows, longest), -100)
    for row, n in enumerate(lengths.tolist()):
        may = starts
        for place in range(n):
            tags[row, place] = torch.multinomial(may.float(), 1, generator=g)[0]
            may = allowed[tags[row, place]]
    return {"tokens": torch.randint(9, (rows, longest), generator=g), "lengths": lengths, "tags": tags}


@pytest.mark.parametrize("pieces", [1, 2, 3, 7])
@pytest.mark.parametrize("crf", [True, False])
def test_weighted_pieces_give_the_gradient_of_the_whole(crf: bool, pieces: int) -> None:
    task, batch = Tag(Table(), TAGS, crf=crf).double(), data()
    for p in task.parameters():
        nn.init.normal_(p)
    if not crf:
        batch["tags"][0, 0] = -100  # words without a tag are left out
    (phase,) = task.phases()
    assert len(phase.parameters()) == (4 if crf else 1)
    phase.loss(batch, CTX)[0].backward()
    whole = [p.grad.clone() for p in task.parameters()]
    task.zero_grad()
    for part in split_rows(batch, pieces):
        (phase.loss(part, CTX)[0] * (phase.weight(part) / phase.weight(batch))).backward()
    for a, p in zip(whole, task.parameters(), strict=True):
        torch.testing.assert_close(p.grad, a, rtol=1e-6, atol=1e-7)


# The tags of the words, what was predicted, and (words right, words, entities right, predicted, there are) by hand.
HAND = [
    ("B-a I-a O B-b", "B-a I-a O B-b", (4, 4, 2, 2, 2)),
    ("B-a I-a O O", "B-a O O O", (3, 4, 0, 1, 1)),  # too short
    ("O B-a O O", "O B-b O O", (3, 4, 0, 1, 1)),  # the type is wrong
    ("B-a I-a I-a O", "B-a B-a I-a O", (3, 4, 0, 2, 1)),  # cut in two
    ("B-a B-a O O", "B-a I-a O O", (3, 4, 0, 1, 2)),  # joined
    ("O I-b I-b", "O B-b I-b", (2, 3, 1, 1, 1)),  # an I- that follows nothing begins an entity
    ("O O", "O O", (2, 2, 0, 0, 0)),
]


def numbers(text: str, fill: int) -> list[int]:
    made = [TAGS.index(t) for t in text.split()]
    return made + [fill] * (4 - len(made))


def test_entities_are_counted_as_conlleval_does() -> None:
    gold = torch.tensor([numbers(g, -100) for g, _, _ in HAND])
    paths = torch.tensor([numbers(p, -1) for _, p, _ in HAND])
    assert count(paths, gold, TAGS).tolist() == [list(map(float, row)) for _, _, row in HAND]


class Given(nn.Module):
    """Scores that prefer the tags in `tokens`."""

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        return nn.functional.one_hot(tokens, len(TAGS)) * 20.0


@pytest.mark.parametrize("pieces", [1, 3, 7])
def test_evaluation_streams(pieces: int) -> None:
    """Sums over the table by hand: 20 of 25 words; 3 entities right of 8 predicted and 8 there are."""
    gold = torch.tensor([numbers(g, -100) for g, _, _ in HAND])
    batch = {"tokens": torch.tensor([numbers(p, 0) for _, p, _ in HAND]), "tags": gold, "lengths": (gold >= 0).sum(1)}
    task = Tag(Given(), TAGS, crf=False)
    with torch.no_grad():
        scores = task.evaluate(split_rows(batch, pieces), CTX)
    assert scores["accuracy"] == pytest.approx(20 / 25)
    assert (scores["precision"], scores["recall"], scores["f1"]) == pytest.approx((3 / 8, 3 / 8, 3 / 8))
    assert scores["loss"] == pytest.approx(5 / 25 * 20, abs=1e-3)  # a wrong word costs the lead of 20 nats


def test_decoding_keeps_the_rules_without_a_crf_too() -> None:
    task = Tag(Given(), TAGS, crf=False)
    batch = {"tokens": torch.tensor([[2, 2, 4]]), "lengths": torch.tensor([3]), "tags": torch.tensor([[1, 2, 0]])}
    path = task.crf.decode(task(batch), batch["lengths"])
    assert task.crf.allows(path, batch["lengths"]).all()


@pytest.mark.parametrize("crf", [True, False])
def test_chance_loss_is_the_loss_of_equal_scores(crf: bool) -> None:
    task, batch = Tag(Table(), TAGS, crf=crf), data(40, 60)
    task.model.table.data.zero_()
    got = float(task.loss(batch, CTX)[0].detach())
    assert got == pytest.approx(task.chance_loss(), rel=0.03)
    assert task.chance_loss() < math.log(5) if crf else task.chance_loss() == math.log(5)


def test_learns_what_only_transitions_tell() -> None:
    """Every word is the same; tags go O, B-a, I-a, O: only the CRF can get all of them right."""
    batch = {"tokens": torch.zeros(4, 9, dtype=torch.int64), "lengths": torch.full((4,), 9)}
    batch["tags"] = torch.tensor([0, 1, 2] * 3).repeat(4, 1)
    task = Tag(Table(), TAGS)
    optimizer = torch.optim.Adam(task.parameters(), 0.3)
    for _ in range(30):
        optimizer.zero_grad()
        task.loss(batch, CTX)[0].backward()
        optimizer.step()
    with torch.no_grad():
        assert task.evaluate([batch], CTX)["f1"] == 1.0


def test_errors() -> None:
    task, batch = Tag(Table(), TAGS), data()
    with pytest.raises(DataError, match="every word"):
        task.loss(batch | {"lengths": torch.full((7,), 6)}, CTX)
    wrong = torch.tensor([[0, 2, -100, -100, -100, -100]])
    one = {name: t[:1] for name, t in batch.items()} | {"tags": wrong, "lengths": torch.tensor([2])}
    with pytest.raises(DataError, match="breaks BIO"):
        task.loss(one, CTX)
    with pytest.raises(DataError, match="no tagged words"):
        task.evaluate([], CTX)
    with pytest.raises(DataError, match=r"gives \(7, 6, 4\)"):
        Tag(Table(tags=4), TAGS).loss(batch, CTX)
    with pytest.raises(ConfigError, match="different names"):
        Tag(Table(), ("O", "O"))
