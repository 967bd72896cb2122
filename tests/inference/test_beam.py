"""Beam search against all hypotheses written out, against a plain search of one source, and against itself in other batches."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from engram.inference.beam import BLOCK, END, START, Hypothesis, _in_place, beam_search, greedy, highest, length_penalty
from engram.models.seq2seq import Seq2Seq
from engram.models.t5 import T5
from engram.models.transformer import Transformer

BANNED = (0, 1, 2, 4, 5)
SIZE = 9  # three tokens besides the special ones


@dataclass
class Prefixes:
    """A state that is the prefixes themselves."""

    sources: list[int]
    ids: list[tuple[int, ...]]

    def select(self, index: Tensor) -> Prefixes:
        return Prefixes([self.sources[i] for i in index.tolist()], [self.ids[i] for i in index.tolist()])


class Toy(nn.Module):
    """Logits that are a fixed random function of the source and the whole prefix."""

    def __init__(self, seed: int, scale: float = 2.0):
        super().__init__()
        self.seed, self.scale, self.steps, self.rows = seed, scale, 0, 0

    def start(self, source: Tensor, source_lengths: Tensor | None = None) -> Prefixes:
        return Prefixes(source[:, 0].tolist(), [()] * len(source))

    def step(self, tokens: Tensor, state: Prefixes) -> tuple[Tensor, Prefixes]:
        self.steps, self.rows = self.steps + 1, self.rows + len(tokens)
        ids = [(*prefix, token) for prefix, token in zip(state.ids, tokens.tolist(), strict=True)]
        return torch.stack([self.logits(s, i) for s, i in zip(state.sources, ids, strict=True)]), Prefixes(state.sources, ids)

    def logits(self, source: int, prefix: tuple[int, ...]) -> Tensor:
        seed = hash((self.seed, source, prefix)) % 2**31
        return self.scale * torch.randn(SIZE, generator=torch.Generator().manual_seed(seed))


def every(toy: Toy, source: int, most: int, penalty: float) -> list[Hypothesis]:
    """All complete hypotheses, best first: each token's log-probability under the model, </s> forced at the limit."""
    found = []
    for n in range(most):
        for ids in itertools.product(range(6, SIZE), repeat=n):
            total, prefix = 0.0, (START,)
            for token in (*ids, END):
                total += float(toy.logits(source, prefix).log_softmax(0)[token])
                prefix = (*prefix, token)
            found.append(Hypothesis(ids, total, total / length_penalty(n + 1, penalty)))
    return sorted(found, key=lambda h: -h.score)


def plain(toy: Toy, source: int, most: int, beams: int, penalty: float) -> list[Hypothesis]:
    """The search of one source, as the module describes it, with lists."""
    live: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    done: list[Hypothesis] = []
    for n in range(1, most + 1):
        candidates = []
        for ids, total in live:
            chances = toy.logits(source, (START, *ids)).log_softmax(0)
            allowed = [END] if n == most else [t for t in range(SIZE) if t not in BANNED]
            candidates += [(total + float(chances[t]), ids, t) for t in allowed]
        candidates = sorted(candidates, key=lambda c: -c[0])[: 2 * beams]
        live = []
        for rank, (total, ids, token) in enumerate(candidates):
            if token == END and rank < beams:
                done.append(Hypothesis(ids, total, total / length_penalty(n, penalty)))
            elif token != END and len(live) < beams:
                live.append(((*ids, token), total))
        best = max((h.score for h in done), default=-math.inf)
        if len(done) >= beams or not live or best >= live[0][1] / length_penalty(most, penalty):
            break
    return sorted(done, key=lambda h: -h.score)[:beams]


def sources(n: int) -> tuple[Tensor, Tensor]:
    return torch.arange(n)[:, None], torch.ones(n, dtype=torch.int64)


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0, 2.0])
def test_a_beam_that_holds_everything_finds_the_best_of_all(penalty: float) -> None:
    """27 prefixes of three tokens fit into 40 beams, so the search is over all 40 texts of at most 4 tokens."""
    for seed in range(4):
        toy = Toy(seed)
        found = beam_search(toy, *sources(3), [4, 4, 4], beams=40, penalty=penalty, banned=BANNED)
        for source in range(3):
            best = every(toy, source, 4, penalty)[0]
            assert found[source][0].ids == best.ids
            assert found[source][0].score == pytest.approx(best.score, abs=1e-5)
            assert found[source][0].log_probability == pytest.approx(best.log_probability, abs=1e-5)


@pytest.mark.parametrize("beams", [1, 2, 3, 5])
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_batch_equals_the_plain_search_of_each_source(beams: int, penalty: float) -> None:
    """Sources end at different steps and have different limits; every hypothesis agrees, not only the best."""
    limits = [12, 3, 1, 7, 12, 12, 5]
    for seed in range(3):
        toy = Toy(seed)
        found = beam_search(toy, *sources(7), limits, beams=beams, penalty=penalty, banned=BANNED)
        for source, hypotheses in enumerate(found):
            reference = plain(toy, source, limits[source], beams, penalty)
            assert [h.ids for h in hypotheses] == [h.ids for h in reference], (seed, source)
            for ours, theirs in zip(hypotheses, reference, strict=True):
                assert ours.score == pytest.approx(theirs.score, abs=1e-4)


def test_wider_beams_find_better_hypotheses() -> None:
    toy = Toy(11)
    scores = [
        sum(h[0].score for h in beam_search(toy, *sources(20), [8] * 20, beams=b, penalty=0.0, banned=BANNED))
        for b in (1, 4, 16)
    ]
    assert scores[0] < scores[1] <= scores[2]


def test_the_penalty_favours_longer_texts() -> None:
    toy = Toy(3, scale=0.7)
    lengths = [
        sum(len(h[0].ids) for h in beam_search(toy, *sources(20), [10] * 20, beams=8, penalty=p, banned=BANNED))
        for p in (0.0, 2.0)
    ]
    assert lengths[0] < lengths[1]


def test_one_beam_is_greedy() -> None:
    for seed in range(3):
        toy, limits = Toy(seed), [9, 2, 1, 9, 9, 4]
        one = beam_search(toy, *sources(6), limits, beams=1, penalty=0.5, banned=BANNED)
        for a, b in zip(one, greedy(toy, *sources(6), limits, penalty=0.5, banned=BANNED), strict=True):
            assert a[0].ids == b.ids
            assert a[0].score == pytest.approx(b.score, abs=1e-5)


def test_sources_that_are_done_leave_the_batch() -> None:
    toy = Toy(1)
    beam_search(toy, *sources(2), [30, 1], beams=2, penalty=0.0, banned=BANNED)
    both = toy.rows
    toy.rows = toy.steps = 0
    beam_search(toy, *sources(1), [30], beams=2, penalty=0.0, banned=BANNED)
    assert both == toy.rows + 1


def test_limits_hold_and_no_banned_token_is_written() -> None:
    found = beam_search(Toy(4, scale=0.1), *sources(5), [1, 2, 3, 4, 5], beams=3, penalty=1.0, banned=BANNED)
    for limit, hypotheses in zip([1, 2, 3, 4, 5], found, strict=True):
        assert hypotheses
        assert all(len(h.ids) < limit and not set(h.ids) & {*BANNED, END} for h in hypotheses)


def repeated(ids: tuple[int, ...], size: int) -> bool:
    runs = [ids[i : i + size] for i in range(len(ids) - size + 1)]
    return len(set(runs)) < len(runs)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_tokens_in_a_row_come_twice(size: int) -> None:
    source, lengths = sources(4)
    limits = [5, 4, 5, 5]

    def matters(toy: Toy) -> bool:
        return any(repeated(every(toy, int(s), 5, 3.0)[0].ids, size) for s in source[:, 0])

    toy = next(t for t in (Toy(seed, scale=4.0) for seed in range(50)) if matters(t))
    wide = beam_search(toy, source, lengths, limits, beams=300, penalty=3.0, banned=BANNED, repeats=size)
    for row, found in enumerate(wide):
        allowed = [h for h in every(toy, int(source[row, 0]), limits[row], 3.0) if not repeated(h.ids, size)]
        assert found[0].ids == allowed[0].ids
        assert math.isclose(found[0].score, allowed[0].score, abs_tol=1e-4)
    barred = beam_search(toy, source, lengths, [8] * 4, beams=3, penalty=3.0, banned=BANNED, repeats=size)
    assert not any(repeated(h.ids, size) for found in barred for h in found)
    assert not any(repeated(h.ids, size) for h in greedy(toy, source, lengths, [8] * 4, banned=BANNED, repeats=size))


def networks() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    found = {
        "transformer": Transformer(30, 30, 2, 2, 16, 24),
        "pre-norm": Transformer(30, 30, 1, 2, 16, 24, norm_first=True, shared=False),
        "t5": T5(30, 2, 2, 16, 8, 24),
        "multiplicative": Seq2Seq(30, 30, 12, 2),
        "feeding": Seq2Seq(30, 30, 12, feed=True, cell="gru"),
        "additive": Seq2Seq(30, 30, 12, attention="additive"),
    }
    for net in found.values():
        for p in net.parameters():
            nn.init.normal_(p, std=0.5)
        net.eval()
    return found


@pytest.mark.parametrize("name", list(networks()))
@pytest.mark.parametrize("beams", [1, 3])
def test_models_search_alike_in_a_batch_alone_and_without_a_cache(name: str, beams: int) -> None:
    """Padding and neighbours change nothing, and neither do kept keys, values and states."""
    net = networks()[name]
    lengths = torch.tensor([7, 2, 5, 1])
    source = torch.randint(6, 30, (4, 7), generator=torch.Generator().manual_seed(1))
    source = source.masked_fill(torch.arange(7) >= lengths[:, None], 0)
    limits = [12, 9, 40, 12]
    together = beam_search(net, source, lengths, limits, beams=beams, penalty=0.6, banned=BANNED)  # type: ignore[arg-type]
    for row, long in enumerate(lengths.tolist()):
        one = source[row : row + 1, :long], lengths[row : row + 1], limits[row : row + 1]
        alone = beam_search(net, *one, beams=beams, penalty=0.6, banned=BANNED)  # type: ignore[arg-type]
        anew = beam_search(Anew(net), *one, beams=beams, penalty=0.6, banned=BANNED)
        for other in (alone, anew):
            assert [h.ids for h in together[row]] == [h.ids for h in other[0]]
            for a, b in zip(together[row], other[0], strict=True):
                assert a.score == pytest.approx(b.score, abs=1e-3)


@dataclass
class Whole:
    """Sources and prefixes, from which everything is computed anew at each step."""

    source: Tensor
    lengths: Tensor
    target: Tensor

    def select(self, index: Tensor) -> Whole:
        return Whole(self.source[index], self.lengths[index], self.target[index])


class Anew(nn.Module):
    """A model whose steps are whole forward passes."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def start(self, source: Tensor, source_lengths: Tensor | None = None) -> Whole:
        assert source_lengths is not None
        return Whole(source, source_lengths, source[:, :0])

    def step(self, tokens: Tensor, state: Whole) -> tuple[Tensor, Whole]:
        target = torch.cat([state.target, tokens[:, None]], 1)
        return self.net(state.source, state.lengths, target)[:, -1], Whole(state.source, state.lengths, target)


@pytest.mark.parametrize("size", [7, 40 * BLOCK, 50 * BLOCK + 3])
def test_highest_is_topk(size: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(5, size)
    x[0, -3:] += 9
    x[1, 3] = x[1, -1] = torch.inf
    x[2, 5:] = -torch.inf
    gains, ids = highest(x, 5)
    assert torch.equal(gains, x.topk(5, 1).values)
    assert torch.equal(x.gather(1, ids), gains)
    assert all(len(set(row)) == 5 for row in ids.tolist())


@pytest.mark.parametrize("parents", [[0, 0, 0], [2, 0, 2, 2, 0], [4, 3], [1, 0], [3, 1, 4, 0, 2], []])
def test_children_stand_where_their_parent_stood(parents: list[int]) -> None:
    order = _in_place(parents)
    assert sorted(order) == list(range(len(parents)))
    for place in set(parents) & set(range(len(parents))):
        assert parents[order[place]] == place
