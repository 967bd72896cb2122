"""Next-token loss: the mean over trained targets, whatever the micro-batches; perplexity as defined."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from engram.core.errors import DataError
from engram.core.task import Ctx
from engram.tasks.next_token import NextToken, token_losses


class Table(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(11, 11)

    def forward(self, tokens, documents=None):
        return self.table(tokens)


def batch(rows: int = 6):
    g = torch.Generator().manual_seed(0)
    targets = torch.randint(0, 11, (rows, 5), generator=g)
    targets[torch.rand(rows, 5, generator=g) < 0.4] = -100
    return {"tokens": torch.randint(0, 11, (rows, 5), generator=g), "targets": targets}


def test_micro_batches_weighted_by_targets_equal_the_whole() -> None:
    torch.manual_seed(0)
    task, whole = NextToken(Table(), 11, penalty=0.1), batch()
    parts = [{k: v[:1] for k, v in whole.items()}, {k: v[1:] for k, v in whole.items()}]
    mean = sum(task.loss(p, Ctx())[0] * task.weight(p) for p in parts) / task.weight(whole)
    torch.testing.assert_close(mean, task.loss(whole, Ctx())[0])
    assert task.weight(parts[0]) != task.weight(parts[1])


def test_loss_and_perplexity_are_those_of_the_definition() -> None:
    torch.manual_seed(0)
    task, whole = NextToken(Table(), 11), batch()
    logits, targets = task(whole), whole["targets"]
    kept = targets != -100
    by_hand = -logits.log_softmax(-1)[kept].gather(1, targets[kept][:, None]).mean()
    torch.testing.assert_close(task.loss(whole, Ctx())[0], by_hand)
    with torch.no_grad():
        found = task.evaluate([{k: v[:2] for k, v in whole.items()}, {k: v[2:] for k, v in whole.items()}], Ctx())
    assert math.isclose(found["perplexity"], math.exp(by_hand), rel_tol=1e-5)
    assert math.isclose(found["accuracy"], float((logits.argmax(-1)[kept] == targets[kept]).float().mean()), rel_tol=1e-6)
    torch.testing.assert_close(token_losses(logits, targets).sum() / kept.sum(), by_hand)


def test_a_batch_without_targets_is_zero_and_a_split_without_is_refused() -> None:
    task, none = NextToken(Table(), 11), batch()
    none["targets"].fill_(-100)
    assert task.loss(none, Ctx())[0] == 0
    with pytest.raises(DataError, match="no token"):
        task.evaluate([none], Ctx())
