"""What is chosen for a machine: bf16 only where layers are wide enough to gain."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engram.app import machine
from engram.recipes import find
from engram.tasks.classify import Classify

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("network", "chosen"),
    [
        (nn.Linear(256, 256), "bf16"), (nn.Linear(255, 999), "fp32"), (nn.Conv2d(1, 4, 3), "bf16"),
        (nn.LSTM(8, 256), "bf16"), (nn.LSTM(256, 255), "fp32"), (nn.GRU(8, 512), "fp32"), (nn.Embedding(9999, 512), "fp32"),
    ],
)  # fmt: skip
def test_bf16_where_it_gains(network: nn.Module, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "has_bf16", lambda device: True)
    recipe = find("mlp")()
    assert machine.choose_precision(recipe, Classify(network), CPU)[0] == chosen
    monkeypatch.setattr(machine, "has_bf16", lambda device: False)
    assert machine.choose_precision(recipe, Classify(network), CPU)[0] == "fp32"
