"""Text from a language model: prompts in, continuations out, whole or as they come."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.core.batch import Batch
from engram.core.errors import ConfigError
from engram.core.predictor import Field, Figure, Predictor, Scores
from engram.core.spec import Spec
from engram.inference.decode import decode
from engram.inference.sampling import Sampling
from engram.inference.stops import Stops


EXAMPLES = 8


class PromptSpec(Protocol):
    """What the generator asks of the Spec."""

    context: int

    @property
    def vocabulary(self) -> Any: ...
    def prompts(self, raw: Any) -> list[Any]: ...
    def prompt_ids(self, prompt: Any) -> list[int]: ...


@dataclass(frozen=True)
class Piece:
    """Some text of one prompt as it comes; `token` tells of the token behind it: its text, probability and alternatives."""

    row: int
    text: str
    token: dict[str, Any]


class Generator(Predictor):
    """Continues prompts. `ends` are ids that end a text; `special` how many ids, from 0, stand for no text and are never drawn
    otherwise. `limited` False: the model has no context limit (recurrent networks)."""

    takes: ClassVar = {"input": Field("input", "a prompt, a list of them, a path to a text, messages, or None")}
    gives: ClassVar = {"text": Field("text", "what follows the prompt")}

    def __init__(
        self, model: nn.Module, spec: Spec, *, ends: Sequence[int], special: int, limited: bool = True, tokens: int = 200
    ):
        self.model, self.spec, self.ends, self.tokens = model, spec, frozenset(ends), tokens
        self.banned = tuple(i for i in range(special) if i not in self.ends)
        self.limited = limited
        self.widths: Tensor | None = None

    @property
    def _spec(self) -> PromptSpec:
        return self.spec  # type: ignore[return-value]

    def tune(self, *, bf16: bool, channels_last: bool) -> None:
        """Decoding stays in the weights' own format; `quantise` chooses another."""

    def outputs(self, batch: Batch) -> dict[str, Tensor]:
        """{"nll" (B,) nats over the trained targets of each row, "items" (B,) how many}; {} without targets."""
        if "targets" not in batch:
            return {}
        device = next(self.model.parameters()).device
        given = [batch[name].to(device) for name in ("tokens", "documents") if name in batch]
        targets = batch["targets"].to(device)
        with torch.inference_mode():
            logits = self.model(*given).float()
            each = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="none")
        return {"nll": each.view_as(targets).sum(1).cpu(), "items": (targets != -100).sum(1).cpu()}

    def scores(self, batches: Iterable[Batch], rows: Iterable[list[Any]]) -> Scores | None:
        """Perplexity per token, and bits per byte of text, over windows; some continuations as examples."""
        found = [self.outputs(batch) | {"bytes": self._bytes(batch["targets"])} for batch in batches if "targets" in batch]
        if not found:
            return None
        parts = torch.stack([torch.cat([f[name].double() for f in found]) for name in ("nll", "items", "bytes")], 1)
        figures = {
            "perplexity": Figure("perplexity per token", lambda s: (s[:, 0] / s[:, 1]).exp()),
            "loss": Figure("nats per token", lambda s: s[:, 0] / s[:, 1]),
            "bits_per_byte": Figure("bits per byte", lambda s: s[:, 0] / s[:, 2].clamp(min=1) / math.log(2)),
        }
        beside = f"guessing evenly among all tokens has {self._spec.vocabulary.size:,}"
        some = next(iter(rows), [])[:EXAMPLES]
        wrote = self(input=some, tokens=60, temperature=0.8)["text"] if some else []
        examples = [{"input": said(p), "target": "", "prediction": w} for p, w in zip(some, wrote, strict=True)]
        return Scores(figures, parts, "windows of text", beside, examples)

    def _bytes(self, targets: Tensor) -> Tensor:
        """How many bytes of text the trained targets of each row stand for, (B,)."""
        vocabulary = self._spec.vocabulary
        if self.widths is None:
            self.widths = torch.tensor([len(vocabulary.raw(i)) for i in range(vocabulary.size)])
        return torch.where(targets.cpu() < 0, 0, self.widths[targets.cpu().clamp(min=0)]).sum(1)

    def __call__(
        self,
        *,
        input: Any = None,
        tokens: int | None = None,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition: float = 1.0,
        stop: str | Sequence[str] = (),
        seed: int = 0,
        samples: int = 1,
    ) -> dict[str, list[Any]]:
        """{"text": one continuation per prompt}, or `samples` of each in turn. See engram.inference.sampling for the knobs."""
        how = Sampling(temperature, top_k, top_p, min_p, repetition, seed)
        prompts = self._spec.prompts(input)
        texts = [""] * (len(prompts) * max(samples, 1))
        for piece in self._pieces([p for p in prompts for _ in range(samples)], how, tokens, stop, 0, samples):
            texts[piece.row] += piece.text
        return {"text": texts}

    def stream(
        self,
        input: Any = None,
        *,
        tokens: int | None = None,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition: float = 1.0,
        stop: str | Sequence[str] = (),
        seed: int = 0,
        probs: int = 0,
    ) -> Iterator[Piece]:
        """Pieces of text as they come, of all prompts in turn; with `probs` each tells the most probable alternatives."""
        how = Sampling(temperature, top_k, top_p, min_p, repetition, seed)
        yield from self._pieces(self._spec.prompts(input), how, tokens, stop, probs, 1)

    def _pieces(
        self, prompts: list[Any], how: Sampling, tokens: int | None, stop: str | Sequence[str], probs: int, samples: int
    ) -> Iterator[Piece]:
        how.check()
        most = self.tokens if tokens is None else tokens
        if most < 1 or samples < 1:
            raise ConfigError(f"tokens={most} and samples={samples} must be at least 1")
        vocabulary = self._spec.vocabulary
        ids = [self._spec.prompt_ids(p) for p in prompts]
        stops = [Stops([stop] if isinstance(stop, str) else stop) for _ in ids]
        texts = [vocabulary.stream() for _ in ids]
        finished: set[int] = set()
        drawn = decode(
            self.model, ids, how, most=most, ends=self.ends, context=self._spec.context if self.limited else 0,  # type: ignore[arg-type]
            device=next(self.model.parameters()).device, finished=finished, alternatives=probs,
            samples=[i % samples for i in range(len(ids))], banned=self.banned,
        )  # fmt: skip
        self.model.eval()
        left = set(range(len(ids)))
        for token in drawn:
            row = token.row
            shown = "" if token.id in self.ends else stops[row](texts[row](token.id))
            if stops[row].hit:
                finished.add(row)
            if row in finished:
                left.discard(row)
                shown += "" if stops[row].hit else stops[row](texts[row](None)) + stops[row].end()
            others = [{"token": vocabulary.piece(i), "probability": p} for i, p in token.alternatives]
            facts = {"token": vocabulary.piece(token.id), "id": token.id, "probability": token.probability}
            yield Piece(row, shown, facts | ({"alternatives": others} if probs else {}))
        for row in sorted(left):
            yield Piece(row, stops[row](texts[row](None)) + stops[row].end(), {})


def said(prompt: Any) -> str:
    """A prompt as people read it; messages with their roles."""
    return "\n".join(f"{m['role']}: {m['content']}" for m in prompt) if isinstance(prompt, list) else prompt or ""
