"""The decoding loop: the cache changes nothing, a batch changes nothing, whatever leaves, joins or overflows."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from engram.inference.decode import decode
from engram.inference.sampling import Sampling
from tests.inference.language_toys import BANNED, CPU, ENDS, gpt, lstm, write

PROMPTS = [[2, 10, 11, 12], [2], [2, 30, 31, 9, 9, 14, 20, 21], [2, *range(9, 39)], [2, 17, 18], [2, 33]]
HOWS = {
    "greedy": Sampling(temperature=0),
    "sampled": Sampling(temperature=0.9, seed=3),
    "filtered": Sampling(temperature=1.3, top_k=20, top_p=0.9, min_p=0.01, repetition=1.3, seed=5),
    "greedy, penalty": Sampling(temperature=0, repetition=1.5),
}
MODELS: dict[str, Any] = {
    "rotary": lambda: (gpt(), 16),
    "learned": lambda: (gpt(1, positions="learned", norm="layer"), 16),
    "window": lambda: (gpt(2, window=5, kv_heads=1), 16),
    "recurrent": lambda: (lstm(), 0),
}


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("kind", MODELS)
def test_batched_equals_alone(kind: str, how: str) -> None:
    """Six prompts of 1 to 31 tokens in batches of any size, some of them past the context, one token limit each."""
    model, context = MODELS[kind]()
    limits = [24, 15, 7, 18, 1, 12]
    for ends in (frozenset[int](), ENDS):
        knobs: dict[str, Any] = {"context": context, "ends": ends, "banned": BANNED if ends else (*BANNED, *ENDS)}
        alone = [write(model, [p], HOWS[how], most=n, **knobs)[0] for p, n in zip(PROMPTS, limits, strict=True)]
        assert ends or len({tuple(a) for a in alone}) > 3
        assert ends or list(map(len, alone)) == limits
        for rows in (2, 32):
            assert write(model, PROMPTS, HOWS[how], most=limits, rows=rows, **knobs) == alone, rows


@pytest.mark.parametrize("kind", MODELS)
def test_equals_reading_the_whole_text_anew(kind: str) -> None:
    """No cache at all: the text so far, or since the context was full its last half and what followed."""
    model, context = MODELS[kind]()
    for prompt in PROMPTS[:4]:
        got = write(model, [prompt], HOWS["greedy"], most=30, context=context)[0]
        ids = prompt[-context:] if context else list(prompt)
        for drawn, id in enumerate(got):
            if context and len(ids) > context:
                ids = ids[-(context // 2) :]
            with torch.no_grad():
                logits = model(torch.tensor([ids]))[0, -1]
            logits[list(BANNED)] = -torch.inf
            assert int(logits.argmax()) == id, drawn
            ids = [*ids, id]


def test_samples_differ_and_can_be_had_alone() -> None:
    model, prompt = gpt(), PROMPTS[0]
    three = write(model, [prompt] * 3, HOWS["sampled"], samples=[0, 1, 2])
    assert len({tuple(t) for t in three}) == 3
    assert write(model, [prompt], HOWS["sampled"], samples=[2])[0] == three[2]
    assert write(model, [prompt], HOWS["sampled"])[0] == three[0]
    assert write(model, [prompt], Sampling(temperature=0.9, seed=4))[0] != three[0]


def test_ends_and_finished_rows_stop() -> None:
    """An end token is given and is the last; a row that the caller finishes gives nothing more, and others go on unchanged."""
    model = gpt()
    free = write(model, PROMPTS[:3], HOWS["greedy"], ends=frozenset())
    end = free[0][4]
    stopped = write(model, PROMPTS[:3], HOWS["greedy"], ends=frozenset((end,)))
    for row in range(3):
        cut = free[row].index(end) + 1 if end in free[row] else len(free[row])
        assert stopped[row] == free[row][:cut]
    finished: set[int] = {1}
    got: list[list[int]] = [[], [], []]
    for token in decode(
        model, PROMPTS[:3], HOWS["greedy"], most=30, ends=frozenset(), context=16, device=CPU, finished=finished, banned=BANNED
    ):
        got[token.row].append(token.id)
        if len(got[0]) == 5:
            finished.add(0)
    assert got[0] == free[0][:5]
    assert got[1] == []
    assert got[2] == free[2]


def test_banned_tokens_never_come_and_probabilities_are_the_models() -> None:
    model, prompt = gpt(), PROMPTS[0]
    tokens = list(
        decode(
            model, [prompt], HOWS["sampled"], most=8, ends=frozenset(), context=16, device=CPU, finished=set(),
            alternatives=5, banned=(9, 10),
        )
    )  # fmt: skip
    ids = list(prompt)
    for token in tokens:
        with torch.no_grad():
            logits = model(torch.tensor([ids]))[0, -1]
        logits[[9, 10]] = -torch.inf
        chances = logits.softmax(0)
        assert token.id not in (9, 10)
        assert token.probability == pytest.approx(float(chances[token.id]), abs=1e-5)
        assert [i for i, _ in token.alternatives] == chances.topk(5).indices.tolist()
        assert [p for _, p in token.alternatives] == pytest.approx(chances.topk(5).values.tolist(), abs=1e-5)
        ids.append(token.id)


def test_memory_of_the_cache_is_fixed() -> None:
    """Decoding past the context takes no more slots than the context; a short request no more than it can need."""
    sizes: list[tuple[int, int]] = []
    model = gpt()
    plain = model.new_cache

    def counted(rows: int, capacity: int = 0, dtype: Any = None) -> Any:
        sizes.append((rows, capacity))
        return plain(rows, capacity, dtype)

    model.new_cache = counted  # type: ignore[method-assign]
    write(model, PROMPTS, HOWS["greedy"], most=60, rows=4)
    assert max(c for _, c in sizes) <= 16
    assert max(r for r, _ in sizes) <= 4
    sizes.clear()
    write(model, [PROMPTS[0]], HOWS["greedy"], most=5)
    assert sizes == [(1, 9)]
