"""Filling gaps: a model of span corruption writes what stands in each gap <x0>, <x1> ... of a text (Raffel et al. 2020, 3.1.4).

The sentinels are given to the decoder in their order, and a gap ends where the model would write any sentinel or </s>. So a
prompt with two gaps gets two answers, although every text in training had many more.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.core.batch import Batch
from engram.core.errors import ConfigError
from engram.core.predictor import Field, Figure, Predictor, Scores
from engram.core.spec import Spec

START, END = 2, 3
ROWS = 64  # texts decoded together
EXAMPLES, MEASURED = 16, 256  # texts shown, and texts whose gaps are filled and compared


class GapSpec(Protocol):
    """What the filler asks of the Spec."""

    sentinels: tuple[int, ...]

    @property
    def vocabulary(self) -> Any: ...
    def texts(self, raw: Any) -> list[str]: ...
    def gaps(self, text: str) -> list[str]: ...
    def tight(self, piece: str) -> str: ...
    def source_ids(self, text: str) -> list[int]: ...
    def target_ids(self, text: str) -> list[int]: ...


class GapFiller(Predictor):
    """`model` maps (source, source_lengths, target_in) to logits and has `start` and `step`; see engram.inference.beam."""

    takes: ClassVar = {"input": Field("input", "a text with gaps <x0>, <x1> ..., a list of them, or a path to a file of lines")}
    gives: ClassVar = {
        "text": Field("text", "the text with its gaps filled"),
        "gaps": Field("words", "what stands in each gap"),
    }

    def __init__(self, model: nn.Module, spec: Spec, *, most: int = 16):
        self.model, self.spec, self.most = model, spec, most

    @property
    def _spec(self) -> GapSpec:
        return self.spec  # type: ignore[return-value]

    def tune(self, *, bf16: bool, channels_last: bool) -> None:
        """Compute with a copy of the model in bfloat16, where training did."""
        if bf16:
            self.model = copy.deepcopy(self.model).to(torch.bfloat16)

    def outputs(self, batch: Batch) -> dict[str, Tensor]:
        """{"nll" (B,) nats over the target of each row, "items" (B,) its tokens}; {} without targets."""
        if "target" not in batch:
            return {}
        device = next(self.model.parameters()).device
        source, lengths, target = (batch[n].to(device) for n in ("source", "source_lengths", "target"))
        with torch.inference_mode():
            logits = self.model.eval()(source, lengths, target[:, :-1]).float()
            each = F.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten(), ignore_index=0, reduction="none")
        return {"nll": each.view(len(target), -1).sum(1).cpu(), "items": (target[:, 1:] != 0).sum(1).cpu()}

    def scores(self, batches: Iterable[Batch], rows: Iterable[list[Any]]) -> Scores | None:
        """Perplexity per target token, and how many gaps are filled exactly as the text was, of at most 256 texts."""
        found = [self.outputs(batch) for batch in batches]
        if not found:
            return None
        parts = torch.zeros(sum(len(f["nll"]) for f in found), 4, dtype=torch.float64)
        parts[:, :2] = torch.stack([torch.cat([f[n].double() for f in found]) for n in ("nll", "items")], 1)
        some: list[Any] = []
        for chunk in rows:
            some += chunk[: MEASURED - len(some)]
            if len(some) == MEASURED:
                break
        examples = []
        filled = self(input=some)["gaps"] if some else []
        for number, (row, gaps) in enumerate(zip(some, filled, strict=True)):
            known = self._answers(row["target"])
            right = [a.strip() == b.strip() for a, b in zip(known, gaps, strict=False)]
            parts[number, 2], parts[number, 3] = sum(right), len(known)
            if number < EXAMPLES:
                examples.append({"input": row["source"], "target": " | ".join(known), "prediction": " | ".join(gaps)})
        figures = {
            "perplexity": Figure("perplexity per token", lambda s: (s[:, 0] / s[:, 1]).exp()),
            "exact": Figure("gaps filled as the text was", lambda s: s[:, 2] / s[:, 3].clamp(min=1), "percent"),
        }
        beside = f"guessing evenly among all tokens has perplexity {self._spec.vocabulary.size:,}"
        return Scores(figures, parts, "windows of text", beside, examples)

    def __call__(self, *, input: Any, most: int = 0) -> dict[str, list[Any]]:
        """{"text", "gaps"}; a gap has at most `most` tokens. Raises DataError and ConfigError."""
        if most < 0:
            raise ConfigError(f"most={most} must be at least 0")
        texts = self._spec.texts(input)
        ids = [self._spec.source_ids(text) for text in texts]
        gaps: list[list[str]] = [[] for _ in texts]
        order = sorted(range(len(ids)), key=lambda r: -len(ids[r]))
        for first in range(0, len(order), ROWS):
            rows = order[first : first + ROWS]
            for row, found in zip(rows, self._decode([ids[r] for r in rows], most or self.most), strict=True):
                gaps[row] = [self._spec.vocabulary.decode(one) for one in found]
        return {"text": [self._filled(*pair) for pair in zip(texts, gaps, strict=True)], "gaps": gaps}

    @torch.inference_mode()
    def _decode(self, ids: list[list[int]], most: int) -> list[list[list[int]]]:
        """The ids in every gap of each source."""
        model: Any = self.model.eval()
        device = next(self.model.parameters()).device
        lengths = torch.tensor([len(i) for i in ids], device=device)
        source = torch.zeros(len(ids), int(lengths.max()), dtype=torch.int64, device=device)
        for row, one in enumerate(ids):
            source[row, : len(one)] = torch.tensor(one, device=device)
        sentinels = self._spec.sentinels
        asked = [sum(i in set(sentinels) for i in one) for one in ids]
        found: list[list[list[int]]] = [[] for _ in ids]
        ends = [END, *sentinels]
        banned = [i for i in range(len(self._spec.vocabulary.specials)) if i not in ends]
        state, tokens, rows = model.start(source, lengths), [START] * len(ids), list(range(len(ids)))
        while True:
            logits, state = model.step(torch.tensor(tokens, device=device), state)
            logits[:, banned] = -torch.inf
            fresh = [at for at, row in enumerate(rows) if found[row] and not found[row][-1]]
            if fresh:  # a gap is never empty
                logits[torch.tensor(fresh, device=device)[:, None], torch.tensor(ends, device=device)] = -torch.inf
            going, tokens = [], []
            for at, (row, best) in enumerate(zip(rows, logits.argmax(1).tolist(), strict=True)):
                if not found[row] or best in ends or len(found[row][-1]) == most:
                    if len(found[row]) == asked[row]:
                        continue
                    best = sentinels[len(found[row])]
                    found[row].append([])
                else:
                    found[row][-1].append(best)
                going.append(at)
                tokens.append(best)
            if not going:
                return found
            if len(going) < len(rows):
                state, rows = state.select(torch.tensor(going, device=device)), [rows[at] for at in going]

    def _filled(self, text: str, gaps: Sequence[str]) -> str:
        pieces = self._spec.gaps(text)
        out = ""
        for number, piece in enumerate(pieces):
            last = number + 1 == len(pieces)
            gap = "" if last or number >= len(gaps) else gaps[number]
            if gap and self._spec.vocabulary.kind == "word":  # words keep no spaces
                gap = f"{gap} " if pieces[number + 1][:1].isalnum() else gap
                piece = f"{piece} " if piece[-1:].isalnum() else piece
            out += (piece if last else self._spec.tight(piece)) + gap
        return out

    def _answers(self, target: str) -> list[str]:
        """The gaps' texts of "<x0> first <x1> second"."""
        gaps: list[list[int]] = []
        for id in self._spec.target_ids(target)[1:-1]:
            if id in self._spec.sentinels:
                gaps.append([])
            elif gaps:
                gaps[-1].append(id)
        return [self._spec.vocabulary.decode(gap) for gap in gaps]
