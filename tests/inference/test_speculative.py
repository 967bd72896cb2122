"""Speculative decoding: the distribution of what comes out is the model's own, proved by enumeration and seen in samples."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import engram.inference.speculative as speculative
from engram.core.errors import ConfigError
from engram.data.language_spec import LanguageSpec
from engram.data.vocabulary import Vocabulary
from engram.inference.generate import Generator
from engram.inference.sampling import Sampling
from engram.inference.speculative import judge, residual, speculate
from engram.models.gpt import GPT
from tests.inference.language_toys import BANNED, CPU, ENDS, gather, gpt, lstm, write, writer

PROMPTS = [[2, 10, 11, 12], [2], [2, *range(9, 39)]]


def guess(draft: Any, how: Sampling, model: Any = None, **knobs: Any) -> list[list[int]]:
    given: dict[str, Any] = {
        "most": 30, "ends": ENDS, "context": 16, "draft_context": 16, "device": CPU, "finished": set(), "banned": BANNED,
    } | knobs  # fmt: skip
    return gather(speculate(model or gpt(), draft, PROMPTS, how, **given), len(PROMPTS))


@pytest.mark.parametrize("how", [Sampling(temperature=0), Sampling(temperature=0, repetition=1.4)])
@pytest.mark.parametrize("proposals", [1, 4])
def test_greedy_is_exactly_plain_greedy(how: Sampling, proposals: int) -> None:
    """Whatever the draft, also past the context, with a draft of a shorter context, and with token limits that cut a step."""
    for most in (2, 22):
        plain = write(gpt(), PROMPTS, how, most=most, ends=frozenset())
        for draft, context in ((gpt(), 16), (gpt(7), 16), (gpt(7, context=5), 5)):
            got = guess(draft, how, most=most, ends=frozenset(), proposals=proposals, draft_context=context)
            assert got == plain, (most, context)


def test_a_good_draft_saves_steps() -> None:
    """The model itself as draft: every proposal is kept, so 4 + 1 tokens come of a step."""
    model, steps = gpt(context=64), []
    plain = model.step
    model.step = lambda *a: (steps.append(1), plain(*a))[1]  # type: ignore[method-assign]
    list(
        speculate(
            model, gpt(context=64), [[2, 10]], Sampling(temperature=0), most=25, ends=frozenset(), context=64,
            draft_context=64, device=CPU, finished=set(), banned=BANNED, proposals=4,
        )
    )  # fmt: skip
    assert len(steps) == 5


def scripted(decisions: Iterator[float]) -> Any:
    """In place of `uniform`: the next of some decisions whether a proposal is kept."""
    return lambda seed, sample, at, what="token": next(decisions) if what == "keep" else 0.5


def noting(seen: list[torch.Tensor]) -> Any:
    """In place of `draw`: notes the distribution that would be drawn from."""

    def draw(chances: torch.Tensor, numbers: Any) -> torch.Tensor:
        seen.append(chances[0] / chances[0].sum())
        return torch.tensor([0])

    return draw


def test_one_step_has_the_models_distribution_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enumeration over a vocabulary of four, two proposals: the sum over guesses and keep decisions is p, to rounding.

    Deciding is replaced by following each branch once with its probability, so nothing is left to chance.
    """
    torch.manual_seed(0)
    p0, q0 = torch.randn(2, 4).double().softmax(1)
    p1, q1 = torch.randn(2, 4, 4).double().softmax(2)  # after each first token
    p2 = torch.randn(4, 4, 4).double().softmax(2)
    total = torch.zeros(4, 4).double()  # of the first two tokens that come out
    for a, b in itertools.product(range(4), range(4)):
        weight = q0[a] * q1[a, b]
        p = torch.stack([p0, p1[a], p2[a, b]])
        for kept in range(3):
            decisions, seen = iter([0.0] * kept + [1 - 1e-12] * 3), list[torch.Tensor]()
            monkeypatch.setattr(speculative, "uniform", scripted(decisions))
            monkeypatch.setattr(speculative, "draw", noting(seen))
            ratios = [float(min(1, p0[a] / q0[a])), float(min(1, p1[a, b] / q1[a, b]))]
            chance = weight
            for n in range(kept):
                chance = chance * ratios[n]
            if kept < 2:
                chance = chance * (1 - ratios[kept])
                if ratios[kept] >= 1:
                    continue
            found, _ = judge(p, [q0, q1[a]], [a, b], 0, 0, 0)
            assert found == kept
            if kept == 0:
                total += chance * seen[0][:, None] * p1  # the second token is drawn later, from the model itself
            elif kept == 1:
                total[a] += chance * seen[0]
            else:
                torch.testing.assert_close(seen[0], p2[a, b])
                total[a, b] += chance
    torch.testing.assert_close(total, p0[:, None] * p1, atol=1e-9, rtol=0)


def test_sampled_texts_have_the_models_distribution() -> None:
    """1000 samples of two tokens, with and without a draft that thinks otherwise: the same frequencies within chance."""
    torch.manual_seed(0)
    model, draft = GPT(12, 8, 1, 1, 8).eval(), GPT(12, 8, 1, 1, 8).eval()
    for net in (model, draft):
        for weight in net.parameters():
            torch.nn.init.normal_(weight, std=0.7)
    n, how = 1000, Sampling(temperature=1.1, top_k=4)
    knobs: dict[str, Any] = {
        "most": 2, "ends": frozenset(), "context": 8, "device": CPU, "samples": range(n), "banned": BANNED[:7],
    }  # fmt: skip
    plain = write(model, [[2, 10]] * n, how, rows=1000, **knobs)
    chosen = gather(speculate(model, draft, [[2, 10]] * n, how, draft_context=8, finished=set(), proposals=1, **knobs), n)
    texts = sorted({tuple(t) for t in plain + chosen})
    assert len(texts) > 10
    counts = torch.tensor([[sum(tuple(t) == text for t in some) for text in texts] for some in (plain, chosen)]).double()
    counts = counts[:, counts.sum(0) >= 10]
    chi = ((counts[0] - counts[1]).square() / counts.sum(0)).sum()
    freedom = counts.shape[1] - 1
    assert float(chi) < freedom + 3.5 * (2 * freedom) ** 0.5


def test_residual_keeps_a_distribution_when_rounding_leaves_nothing() -> None:
    p = torch.tensor([0.5, 0.5])
    assert torch.equal(residual(p, p), p.double())
    assert torch.equal(residual(p, torch.tensor([1.0, 0.0])), torch.tensor([0.0, 0.5]).double())


def test_drafts_that_do_not_fit() -> None:
    other = Generator(
        gpt(), LanguageSpec(vocab=Vocabulary.train("char", ["abc"]).to_json(), context=16), ends=(2, 3), special=9
    )
    with pytest.raises(ConfigError, match="another vocabulary"):
        writer(gpt())(input="abc", draft=other)
    with pytest.raises(ConfigError, match="needs two Transformer runs"):
        writer(gpt())(input="abc", draft=writer(lstm(), limited=False))


def test_writer_with_a_draft() -> None:
    knobs: dict[str, Any] = {"tokens": 20, "temperature": 0.0, "stop": "q"}
    prompts = ["abc", "hello, wor"]
    assert writer(gpt())(input=prompts, draft=writer(gpt(7)), **knobs) == writer(gpt())(input=prompts, **knobs)
    pieces = list(writer(gpt()).stream("abc", tokens=9, draft=writer(gpt(7)), probs=2))
    assert all(len(p.token["alternatives"]) == 2 and 0 < p.token["probability"] <= 1 for p in pieces)
