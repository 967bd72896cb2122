"""Answers from texts: the best spans over all windows of a text, with their probabilities; exact match and F1 as SQuAD's.

The figures are those of the official script (Rajpurkar et al. 2016, section 6.1): case, punctuation, articles and spaces do not
count; F1 is over words as a bag; of several known answers the best counts.
"""

from __future__ import annotations

import copy
import re
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.core.batch import Batch
from engram.core.errors import ConfigError
from engram.core.predictor import Field, Figure, Predictor, Scores
from engram.core.spec import Spec

EXAMPLES = 16
TOKENS = 8192  # read together, padding included
INPUTS = ("tokens", "lengths", "segments")


class Questions(Protocol):
    """What answering asks of the Spec."""

    unanswerable: bool

    def rows(self, raw: Any) -> list[dict[str, Any]]: ...
    def pieces(self, context: str) -> Any: ...
    def windows(self, question: str, pieces: Any) -> list[Any]: ...


class Answerer(Predictor):
    """`model` maps (tokens, lengths, segments) to logits (B, T, 2); an answer has at most `longest` tokens."""

    takes: ClassVar = {"input": Field("input", 'a {"question", "context"}, a list of them, or a path to a file')}
    gives: ClassVar = {
        "text": Field("text", "the most probable answer, as it stands in the text; empty when there is none"),
        "probability": Field("number", "its probability among all spans, 0 to 1"),
        "answers": Field("answers", "the best answers: text, start and end (characters of the text), probability"),
    }

    def __init__(self, model: nn.Module, spec: Spec, longest: int = 30):
        self.model, self.spec, self.longest = model, spec, longest

    def tune(self, *, bf16: bool, channels_last: bool) -> None:
        """Compute with a copy of the model in bfloat16, where training did."""
        if bf16:
            self.model = copy.deepcopy(self.model).to(torch.bfloat16)

    def outputs(self, batch: Batch) -> dict[str, Tensor]:
        """{"nll" (B,) nats of first and last token together}; {} for batches without answers."""
        if "starts" not in batch:
            return {}
        logits = self._logits(batch)
        parts = [
            F.cross_entropy(logits[..., n], batch[name].cpu(), reduction="none") for n, name in enumerate(("starts", "ends"))
        ]
        return {"nll": parts[0] + parts[1]}

    def scores(self, batches: Iterable[Batch], rows: Iterable[list[Any]]) -> Scores | None:
        """Exact match and F1 of questions with known answers. A question given once per window counts once."""
        known: dict[int, dict[str, Any]] = {}
        for row in (row for chunk in rows for row in chunk):
            if isinstance(row, Mapping) and "answers" in row:
                known[id(row)] = row  # type: ignore[assignment]
        if not known:
            return None
        given = list(known.values())
        texts = self(input=given, top=1)["text"]
        golds = [gold_answers(row["answers"]) for row in given]
        parts = torch.tensor([(exact(t, g), f1(t, g), 1.0) for t, g in zip(texts, golds, strict=True)], dtype=torch.float64)
        figures = {
            "f1": Figure("F1 of the words", lambda s: s[:, 1] / s[:, 2], "percent"),
            "exact": Figure("exact matches", lambda s: s[:, 0] / s[:, 2], "percent"),
        }
        examples = [
            {"input": row["question"], "target": " / ".join(dict.fromkeys(g)), "prediction": t}
            for row, g, t in zip(given[:EXAMPLES], golds, texts, strict=False)
        ]
        return Scores(figures, parts, "questions", "", examples)

    def __call__(self, *, input: Any, top: int = 5) -> dict[str, list[Any]]:
        """Lists with one entry per question: text, probability, and the `top` best answers. Raises DataError and ConfigError.

        A span counts once, in the window that shows most of the text around its first token; probabilities are those of all
        spans of all windows.
        """
        if top < 1:
            raise ConfigError(f"top={top} must be at least 1")
        asked = self._spec.rows(input)
        pieces: dict[str, Any] = {}
        for row in asked:
            if row["context"] not in pieces:
                pieces[row["context"]] = self._spec.pieces(row["context"])
        windows = [self._spec.windows(row["question"], pieces[row["context"]]) for row in asked]
        logits = self._read([w for some in windows for w in some])
        found, done = [], 0
        for row, some in zip(asked, windows, strict=True):
            found.append(self._best(row["context"], pieces[row["context"]], some, logits[done : done + len(some)], top))
            done += len(some)
        return {
            "text": [best[0]["text"] for best in found],
            "probability": [best[0]["probability"] for best in found],
            "answers": found,
        }

    def _best(self, context: str, pieces: Any, windows: list[Any], logits: list[Tensor], top: int) -> list[dict[str, Any]]:
        if not pieces.ids:  # nothing but spaces and signs without a token
            return [{"text": "", "start": 0, "end": 0, "probability": 1.0}]
        owner = owners([(w.begin, w.count) for w in windows], len(pieces.ids))
        scores, firsts, lasts = [], [], []
        for number, (w, both) in enumerate(zip(windows, logits, strict=True)):
            start, end = both[w.first : w.first + w.count].unbind(1)
            reach = min(self.longest, w.count)
            spans = start[:, None] + F.pad(end, (0, reach - 1), value=-torch.inf).unfold(0, reach, 1)  # (count, reach)
            mine = owner[w.begin : w.begin + w.count] == number
            spans = spans.masked_fill(~mine[:, None], -torch.inf)
            best, at = spans.flatten().topk(min(4 * top + 16, spans.numel()))
            scores.append((spans.flatten().logsumexp(0), best))
            firsts.append(at // reach + w.begin)
            lasts.append(at // reach + at % reach + w.begin)
        totals = [total for total, _ in scores]
        nothing = min(both[0].sum() for both in logits) if self._spec.unanswerable else None
        whole = torch.stack([*totals, *([nothing] if nothing is not None else [])]).logsumexp(0)
        chances = (torch.cat([best for _, best in scores]) - whole).exp().tolist()
        spans_at = zip(torch.cat(firsts).tolist(), torch.cat(lasts).tolist(), chances, strict=True)
        held: dict[tuple[int, int], float] = {}
        for first, last, chance in spans_at:
            if not chance:  # beyond the window, or no owner: filler of the best
                continue
            place = trimmed(context, pieces.starts[first], pieces.ends[last])
            if place[1] > place[0]:
                held[place] = held.get(place, 0.0) + chance
        answers = [{"text": context[a:b], "start": a, "end": b, "probability": p} for (a, b), p in held.items()]
        if nothing is not None:
            answers.append({"text": "", "start": 0, "end": 0, "probability": float((nothing - whole).exp())})
        answers.sort(key=lambda a: -a["probability"])
        return answers[:top] or [{"text": "", "start": 0, "end": 0, "probability": 0.0}]

    def _read(self, windows: Sequence[Any]) -> list[Tensor]:
        """Logits (T, 2) of each window, those of like length together."""
        found: list[Tensor] = [torch.empty(0)] * len(windows)
        order = sorted(range(len(windows)), key=lambda n: len(windows[n].tokens))
        while order:
            long = len(windows[order[-1]].tokens)
            group, order = order[-max(TOKENS // long, 1) :], order[: -max(TOKENS // long, 1)]
            rows = torch.zeros(2, len(group), long, dtype=torch.int64)
            lengths = torch.tensor([len(windows[n].tokens) for n in group])
            for at, n in enumerate(group):
                rows[:, at, : lengths[at]] = torch.tensor([windows[n].tokens, windows[n].kinds])
            logits = self._logits({"tokens": rows[0], "segments": rows[1], "lengths": lengths})
            for at, n in enumerate(group):
                found[n] = logits[at, : lengths[at]]
        return found

    def _logits(self, batch: Batch) -> Tensor:
        device = next(self.model.parameters()).device
        with torch.inference_mode():
            return self.model.eval()(*(batch[name].to(device) for name in INPUTS)).float().cpu()

    @property
    def _spec(self) -> Questions:
        return self.spec  # type: ignore[return-value]


def owners(windows: Sequence[tuple[int, int]], pieces: int) -> Tensor:
    """For each piece (pieces,) the number of the window (begin, count) that shows most on its shorter side."""
    at = torch.arange(pieces)
    shown = torch.stack([
        torch.where((at >= a) & (at < a + n), torch.minimum(at - a, a + n - 1 - at) + 0.01 * n, -1.0) for a, n in windows
    ])  # fmt: skip
    return shown.argmax(0)


def trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without the spaces at its ends."""
    part = text[start:end]
    return start + len(part) - len(part.lstrip()), end - len(part) + len(part.rstrip())


def normalise(answer: str) -> list[str]:
    """The words of an answer without case, punctuation and articles."""
    plain = "".join(c for c in answer.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", plain).split()


def exact(answer: str, known: Sequence[str]) -> float:
    """1 when the answer is one of the known ones; '' is the answer of a question that has none."""
    return float(any(normalise(answer) == normalise(k) for k in known or [""]))


def f1(answer: str, known: Sequence[str]) -> float:
    """The best F1 over the known answers."""
    return max(_f1(normalise(answer), normalise(k)) for k in known or [""])


def _f1(words: list[str], known: list[str]) -> float:
    if not words or not known:
        return float(words == known)
    common = sum((Counter(words) & Counter(known)).values())
    return 2 * common / (len(words) + len(known))


def gold_answers(answers: Any) -> list[str]:
    """The texts of answers given as texts, as {"text"}, or as one text."""
    if isinstance(answers, str):
        return [answers]
    return [str(a["text"]) if isinstance(a, Mapping) else str(a) for a in answers]
