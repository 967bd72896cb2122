"""GloVe: the counts against plain loops, the loss and its gradient against Eq. 8 written out."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch

from engram.core.errors import DataError
from engram.core.task import Ctx
from engram.data.cooccurrence import Counts, count_pairs
from engram.data.word_corpus import read_corpus
from engram.models.glove import GloVe
from engram.recipes.glove import Glove
from engram.tasks.cooccurrence import FitCounts


@pytest.mark.parametrize("piece", [1 << 20, 13])
def test_counts_equal_plain_loops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    draw = np.random.default_rng(0)
    lines = [" ".join(f"w{n}" for n in draw.integers(0, 8, draw.integers(1, 9))) for _ in range(30)]
    (tmp_path / "t.txt").write_text("\n".join(lines), "utf-8")
    corpus = read_corpus(tmp_path / "t.txt", min_count=1)
    expected: dict[tuple[int, int], float] = defaultdict(float)
    for line in lines:
        words = [corpus.spec.index[w] for w in line.split()]
        for i, a in enumerate(words):
            for j, b in enumerate(words):
                if 0 < abs(i - j) <= 3:
                    expected[a, b] += 1 / abs(i - j)
    monkeypatch.setattr("engram.data.cooccurrence.PIECE", piece)
    rows, columns, counts = count_pairs(corpus, 3)
    found = dict(zip(zip(rows.tolist(), columns.tolist(), strict=True), counts.tolist(), strict=True))
    assert found == pytest.approx(expected, rel=1e-6)


def test_loss_and_gradient_are_those_of_the_paper() -> None:
    torch.manual_seed(0)
    task = FitCounts(GloVe(6, 4).double(), most=10.0, power=0.75)
    for p in task.parameters():
        torch.nn.init.normal_(p)
    pairs = torch.tensor([[0, 1], [1, 0], [5, 5], [2, 3]])
    count = torch.tensor([0.5, 3.0, 10.0, 400.0], dtype=torch.float64)
    loss, _ = task.loss({"words": pairs, "count": count}, Ctx())
    loss.backward()
    net = task.model
    assert isinstance(net, GloVe)
    total = torch.zeros((), dtype=torch.float64)
    gradient = torch.zeros_like(net.words.weight)
    for (i, j), x in zip(pairs.tolist(), count.tolist(), strict=True):
        w, c = net.words.weight[i].detach(), net.company.weight[j].detach()
        error = w @ c + net.words_bias.weight[i, 0].detach() + net.company_bias.weight[j, 0].detach() - np.log(x)
        weight = min(x / 10.0, 1.0) ** 0.75
        total += weight * error**2 / 4
        gradient[i] += 2 * weight * error * c / 4
    torch.testing.assert_close(loss.detach(), total, rtol=1e-12, atol=0)
    torch.testing.assert_close(net.words.weight.grad, gradient, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(net.vectors(), net.words.weight.detach() + net.company.weight.detach())


def test_every_pair_comes_once_an_epoch_and_splits_share_none(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("a b c d e f g h\n" * 3, "utf-8")
    data = Counts(read_corpus(tmp_path / "t.txt", min_count=1), batch=10, window=4, holdout=0.25, seed=0)
    seen = [
        tuple(p) for _, b in zip(range(data.steps_per_epoch), data.batches("train"), strict=False) for p in b["words"].tolist()
    ]
    held = [tuple(p) for b in data.batches("val") for p in b["words"].tolist()]
    assert len(seen) == len(set(seen)) == data.size("train")
    assert len(seen) + len(held) == len(data.counts)
    assert not set(seen) & set(held)


def test_a_text_without_pairs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("a\nb\na\nb\n", "utf-8")
    with pytest.raises(DataError, match="stand in one line"):
        Counts(read_corpus(tmp_path / "t.txt", min_count=1), batch=4, window=2, holdout=0.0, seed=0)


def test_by_default_every_pair_is_learned_and_the_last_vectors_are_kept(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("a b c d e f g h\n" * 9, "utf-8")
    data = Glove(data=str(tmp_path / "t.txt")).make_data()
    assert (data.size("train"), data.size("val")) == (56, 0)
