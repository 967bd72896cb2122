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


def test_compiling_must_save_more_than_it_costs() -> None:
    """A step is timed on GPUs only; there it depends on steps times seconds, not on steps."""

    def never() -> float:
        raise AssertionError("a step was timed")

    gpu = torch.device("cuda")
    assert machine.choose_compile("auto", 10**9, CPU, never) == (False, "")
    assert machine.choose_compile("on", 1, gpu, never)[0]
    assert not machine.choose_compile("off", 10**9, gpu, never)[0]
    assert machine.choose_compile("auto", 4_900, gpu, lambda: 2.2)[0]  # three hours
    chosen, why = machine.choose_compile("auto", 5_600, gpu, lambda: 2e-3)
    assert not chosen
    assert "save about 3 s" in why


def test_a_step_is_timed_on_a_copy() -> None:
    recipe = find("mlp")(data="iris", hidden=(4,))
    data = recipe.make_data()
    task = recipe.make_task(data.spec)
    before = {n: t.clone() for n, t in task.state_dict().items()}
    assert 0 < machine.step_seconds(task, data, CPU, "fp32") < 5
    assert all(torch.equal(t, before[n]) for n, t in task.state_dict().items())
    assert all(p.grad is None for p in task.parameters())
