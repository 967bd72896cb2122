"""Many rows are answered in pieces, on all cores, in order, and as they would be alone."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engram.inference.outputs import LEAST, NUMBERS, VECTOR, Runner, rows_at_a_time


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


class Seen(nn.Module):
    """A layer that notes how many rows it was given, where, and with how many threads for one operation."""

    def __init__(self, width: int = 5):
        super().__init__()
        self.layer = nn.Linear(width, 3)
        self.calls: list[tuple[int, int, int]] = []

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        self.calls.append((len(x), threading.get_ident(), torch.get_num_threads()))
        assert not torch.is_grad_enabled()
        for other in others:
            x = x * other[:, None]
        return self.layer(x)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engram.inference.outputs.NUMBERS", 5 * 40)  # 40 rows of 5 numbers


def test_pieces_are_in_order_and_equal_to_the_whole(threads: int):
    model = Seen().eval()
    x = torch.randn(333, 5)
    expected = model.layer(x).detach()
    torch.testing.assert_close(Runner(model, ("x",))({"x": x}), expected)
    assert sorted(rows for rows, *_ in model.calls) == [13] + [40] * 8
    assert {inside for *_, inside in model.calls} == {1}
    assert len({thread for _, thread, _ in model.calls} - {threading.get_ident()}) <= (threads if threads > 1 else 0)
    assert torch.get_num_threads() == threads
    found: list[int] = []
    new = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    new.start()
    new.join()
    assert found == [threads], "a thread of somebody else begins with as many as before"


def test_few_rows_stay_together(threads: int):
    model = Seen().eval()
    Runner(model, ("x",))({"x": torch.randn(40 * threads, 5)})
    assert model.calls == [(40 * threads, threading.get_ident(), threads)]


def test_all_inputs_are_cut_alike(threads: int):
    model = Seen().eval()
    batch = {"x": torch.randn(100, 5), "a": torch.randn(100), "b": torch.randint(3, (100,))}
    monkey = rows_at_a_time([*batch.values()])
    assert monkey == LEAST  # 5 numbers, 1 more, and a token
    expected = model.layer(batch["x"] * batch["a"][:, None] * batch["b"][:, None]).detach()
    torch.testing.assert_close(Runner(model, ("x", "a", "b"))(batch), expected)
    assert sorted(rows for rows, *_ in model.calls) == [4] + [16] * 6


def test_an_error_in_a_piece_is_raised(threads: int):
    class Fails(Seen):
        def forward(self, x: Tensor, *others: Tensor) -> Tensor:
            if len(x) < 40:
                raise ValueError("the last piece")
            return super().forward(x)

    with pytest.raises(ValueError, match="the last piece"):
        Runner(Fails().eval(), ("x",))({"x": torch.randn(333, 5)})
    assert torch.get_num_threads() == threads


def _in_child(send: Any) -> None:
    send.send(float(Runner(nn.Linear(5, 3).eval(), ("x",))({"x": torch.ones(100, 5)}).isfinite().all()))


def test_a_forked_process_has_threads_of_its_own():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        Runner(nn.Linear(5, 3).eval(), ("x",))({"x": torch.ones(100, 5)})
        receive, send = multiprocessing.Pipe(duplex=False)
        child = multiprocessing.get_context("fork").Process(target=_in_child, args=(send,))
        child.start()
        assert receive.poll(30), "the child waits for threads that it does not have"
        assert receive.recv() == 1
        child.join()
    finally:
        torch.set_num_threads(before)


def test_a_piece_is_as_large_as_its_numbers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    assert rows_at_a_time([torch.zeros(9, 1, 28, 28)]) == 128
    assert rows_at_a_time([torch.zeros(9, 3, 224, 224)]) == LEAST
    assert rows_at_a_time([torch.zeros(9, 10)]) == NUMBERS // 10
    assert rows_at_a_time([torch.zeros(9, 32, dtype=torch.long), torch.zeros(9)]) == NUMBERS // (32 * VECTOR + 1)
