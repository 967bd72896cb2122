"""Codes drawn with a cache against the same draws by whole forward passes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engram.models.gpt import GPT
from engram.nn.draw_codes import code_logits, draw_codes, pick, sequence

WORDS, CODES, LONGEST, PLACES = 7, 11, 4, 9
LOW = WORDS + 1


@pytest.fixture
def model() -> GPT:
    torch.manual_seed(0)
    model = GPT(LOW + CODES, LONGEST + PLACES, 2, 2, 16, norm="rms", bias=False).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.5)  # so that choices differ
    return model


def reference(model: GPT, text: Tensor, numbers: Tensor, guidance: float, without: Tensor, warmth: float) -> Tensor:
    """One whole forward pass per code, one row at a time, probabilities summed in a loop."""
    rows = []
    for words, other, us in zip(text, without, numbers.tolist(), strict=True):
        codes: list[int] = []
        for u in us:
            logits = []
            for said in (words, other):
                tokens = torch.tensor([[*said.tolist(), WORDS, *[LOW + c for c in codes]]])
                logits.append(model(tokens)[0, -1, LOW:].log_softmax(0))
            mixed = logits[1] + guidance * (logits[0] - logits[1])
            chances = (mixed / warmth).softmax(0).tolist()
            codes.append(next((i for i in range(CODES) if sum(chances[: i + 1]) > u), CODES - 1))
        rows.append(codes)
    return torch.tensor(rows)


@pytest.mark.parametrize(("guidance", "warmth"), [(1.0, 1.0), (2.5, 1.0), (1.0, 0.6), (0.0, 1.0)])
@torch.no_grad()
def test_as_whole_forward_passes(model: GPT, guidance: float, warmth: float) -> None:
    text = torch.tensor([[1, 2, 3, 0], [4, 0, 0, 0], [6, 5, 4, 3]])
    without = torch.tensor([[5, 0, 0, 0]] * 3)
    numbers = torch.rand(3, PLACES)
    found = draw_codes(model, text, numbers, LOW, CODES, guidance=guidance, without=without, temperature=warmth)
    assert found.equal(reference(model, text, numbers, guidance, without, warmth))
    assert len(found.unique()) > 3


@torch.no_grad()
def test_rows_do_not_depend_on_each_other(model: GPT) -> None:
    text, numbers = torch.randint(0, WORDS, (5, LONGEST)), torch.rand(5, PLACES)
    whole = draw_codes(model, text, numbers, LOW, CODES, guidance=2.0)
    parts = [draw_codes(model, text[i : i + 2], numbers[i : i + 2], LOW, CODES, guidance=2.0) for i in (0, 2, 4)]
    assert torch.cat(parts).equal(whole)


@torch.no_grad()
def test_greedy_and_top_1_are_the_most_probable(model: GPT) -> None:
    text, numbers = torch.randint(0, WORDS, (4, LONGEST)), torch.rand(4, PLACES)
    greedy = draw_codes(model, text, numbers, LOW, CODES, temperature=0)
    assert greedy.equal(draw_codes(model, text, numbers, LOW, CODES, top_k=1))
    hidden = model.hidden(sequence(text, greedy, LOW))[:, LONGEST:]
    assert code_logits(model, hidden, LOW, CODES).argmax(-1).equal(greedy)


@pytest.mark.parametrize("kept", [0, 3, PLACES])
@torch.no_grad()
def test_given_codes_are_kept_and_continued(model: GPT, kept: int) -> None:
    text, numbers = torch.randint(0, WORDS, (2, LONGEST)), torch.rand(2, PLACES)
    whole = draw_codes(model, text, numbers, LOW, CODES)
    assert draw_codes(model, text, numbers, LOW, CODES, given=whole[:, :kept]).equal(whole)
    other = (whole[:, :kept] + 1) % CODES
    assert draw_codes(model, text, numbers, LOW, CODES, given=other)[:, :kept].equal(other)


def test_pick_has_the_right_frequencies() -> None:
    logits = torch.tensor([[0.0, 1.0, -torch.inf, 2.0]])
    numbers = (torch.arange(4000) + 0.5) / 4000
    found = torch.bincount(pick(logits.expand(4000, -1), numbers), minlength=4) / 4000
    torch.testing.assert_close(found, logits[0].softmax(0), atol=5e-4, rtol=0)
    two = torch.bincount(pick(logits.expand(4000, -1), numbers, top_k=2), minlength=4)
    assert two[0] == 0
    assert int(pick(logits, torch.tensor([1 - 1e-9]))) == 3


def test_sequence() -> None:
    found = sequence(torch.tensor([[3, 0]]), torch.tensor([[0, 5, 9]]), 8)
    assert found.tolist() == [[3, 0, 7, 8, 13]]
