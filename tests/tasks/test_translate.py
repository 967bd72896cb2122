"""The loss of translation against its definition written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from engram.core.batch import Batch
from engram.core.errors import DataError
from engram.core.task import Ctx
from engram.models.transformer import Transformer
from engram.tasks.translate import Translate, pair_losses


def batch() -> Batch:
    return {
        "source": torch.tensor([[6, 7, 8, 3], [9, 3, 0, 0]]), "source_lengths": torch.tensor([4, 2]),
        "target": torch.tensor([[2, 6, 9, 7, 3], [2, 8, 3, 0, 0]]), "target_lengths": torch.tensor([5, 3]),
    }  # fmt: skip


def task(smoothing: float = 0.0) -> Translate:
    torch.manual_seed(0)
    return Translate(Transformer(12, 12, 1, 2, 8, 16, dropout=0.0), 12, label_smoothing=smoothing).eval()


def by_hand(net: nn.Module, rows: Batch, smoothing: float) -> Tensor:
    """Row by row without padding, token by token."""
    total, count = torch.tensor(0.0), 0
    for r in range(len(rows["source"])):
        s, t = int(rows["source_lengths"][r]), int(rows["target_lengths"][r])
        chances = net(rows["source"][r : r + 1, :s], None, rows["target"][r : r + 1, : t - 1])[0].log_softmax(-1)
        for place, token in enumerate(rows["target"][r, 1:t].tolist()):
            total = total - (1 - smoothing) * chances[place, token] - smoothing * chances[place].mean()
            count += 1
    return total / count


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_a_mean_over_target_tokens(smoothing: float) -> None:
    """Value and gradients within 1e-5 of the sum written out, so padding and <s> count for nothing."""
    made, other = task(smoothing), task(smoothing)
    loss, _ = made.loss(batch(), Ctx())
    loss.backward()
    reference = by_hand(other.model, batch(), smoothing)
    reference.backward()
    torch.testing.assert_close(loss, reference, atol=1e-5, rtol=0)
    for (name, p), q in zip(made.named_parameters(), other.parameters(), strict=True):
        assert p.grad is not None
        assert q.grad is not None
        torch.testing.assert_close(p.grad, q.grad, atol=1e-5, rtol=0, msg=lambda text, n=name: f"{n}: {text}")
    assert int(made.weight(batch())) == 6


def test_more_padding_changes_nothing() -> None:
    rows = batch()
    wide = rows | {n: torch.nn.functional.pad(rows[n], (0, 3)) for n in ("source", "target")}
    torch.testing.assert_close(task().loss(rows, Ctx())[0], task().loss(wide, Ctx())[0])


def test_evaluation_is_without_smoothing_and_over_all_tokens() -> None:
    made, rows = task(0.3), batch()
    found = made.evaluate([{n: t[:1] for n, t in rows.items()}, {n: t[1:] for n, t in rows.items()}], Ctx())
    assert found["loss"] == pytest.approx(float(by_hand(made.model, rows, 0.0)), abs=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))
    best = made(rows).argmax(2)
    right = int(((best == rows["target"][:, 1:]) & (rows["target"][:, 1:] != 0)).sum())
    assert found["accuracy"] == pytest.approx(right / 6)
    with pytest.raises(DataError, match="no pair"):
        made.evaluate([], Ctx())


def test_losses_of_padding_are_zero() -> None:
    losses = pair_losses(task()(batch()), batch()["target"][:, 1:])
    assert torch.equal(losses == 0, batch()["target"][:, 1:] == 0)
