"""LanguageSpec: what a language model must know about its text: the vocabulary, the context and, for a chat, the template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engram.core.batch import Batch
from engram.core.errors import DataError
from engram.core.spec import Spec
from engram.data.chat import ChatTemplate
from engram.data.pretrained import Pretrained
from engram.data.text_input import read_text_file, text_records
from engram.data.vocabulary import PAD, START, Vocabulary

PROMPT_KEYS = ("prompt", "text", "input")


@dataclass(frozen=True, kw_only=True)
class LanguageSpec(Pretrained, Spec):
    """`vocab` is `Vocabulary.to_json()`; `context` the longest sequence; `chat` the template's JSON, {} for plain text."""

    vocab: dict[str, Any]
    context: int
    chat: dict[str, Any] = field(default_factory=dict)
    title: str = ""
    vector_width: int = 0  # of the pre-trained vectors; 0 without

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary at work."""
        return Vocabulary.from_json(self.vocab)

    @cached_property
    def template(self) -> ChatTemplate | None:
        """How messages become tokens; None for a model of plain text."""
        return ChatTemplate.from_json(self.chat) if self.chat else None

    def encode(self, raw: Any) -> Batch:
        """Prompts to {"tokens" (B, T) padded at the right, "lengths" (B,)}; each begins with <s>.

        A prompt is a text, a path to a text file, a list of messages {"role", "content"} for a chat, or None for the start of a
        new document. Raises DataError.
        """
        return pad_rows([self.prompt_ids(one) for one in self.prompts(raw)])

    def prompts(self, raw: Any) -> list[Any]:
        """The prompts in what the user gave: texts, None, or lists of messages."""
        if raw is None or isinstance(raw, str):
            return [raw]
        if isinstance(raw, PathLike):
            return [read_text_file(Path(raw))[0]]
        if isinstance(raw, Mapping):
            return [self._from_dict(raw)]
        if isinstance(raw, Sequence) and len(raw) and all(isinstance(r, Mapping) and "role" in r for r in raw):
            return [list(raw)]
        if isinstance(raw, Sequence) and not isinstance(raw, bytes) and len(raw):
            return [one for item in raw for one in self.prompts(item)]
        what = "an empty list" if isinstance(raw, Sequence) and not len(raw) else type(raw).__name__
        raise DataError(f"this run takes text: a string, a list of them, or a path to a text file; got {what}")

    def prompt_ids(self, prompt: Any) -> list[int]:
        """Ids of one prompt, <s> first, or as the template of a chat has it. Raises DataError when it is empty."""
        if isinstance(prompt, list):
            if self.template is None:
                raise DataError("this run was not trained on conversations, so it takes a text and not messages")
            return self.template.prompt(self.vocabulary, prompt)
        if prompt is None:
            return [START]
        if not prompt:
            raise DataError("the prompt is empty; write its first words, or leave it out to start a new document")
        if self.template is not None:
            return self.template.prompt(self.vocabulary, [{"role": "user", "content": prompt}])
        return [START, *self.vocabulary.encode(prompt, strict=self.vocabulary.kind == "char")]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated ids."""
        return self.vocabulary.decode(ids)

    def read(self, source: Any, rows: int = 256) -> Iterator[tuple[list[str], Any]]:
        """Prompts: each object of a JSON-lines file ({"prompt"} or {"messages"}), else the whole file; a text that is no path
        is itself the prompt."""
        names: list[str] = []
        chunk: list[Any] = []
        for name, record in text_records(source, PROMPT_KEYS, whole=True):
            names.append(name)
            chunk.append(self._from_dict(record) if isinstance(record, Mapping) else record)
            if len(chunk) == rows:
                yield names, chunk
                names, chunk = [], []
        if chunk:
            yield names, chunk

    def labelled(self, source: Any, rows: int = 32) -> Iterator[Batch]:
        """Windows over the text of a file, every token of it predicted once: {"tokens", "targets"}."""
        text = source if isinstance(source, str) and not Path(source).exists() else read_text_file(Path(source))[0]
        ids = np.concatenate([[START], self.vocabulary.encode_array(text)])
        if len(ids) < 2:
            raise DataError(f"{source} holds no text to measure on")
        for first in range(0, -(-(len(ids) - 1) // self.context), rows):
            yield windows(ids, range(first, min(first + rows, -(-(len(ids) - 1) // self.context))), self.context)

    def example(self, batch: int = 2) -> Batch:
        """A batch of token 0 as long as the context, at most 256."""
        tokens = torch.zeros(batch, min(self.context, 256), dtype=torch.int64)
        return {"tokens": tokens, "targets": tokens}

    def _from_dict(self, record: Mapping[str, Any]) -> Any:
        if "messages" in record:
            return list(record["messages"])
        for key in PROMPT_KEYS:
            if key in record:
                return str(record[key])
        raise DataError(f'a prompt is {{"prompt": ...}} or {{"messages": [...]}}; this one has {", ".join(map(str, record))}')


def windows(ids: np.ndarray, numbers: range, context: int) -> Batch:
    """Consecutive windows of a text as rows: window n predicts ids n * context + 1 and the following; -100 past the end."""
    at = np.arange(numbers.start, numbers.stop)[:, None] * context + np.arange(context + 1)
    held = np.where(at < len(ids), ids[at.clip(max=len(ids) - 1)], -1).astype(np.int64)
    tokens, targets = np.where(held < 0, PAD, held)[:, :-1], np.where(held < 0, -100, held)[:, 1:]
    return {
        "tokens": torch.from_numpy(np.ascontiguousarray(tokens)),
        "targets": torch.from_numpy(np.ascontiguousarray(targets)),
    }


def pad_rows(rows: Sequence[Sequence[int]]) -> Batch:
    """Rows of ids as {"tokens" (B, T), "lengths" (B,)}."""
    tokens = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
    for number, ids in enumerate(rows):
        tokens[number, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
    return {"tokens": tokens, "lengths": torch.tensor([len(r) for r in rows])}
