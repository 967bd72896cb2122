"""Beam search for language models: the prompt takes the place of the source, the search is that of engram.inference.beam."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engram.core.errors import ConfigError
from engram.inference.beam import END, beam_search
from engram.inference.decode import Batch, LanguageModel, Token


@torch.inference_mode()
def beam_texts(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    beams: int,
    most: int,
    ends: frozenset[int],
    context: int,
    device: torch.device,
    banned: Sequence[int] = (),
) -> Iterator[Token]:
    """The tokens of the most probable continuation of each prompt, </s> as the last where the text ends by itself.

    Raises ConfigError when a prompt and `most` tokens together exceed the context (0 = no limit).
    """
    for prompt in prompts:
        if context and len(prompt) + most > context:
            raise ConfigError(
                f"beams={beams} searches within the context of {context} tokens; a prompt of {len(prompt)} with tokens={most} "
                "exceeds it; ask for fewer tokens, or leave out beams"
            )
    never = [i for i in {*banned, *ends} if i != END]
    for row, prompt in enumerate(prompts):
        # one more step than tokens: at the last the only continuation is </s>, and there it costs nothing
        adapter = _Adapter(model, prompt, most, context, device, never)
        none = torch.zeros(1, 1, dtype=torch.int64, device=device)
        best = beam_search(adapter, none, none[0], [most + 1], beams=beams, penalty=0.0)[0][0]
        found = [*best.ids, END][:most]
        for at, id in enumerate(found):
            yield Token(row, id, last=at + 1 == len(found))


@dataclass
class _Beams:
    batch: Batch
    read: int = 0  # tokens after the prompt

    def select(self, index: Tensor) -> _Beams:
        """Row i continues what row index[i] was."""
        batch = self.batch
        batch.cache.reorder(index)
        batch.lengths = [batch.lengths[at] for at in index.tolist()]
        batch.places = batch.places[index]
        return self


class _Adapter:
    """A language model with one prompt as what `beam_search` decodes."""

    def __init__(
        self,
        model: LanguageModel,
        prompt: Sequence[int],
        most: int,
        context: int,
        device: torch.device,
        never: Sequence[int],
    ):
        self.never = list(never)
        self.model, self.prompt, self.most, self.context, self.device = model, prompt, most, context, device
        self.size = 0  # of the vocabulary, once a step has told

    def start(self, source: Tensor, source_lengths: Tensor | None = None) -> _Beams:
        """The prompt, read up to its last token."""
        batch = Batch(self.model, len(self.prompt) + self.most if self.context else 0, self.context, self.device)
        batch.add([0], [self.prompt])
        return _Beams(batch)

    def step(self, tokens: Tensor, state: _Beams) -> tuple[Tensor, _Beams]:
        """Logits after the next token: at first the prompt's last, where the search gives <s>."""
        if state.read == self.most:
            logits = torch.full((len(tokens), self.size), -torch.inf, device=self.device)
            logits[:, END] = 0.0
            return logits, state
        if state.read:
            state.batch.chosen = tokens
        state.read += 1
        logits = state.batch.step([])
        logits[:, self.never] = -torch.inf  # before they are scaled to probabilities, as where tokens are drawn
        self.size = logits.shape[1]
        return logits, state
