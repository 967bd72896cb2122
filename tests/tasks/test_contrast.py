"""Contrast against formulas written out, over several processes' rows too; ranks and figures of search."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from engram.core.mesh import Mesh
from engram.core.task import Ctx
from engram.data.sentence_pairs import EmbedSpec, halves, sentence_pairs
from engram.data.vocabulary import Vocabulary
from engram.inference.embed import Embedder, ranks_of
from engram.models.bert import BERT, EmbedModel
from engram.tasks.contrast import Contrast, names_of, nce


def batch(rows: int = 5) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(0)
    found = {}
    for name, width in (("source", 6), ("target", 9)):
        lengths = torch.randint(2, width + 1, (rows,), generator=draw)
        tokens = torch.randint(9, 40, (rows, width), generator=draw)
        found |= {name: tokens * (torch.arange(width) < lengths[:, None]), f"{name}_lengths": lengths}
    return found


def model() -> EmbedModel:
    torch.manual_seed(0)
    return EmbedModel(BERT(40, 12, 1, 2, 16, dropout=0.0)).eval()


def by_hand(sources: Tensor, targets: Tensor, temperature: float) -> Tensor:
    total = torch.zeros(())
    n = len(sources)
    for i in range(n):
        for a, b in ((sources, targets), (targets, sources)):
            scores = torch.stack([torch.cosine_similarity(a[i], b[j], 0) for j in range(n)]) / temperature
            total = total - (scores[i] - scores.exp().sum().log())
    return total / (2 * n)


def test_loss_is_the_formula_and_so_are_its_gradients() -> None:
    given, net = batch(), model()
    task = Contrast(net, temperature=0.1, batch=5)
    loss, _ = task.loss(given, Ctx())
    grads = torch.autograd.grad(loss, list(net.parameters()), allow_unused=True)
    expected = by_hand(*task(given), 0.1)
    reference = torch.autograd.grad(expected, list(net.parameters()), allow_unused=True)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    for a, b in zip(grads, reference, strict=True):
        if b is not None:
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_the_same_target_is_no_negative() -> None:
    vectors = torch.nn.functional.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    found = vectors[[0, 0, 2, 3]]
    own = torch.arange(4)
    with_twins = nce(vectors, found, own, torch.tensor([7, 7, 1, 2]), 0.2)
    left = [nce(vectors[[i]], found[keep], torch.tensor([keep.index(i)]), torch.arange(3), 0.2) for i, keep in
            ((0, [0, 2, 3]), (1, [1, 2, 3]))]  # fmt: skip
    rest = [nce(vectors[[i]], found, torch.tensor([i]), torch.arange(4), 0.2) for i in (2, 3)]
    torch.testing.assert_close(with_twins, torch.stack([*left, *rest]).mean())


def test_names_are_those_of_the_tokens_whatever_the_padding() -> None:
    rows = torch.tensor([[5, 6, 0], [6, 5, 0], [5, 6, 7], [5, 0, 0]])
    names = names_of(rows)
    assert len(set(names.tolist())) == 4
    assert torch.equal(names, names_of(torch.cat([rows, torch.zeros(4, 3, dtype=torch.int64)], 1)))


class Two(Mesh):
    """The first or second of two processes that see each other's tensors, of which all are known."""

    world = 2

    def __init__(self, rank: int, whole: dict[str, Tensor], cut: int, net: nn.Module):
        self.rank, self.cut = rank, cut
        self.known = [whole["source_lengths"], *(net(whole[n], whole[f"{n}_lengths"]).detach() for n in ("source", "target"))]
        self.known += [names_of(whole[n]) for n in ("source", "target")]

    def gather(self, value: Tensor) -> Tensor:
        mine = slice(0, self.cut) if self.rank == 0 else slice(self.cut, None)
        for known in self.known:
            if (
                known[mine].shape == value.shape
                and known.dtype == value.dtype
                and torch.allclose(known[mine], value, atol=1e-5)
            ):
                return known
        ranks = torch.zeros_like(self.known[0])
        ranks[self.cut :] = 1
        assert torch.equal(ranks[mine], value)
        return ranks


def test_parts_of_unequal_size_on_two_processes_are_the_whole() -> None:
    given, net = batch(), model()
    task = Contrast(net, temperature=0.1, batch=5)
    with torch.no_grad():
        whole, _ = task.loss(given, Ctx())
        parts = []
        for rank, mine in ((0, slice(0, 2)), (1, slice(2, None))):
            ctx = Ctx(mesh=Two(rank, given, 2, net))
            part = {n: t[mine] for n, t in given.items()}
            parts.append(task.loss(part, ctx)[0] * len(part["source"]))
    torch.testing.assert_close(sum(parts) / 5, whole, rtol=1e-5, atol=1e-5)
    assert task.chance_loss() == pytest.approx(math.log(5))
    assert not task.phases()[0].splits


def test_ranks_count_ties_against_the_network() -> None:
    targets = torch.eye(4)
    sources = torch.stack([targets[0], targets[2] * 0.8 + targets[1] * 0.6, torch.ones(4) / 2])
    ranks, best = ranks_of(sources, targets, torch.tensor([0, 1, 3]))
    assert ranks.tolist() == [1, 2, 4]
    assert best.tolist()[:2] == [0, 2]


def test_embeddings_are_unit_vectors_that_neighbours_do_not_change() -> None:
    vocabulary = Vocabulary.train("word", [" ".join(f"w{n}" for n in range(30))], 40)
    spec = EmbedSpec(vocab=vocabulary.to_json(), context=12)
    embedder = Embedder(model(), spec)
    texts = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9 w10 w11", "w1 w2 w4"]
    together = embedder.embed(texts)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(4))
    for text, vector in zip(texts, together, strict=True):
        torch.testing.assert_close(embedder.embed([text])[0], vector, rtol=1e-4, atol=1e-5)
    long = embedder.embed(["w1 " * 40])[0]
    torch.testing.assert_close(long, embedder.embed(["w1 " * 11])[0])  # cut at the context


def test_passages_of_plain_text_ask_for_their_second_half() -> None:
    text = [f"The number {n} comes first here. Then follows the word number {n + 1} of them." for n in range(40)]
    for views, same in (("same", True), ("halves", False)):
        data = sentence_pairs(text, batch=4, context=20, views=views, vocab="word")
        train, val = data.raw("train", [0])[0], data.raw("val", [0])[0]
        assert (train["source"] == train["target"]) is same
        assert val["source"].endswith("here.")
        assert val["target"].startswith("Then")
    assert halves("one two three four") == ("one two", "three four")


def test_scores_with_shared_targets() -> None:
    rows = [{"source": f"w{n}", "target": f"w{n // 2 + 10}"} for n in range(8)]
    vocabulary = Vocabulary.train("word", [" ".join(f"w{n}" for n in range(30))], 40)
    spec = EmbedSpec(vocab=vocabulary.to_json(), context=12)
    embedder = Embedder(model(), spec)
    scores = embedder.scores(spec.labelled(rows), [rows])
    assert scores is not None
    sources, targets = embedder.embed([r["source"] for r in rows]), embedder.embed([f"w{n + 10}" for n in range(4)])
    expected = [1 + sum(bool(s @ t > s @ targets[n // 2]) for t in targets) for n, s in enumerate(sources)]
    total = scores.parts.sum(0, keepdim=True)
    assert float(scores.figures["mrr"].statistic(total)[0]) == pytest.approx(sum(1 / r for r in expected) / 8, rel=1e-5)
    assert float(scores.figures["recall@1"].statistic(total)[0]) == pytest.approx(sum(r == 1 for r in expected) / 8)
