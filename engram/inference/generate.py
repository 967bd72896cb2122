"""Text from a language model: prompts in, continuations out, whole or as they come."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.core.batch import Batch, fold
from engram.core.errors import ConfigError, DataError
from engram.core.predictor import Field, Figure, Predictor, Scores
from engram.core.spec import Spec
from engram.inference.decode import Token, decode
from engram.inference.quantise import choose_weights, quantise
from engram.inference.sampling import Sampling
from engram.inference.speculative import speculate
from engram.inference.stops import Stops
from engram.inference.text_beams import beam_texts

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
    """Some text as it comes, of sample `row % samples` of prompt `row // samples`. `token` tells of the token behind it: its
    text, id, probability and alternatives. `last`: nothing more comes of this row."""

    row: int
    text: str
    token: dict[str, Any]
    last: bool = False


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
        self.decoder = model  # what continues prompts: the model, or a smaller copy of it
        self.widths: Tensor | None = None

    @property
    def _spec(self) -> PromptSpec:
        return self.spec  # type: ignore[return-value]

    @property
    def context(self) -> int:
        """Most tokens that the model sees; 0 = no limit."""
        return self._spec.context if self.limited else 0

    def tune(self, *, bf16: bool, channels_last: bool) -> None:
        """Decoding stays in the weights' own format; `use` chooses another."""

    def use(self, weights: str, *, rows: int = 1, bf16: bool = False) -> str:
        """Continue prompts with weights as `weights` says (engram.inference.quantise); what "auto" came to.

        `rows` is how many texts will be written at once, `bf16` whether the processor multiplies bfloat16. Raises ConfigError.
        """
        chosen = choose_weights(weights, self.model, rows, bf16)
        self.decoder = quantise(self.model, chosen)
        return chosen

    def left_out(self, input: Any = None) -> list[int]:
        """How many tokens at the beginning of each prompt are not used, because the context does not hold them."""
        ids = [self._spec.prompt_ids(p) for p in self._spec.prompts(input)]
        return [max(0, len(i) - self.context) if self.context else 0 for i in ids]

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
        some = [p for p in next(iter(rows), [])[:EXAMPLES] if self._reads(p)]
        wrote = self(input=some, tokens=60, temperature=0.8)["text"] if some else []
        examples = [{"input": said(p), "target": "", "prediction": w} for p, w in zip(some, wrote, strict=True)]
        return Scores(figures, parts, "windows of text", beside, examples)

    def _reads(self, prompt: Any) -> bool:
        """Whether the vocabulary has all of a prompt; text that was held out may have characters of its own."""
        try:
            return bool(self._spec.prompt_ids(prompt))
        except DataError:
            return False

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
        beams: int = 1,
        draft: Generator | None = None,
    ) -> dict[str, list[Any]]:
        """{"text": one continuation per prompt}, or `samples` of each in turn. See engram.inference.sampling for the knobs.

        `beams` above 1 searches for the most probable text. `draft`, the generator of a smaller run, makes it speculative.
        Of a prompt longer than the context the last part is used (`left_out`). Raises ConfigError and DataError.
        """
        how = Sampling(temperature, top_k, top_p, min_p, repetition, seed)
        prompts = self._spec.prompts(input)
        texts = [""] * (len(prompts) * max(samples, 1))
        for piece in self._pieces(prompts, how, tokens, stop, None, samples, beams, draft):
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
        samples: int = 1,
        beams: int = 1,
        draft: Generator | None = None,
    ) -> Iterator[Piece]:
        """Pieces of text as they come, of all prompts in turn; with `probs` each tells the most probable alternatives."""
        how = Sampling(temperature, top_k, top_p, min_p, repetition, seed)
        yield from self._pieces(self._spec.prompts(input), how, tokens, stop, probs, samples, beams, draft)

    def _pieces(
        self,
        prompts: list[Any],
        how: Sampling,
        tokens: int | None,
        stop: str | Sequence[str],
        probs: int | None,
        samples: int,
        beams: int,
        draft: Generator | None,
    ) -> Iterator[Piece]:
        how.check()
        most = self.tokens if tokens is None else tokens
        if min(most, samples, beams) < 1 or (probs or 0) < 0:
            raise ConfigError(
                f"tokens={most}, samples={samples} and beams={beams} must be at least 1, probs={probs} at least 0"
            )
        vocabulary = self._spec.vocabulary
        ids = [found for p in prompts for found in [self._spec.prompt_ids(p)] * samples]
        stops = [Stops([stop] if isinstance(stop, str) else stop) for _ in ids]
        texts = [vocabulary.stream() for _ in ids]
        finished: set[int] = set()
        for token in self._drawn(ids, how, most, probs, samples, beams, draft, finished):
            row = token.row
            if stops[row].hit:
                continue
            shown = "" if token.id in self.ends else stops[row](texts[row](token.id))
            last = token.last or bool(stops[row].hit)
            if last:
                finished.add(row)
                shown += stops[row](texts[row](None)) + stops[row].end()
            facts: dict[str, Any] = {"token": vocabulary.piece(token.id), "id": token.id}
            if probs is not None and beams == 1:
                facts["probability"] = token.probability
            if probs:
                facts["alternatives"] = [
                    {"token": vocabulary.piece(i), "id": i, "probability": p} for i, p in token.alternatives
                ]
            yield Piece(row, shown, facts, last)

    def _drawn(
        self,
        ids: list[list[int]],
        how: Sampling,
        most: int,
        probs: int | None,
        samples: int,
        beams: int,
        draft: Generator | None,
        finished: set[int],
    ) -> Iterator[Token]:
        """The tokens of all rows, by whichever way of decoding was asked for."""
        self.decoder.eval()
        device, model = next(self.model.parameters()).device, cast(Any, self.decoder)
        if beams > 1:
            if draft is not None or samples > 1 or probs:
                raise ConfigError("beams searches for the one most probable text: leave out samples, probs and draft")
            yield from beam_texts(model, ids, beams, most, self.ends, self.context, device, self.banned)
            return
        # other prompts get other draws, and the same prompt the same ones, alone or in a batch
        numbers = [fold(i % samples, row) for i, row in enumerate(ids)]
        if draft is not None:
            self._fits(draft)
            draft.decoder.eval()
            yield from speculate(
                model, cast(Any, draft.decoder), ids, how, most=most, ends=self.ends, context=self.context,
                draft_context=draft.context, device=device, finished=finished, alternatives=probs, samples=numbers,
                banned=self.banned,
            )  # fmt: skip
            return
        yield from decode(
            model, ids, how, most=most, ends=self.ends, context=self.context, device=device, finished=finished,
            alternatives=probs, samples=numbers, banned=self.banned,
        )  # fmt: skip

    def _fits(self, draft: Generator) -> None:
        """ConfigError when a draft cannot propose tokens for this run."""
        if self._spec.vocabulary.to_json() != draft._spec.vocabulary.to_json():
            sizes = f"{self._spec.vocabulary.size:,} and {draft._spec.vocabulary.size:,} tokens"
            raise ConfigError(
                f"the draft has another vocabulary ({sizes}); train it with start_from of the same run, or on the same text"
            )
        if not (self.context and draft.context):
            raise ConfigError("a draft needs two Transformer runs: a recurrent network cannot take back what it has read")


def said(prompt: Any) -> str:
    """A prompt as people read it; messages with their roles."""
    return "\n".join(f"{m['role']}: {m['content']}" for m in prompt) if isinstance(prompt, list) else prompt or ""
