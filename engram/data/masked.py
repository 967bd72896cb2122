"""Running text with hidden tokens: what a masked language model is trained on, and the prompts with gaps that it fills.

Devlin et al. 2019, section 3.1: 15 % of the tokens are chosen; of these 80 % become <mask>, 10 % another token drawn at random
and 10 % stay. Differs: which tokens are chosen is drawn anew for every batch (Liu et al. 2019, section 4.1), rows are whole
windows of running text, and nothing is told about the next sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engram.core.batch import Batch, fold
from engram.core.data import Data
from engram.core.errors import DataError
from engram.core.spec import Spec
from engram.data.language_spec import LanguageSpec, pad_rows
from engram.data.order import share
from engram.data.pretrained import Pretrained
from engram.data.text_input import text_records
from engram.data.tokens import TokenData
from engram.data.vocabulary import MASK, START, Vocabulary

KEYS = ("text", "prompt", "input")
GAP = re.compile(r"\[MASK\]|<mask>", re.IGNORECASE)
IGNORE = -100  # a target that is not trained


@dataclass(frozen=True, kw_only=True)
class MaskedSpec(Pretrained, Spec):
    """`vocab` is `Vocabulary.to_json()`, `context` the longest sequence, `share` the part of the tokens that is hidden.

    Batches of training: "tokens" (B, T) int64 with hidden ones, "targets" (B, T) int64, -100 but where a token was chosen.
    """

    vocab: dict[str, Any]
    context: int
    share: float = 0.15
    title: str = ""
    vector_width: int = 0  # of the pre-trained vectors; 0 without

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary at work."""
        return Vocabulary.from_json(self.vocab)

    def encode(self, raw: Any) -> Batch:
        """{"tokens" (B, T) padded at the right, "lengths" (B,)} of prompts with gaps; see `prompts`. Raises DataError."""
        return pad_rows([self.ids(text) for text in self.prompts(raw)])

    def prompts(self, raw: Any) -> list[str]:
        """The prompts in what the user gave: a text, a row {"text"}, the Path of a file of lines, or a list of these."""
        if isinstance(raw, str):
            return [raw]
        if isinstance(raw, PathLike):
            return [text for _, record in text_records(Path(raw), KEYS) for text in self.prompts(record)]
        if isinstance(raw, Mapping):
            key = next((k for k in KEYS if k in raw), None)
            if key is None:
                raise DataError(f'a prompt is {{"text": ...}}; this one has {", ".join(map(str, raw)) or "nothing"}')
            return [str(raw[key])]
        if isinstance(raw, Sequence) and not isinstance(raw, bytes) and len(raw):
            return [one for item in raw for one in self.prompts(item)]
        what = "an empty list" if isinstance(raw, Sequence) and not len(raw) else type(raw).__name__
        raise DataError(f"this run takes text with <mask> in it: a string, a list of them, or a path to a file; got {what}")

    def ids(self, prompt: str) -> list[int]:
        """<s> and the tokens of a prompt, each <mask> or [MASK] one hidden token. DataError without one or when too long.

        Byte pairs begin with the space before them, so it goes with the hidden token.
        """
        if not prompt.strip():
            raise DataError('the prompt is empty; write <mask> where a word is missing: "Paris is the <mask> of France"')
        parts = GAP.split(prompt)
        if len(parts) == 1:
            raise DataError(f"no <mask> in {prompt[:60]!r}; write <mask> (or [MASK]) where a token is missing")
        ids = [START]
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            ids += self.vocabulary.encode(part.rstrip(" ") if self.vocabulary.kind == "bpe" and not last else part)
            ids += [] if last else [MASK]
        if len(ids) > self.context:
            raise DataError(
                f"the prompt has {len(ids)} tokens, and this run reads at most {self.context}; keep what stands near the mask"
            )
        return ids

    def read(self, source: Any, rows: int = 256) -> Iterator[tuple[list[str], Any]]:
        """Prompts: the lines of a file, the objects of a JSON-lines file or rows of a table, or the text itself."""
        names: list[str] = []
        chunk: list[Any] = []
        for name, record in text_records(source, KEYS):
            names.append(name)
            chunk.append(self.prompts(record)[0])
            if len(chunk) == rows:
                yield names, chunk
                names, chunk = [], []
        if chunk:
            yield names, chunk

    def labelled(self, source: Any, rows: int = 32) -> Iterator[Batch]:
        """Windows over the text of a file with tokens hidden, the same ones every time. Raises DataError."""
        plain = LanguageSpec(vocab=self.vocab, context=self.context)
        first = len(self.vocabulary.specials)
        for number, batch in enumerate(plain.labelled(source, rows)):
            yield hide(batch, self.share, first, self.vocabulary.size, generator("labelled", number))

    def example(self, batch: int = 2) -> Batch:
        """A batch of token 0 as long as the context, at most 256."""
        tokens = torch.zeros(batch, min(self.context, 256), dtype=torch.int64)
        return {"tokens": tokens, "targets": tokens}


class MaskedTokens(Data):
    """Windows of text with hidden tokens. What is hidden is a pure function of (seed, batch number); outside training, of the
    batch number alone, so that evaluations can be compared."""

    spec: MaskedSpec

    def __init__(self, tokens: TokenData, share: float):
        inner = tokens.spec
        assert isinstance(inner, LanguageSpec)
        self.tokens, self.share, self.batch, self.summary = tokens, share, tokens.batch, tokens.summary
        self.spec = MaskedSpec(
            vocab=inner.vocab, context=inner.context, share=share, title=inner.title, vector_width=inner.vector_width,
        )  # fmt: skip
        self.spec.hold(inner.vectors)
        self.first, self.last = len(inner.vocabulary.specials), inner.vocabulary.size

    def size(self, split: str) -> int:
        """Windows in a split."""
        return self.tokens.size(split)

    def batches(self, split: str, start: int = 0, part: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
        """See Data.batches: {"tokens", "targets"} (B, context)."""
        for number, batch in enumerate(self.tokens.batches(split, start), start):
            seed = (self.tokens.seed, "train", number) if split == "train" else ("hidden", split, number)
            whole = hide(batch, self.share, self.first, self.last, generator(*seed))
            mine = share(torch.arange(len(whole["tokens"])), part)  # drawn for the whole batch, so that parts together are it
            yield whole if part[1] == 1 else {name: t[mine] for name, t in whole.items()}

    def raw(self, split: str, rows: list[int]) -> list[Any]:
        """Rows {"text", "answers"}: some beginnings of windows with one token hidden, and that token."""
        return [self._gap(split, row) for row in rows]

    def _gap(self, split: str, row: int) -> dict[str, Any]:
        ids = self.tokens.splits[split]
        length = max(min(self.spec.context // 4 + row % 3, self.spec.context - 2), 1)
        start, v = row * self.spec.context, self.spec.vocabulary
        piece = [int(i) for i in ids[start : start + length] if i >= self.first] or [self.first]
        at = fold("gap", row) % len(piece)
        before, after = v.decode(piece[:at]), v.decode(piece[at + 1 :])
        if v.kind == "word":
            before, after = f"{before} ".lstrip(), f" {after}".rstrip()
        return {"text": f"{before}<mask>{after}", "answers": [v.piece(piece[at])]}


def generator(*parts: object) -> torch.Generator:
    """Random numbers that are a pure function of `parts`."""
    return torch.Generator().manual_seed(fold("masks", *parts))


def hide(batch: Batch, share: float, first: int, last: int, draw: torch.Generator) -> Batch:
    """Windows {"tokens", "targets" of the next token} as {"tokens" with hidden ones, "targets"}.

    Special tokens (ids below `first`) are never chosen, and neither is what stands beyond the end of the text, whose place the
    next-token targets tell. Random tokens are drawn from `first` to `last` - 1.
    """
    tokens: Tensor = batch["tokens"]
    inside = torch.ones_like(tokens, dtype=torch.bool)
    inside[:, 1:] = batch["targets"][:, :-1] != IGNORE
    chance = torch.rand(tokens.shape, generator=draw)
    fate = torch.rand(tokens.shape, generator=draw)
    drawn = torch.randint(first, last, tokens.shape, generator=draw)
    chosen = (chance < share) & inside & (tokens >= first)
    shown = torch.where(chosen & (fate < 0.8), MASK, tokens)
    shown = torch.where(chosen & (fate >= 0.9), drawn, shown)
    return {"tokens": shown, "targets": torch.where(chosen, tokens, IGNORE)}
