"""Speculative decoding: a small model proposes tokens, the large one judges them all in one step.

Paper: Leviathan et al. 2023, Algorithm 1. A proposal x, drawn from the draft's distribution q, is kept with probability
min(1, p(x) / q(x)), p being the model's own; the first that is not kept is drawn again from max(p - q, 0) scaled to sum 1,
and if all are kept one more comes from p. So what comes out has the distribution p, whatever the draft; with temperature 0
it is the same text as without a draft. Filters and penalty act on both p and q before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from engram.inference.decode import LanguageModel, Token, tell
from engram.inference.sampling import Sampling, draw, probabilities, uniform

PROPOSALS = 4  # per step


@torch.inference_mode()
def speculate(
    model: LanguageModel,
    draft: LanguageModel,
    prompts: Sequence[Sequence[int]],
    how: Sampling,
    *,
    most: int,
    ends: frozenset[int],
    context: int,
    draft_context: int,
    device: torch.device,
    finished: set[int],
    alternatives: int | None = None,
    samples: Sequence[int] | None = None,
    banned: Sequence[int] = (),
    proposals: int = PROPOSALS,
) -> Iterator[Token]:
    """As `decode`, one prompt after another, with the tokens that `draft` proposes. Both caches must rewind."""
    for row, prompt in enumerate(prompts):
        if row in finished:
            continue
        prompt = prompt[-context:]
        reader = Reader(model, prompt, context, device)
        guesser = Reader(draft, prompt, draft_context, device)
        seen = list(reader.ids)
        sample, drawn = samples[row] if samples else 0, 0
        while row not in finished:
            count = min(proposals, most - drawn - 1, reader.room())
            guesses: list[int] = []
            offers: list[Tensor] = []  # q of each guess
            for number in range(count):
                q = _chances(guesser.read(1), how, seen, guesses, banned)[0]
                guesses += draw(q[None], [uniform(how.seed, sample, drawn + number, "guess")]).tolist()
                offers.append(q)
                guesser.ids.append(guesses[-1])
            reader.ids += guesses
            logits = reader.read(len(guesses) + 1)
            p = _chances(logits, how, seen, guesses, banned)
            kept, id = judge(p, offers, guesses, how.seed, sample, drawn)
            chosen = [*guesses[:kept], id]
            reader.back(len(guesses) - kept)
            guesser.back(len(guesses) - kept)
            reader.ids.append(id)
            guesser.ids.append(id)
            seen += chosen
            for at, token in enumerate(chosen):
                drawn += 1
                told = Token(row, token, last=token in ends or drawn >= most)
                if alternatives is not None:
                    tell(
                        [told],
                        _banned(logits[at : at + 1].float(), banned).softmax(1),
                        torch.tensor([token], device=device),
                        alternatives,
                    )
                if told.last:
                    finished.add(row)
                yield told
                if row in finished:
                    break


def judge(p: Tensor, q: Sequence[Tensor], guesses: Sequence[int], seed: int, sample: int, position: int) -> tuple[int, int]:
    """(how many guesses are kept, the token after them): p (n + 1, V), q n of (V,). Leviathan et al. 2023, Algorithm 1."""
    for number, guess in enumerate(guesses):
        ratio = float(p[number, guess].double() / q[number][guess].double())
        if uniform(seed, sample, position + number, "keep") >= ratio:
            rest = residual(p[number], q[number])
            return number, int(draw(rest[None], [uniform(seed, sample, position + number, "again")]))
    return len(guesses), int(draw(p[-1:], [uniform(seed, sample, position + len(guesses))]))


def residual(p: Tensor, q: Tensor) -> Tensor:
    """max(p - q, 0), not scaled; p itself where rounding leaves nothing."""
    rest = (p.double() - q.double()).clamp(min=0)
    return rest if float(rest.sum()) > 0 else p.double()


class Reader:
    """One text being read by one model: `ids` may grow and shrink at the end, `read` catches up with it.

    A text that fills the context goes on from its last half, as in `decode`.
    """

    def __init__(self, model: LanguageModel, ids: Sequence[int], context: int, device: torch.device):
        self.model, self.context, self.device = model, context, device
        self.ids = list(ids)
        self.first = max(0, len(self.ids) - context)  # where in the text the cache begins
        self.done = self.first  # up to where it was read
        self.cache: Any = model.new_cache(1, context)

    def room(self) -> int:
        """How many tokens may be added before the context is full; begins anew when it cannot hold the last."""
        if not 0 < len(self.ids) - self.first <= self.context:
            self.first = self.done = max(0, len(self.ids) - max(self.context // 2, 1))
        return self.context - (len(self.ids) - self.first)

    def read(self, last: int) -> Tensor:
        """Logits (last, V) after each of the `last` newest tokens; what came before them is read if it was not yet."""
        self.room()
        behind = len(self.ids) - self.done - last
        if behind > 0:
            self._pass(self.model.read, behind)
        return self._pass(self.model.step, len(self.ids) - self.done)[0, -last:]

    def back(self, count: int) -> None:
        """Take back the newest tokens."""
        if count:
            del self.ids[-count:]
        self.done = min(self.done, len(self.ids))

    def _pass(self, call: Any, count: int) -> Tensor:
        at = self.done - self.first
        tokens = torch.tensor([self.ids[self.done : self.done + count]], device=self.device)
        self.done += count
        return call(tokens, torch.arange(at, at + count, device=self.device)[None], self.cache)


def _banned(logits: Tensor, banned: Sequence[int]) -> Tensor:
    if len(banned):
        logits[:, list(banned)] = -torch.inf
    return logits


def _chances(logits: Tensor, how: Sampling, seen: Sequence[int], guesses: Sequence[int], banned: Sequence[int]) -> Tensor:
    """The distributions drawn from, (n, V), for the last n places of the text `seen` + `guesses`."""
    logits = _banned(logits, banned)
    marks = None
    if how.repetition != 1.0:
        marks = torch.zeros(logits.shape, dtype=torch.bool, device=logits.device)
        for number, row in enumerate(marks):
            row[torch.tensor([*seen, *guesses[: len(guesses) - (len(marks) - 1 - number)]], device=logits.device)] = True
    return probabilities(logits, how, marks)
