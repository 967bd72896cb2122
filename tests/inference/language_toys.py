"""Small language models and a writer around them, shared by the tests of decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from engram.data.language_spec import LanguageSpec
from engram.data.vocabulary import END, START, Vocabulary
from engram.inference.decode import Token, decode
from engram.inference.generate import Generator
from engram.inference.sampling import Sampling
from engram.models.gpt import GPT
from engram.models.recurrent import RecurrentLM

VOCABULARY = Vocabulary.train("char", ["abcdefghijklmnopqrstuvwxyz .,!\n"])
CPU = torch.device("cpu")
ENDS = frozenset((START, END))
BANNED = tuple(i for i in range(len(VOCABULARY.specials)) if i not in ENDS)


def gpt(seed: int = 0, context: int = 16, **knobs: Any) -> GPT:
    """A network whose weights are large enough that it prefers some tokens."""
    torch.manual_seed(seed)
    given: dict[str, Any] = {"positions": "rotary", "norm": "rms"} | knobs
    net = GPT(VOCABULARY.size, context, 2, 2, 16, **given).eval()
    for p in net.parameters():
        if p.dim() > 1:
            torch.nn.init.normal_(p, std=0.4)
    return net


def lstm(seed: int = 0) -> RecurrentLM:
    """The same of the recurrent kind."""
    torch.manual_seed(seed)
    net = RecurrentLM(VOCABULARY.size, 24, 2).eval()
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return net


def writer(model: Any, context: int = 16, limited: bool = True) -> Generator:
    """A Generator of a model."""
    spec = LanguageSpec(vocab=VOCABULARY.to_json(), context=context)
    return Generator(model, spec, ends=(START, END), special=len(VOCABULARY.specials), limited=limited)


def write(model: Any, prompts: Sequence[Sequence[int]], how: Sampling, **knobs: Any) -> list[list[int]]:
    """The tokens that `decode` gives to each prompt."""
    given: dict[str, Any] = {
        "most": 30, "ends": ENDS, "context": 16, "device": CPU, "finished": set(), "banned": BANNED,
    } | knobs  # fmt: skip
    return gather(decode(model, prompts, how, **given), len(prompts))


def gather(tokens: Any, rows: int) -> list[list[int]]:
    """Ids row by row; nothing follows the token that says it is the last."""
    found: list[list[int]] = [[] for _ in range(rows)]
    ended: set[int] = set()
    for token in tokens:
        assert isinstance(token, Token)
        assert token.row not in ended
        found[token.row].append(token.id)
        if token.last:
            ended.add(token.row)
    assert ended == {row for row in range(rows) if found[row]}
    return found
