"""CaptionSpec: pictures with captions. An ImageSpec that also knows the words of the captions and the longest of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from engram.core.batch import Batch
from engram.core.errors import DataError, did_you_mean
from engram.data.image_spec import ImageSpec
from engram.data.readable import readable
from engram.data.vocabulary import Vocabulary

_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")


def words(text: str) -> list[str]:
    """The words of a caption in small letters; signs are left out."""
    return _WORD.findall(text.lower())


@dataclass(frozen=True, kw_only=True)
class CaptionSpec(ImageSpec):
    """Batches: x float32 (B, C, H, W); tokens int64 (B, longest), 0 after the end; lengths int64 (B,). No classes."""

    classes: tuple[str, ...] = ()
    vocabulary: dict[str, Any] = field(default_factory=dict)  # Vocabulary.to_json, of whole words
    longest: int = 1  # words of the longest caption that is read
    source: str = ""  # the built-in set that it was made from, "" for the user's own

    @cached_property
    def vocab(self) -> Vocabulary:
        """Words to ids and back; id 0 pads, 1 is a word that was not in training."""
        return Vocabulary.from_json(self.vocabulary)

    def encode(self, raw: Any) -> Batch:
        """Pictures as ImageSpec reads them; or rows {"image": picture, "caption": text}, which give tokens and lengths too.

        Raises DataError, also when pictures and rows are mixed or a row lacks one of the two.
        """
        rows = [raw] if isinstance(raw, Mapping) else raw
        if not isinstance(rows, (list, tuple)) or not any(isinstance(row, Mapping) for row in rows):
            return super().encode(raw)
        for number, row in enumerate(rows, 1):
            if not isinstance(row, Mapping) or not {"image", "caption"} <= row.keys():
                has = f"has only {', '.join(map(str, row)) or 'nothing'}" if isinstance(row, Mapping) else "is no dict"
                raise DataError(f'row {number} {has}; give every row as {{"image": picture, "caption": text}}')
        pictures = super().encode([row["image"] for row in rows])
        return pictures | self.encode_prompts([str(row["caption"]) for row in rows])

    def encode_prompts(self, prompts: Iterable[str]) -> dict[str, Tensor]:
        """{"tokens": int64 (B, longest), 0 after the end, "lengths": int64 (B,)}; "" has length 0.

        Raises DataError that says which words the captions never used, or that a prompt is too long.
        """
        return self._tensors([self._checked(prompt) for prompt in prompts])

    def encode_captions(self, captions: Iterable[str]) -> dict[str, Tensor]:
        """As `encode_prompts` for captions of data: unknown words become <unk>, and what is too long is cut."""
        return self._tensors([self.vocab.encode_words(words(c))[: self.longest] for c in captions])

    def text(self, tokens: Tensor) -> str:
        """The words of ids (T,)."""
        return " ".join(self.vocab.piece(t) for t in tokens.tolist() if t)

    def example(self, batch: int = 2) -> Batch:
        """Zeros, and captions of one word."""
        tokens = torch.zeros(batch, self.longest, dtype=torch.int64)
        tokens[:, 0] = len(self.vocab) - 1
        x = torch.zeros(batch, self.channels, self.height, self.width)
        return {"x": x, "tokens": tokens, "lengths": torch.ones(batch, dtype=torch.int64)}

    def labelled(self, source: Any, rows: int = 256) -> Iterator[Batch]:
        """Captioned pictures of a folder or a caption file (data/captioned.py) as encoded batches; those that cannot be read
        are left out with a warning. Raises DataError, also when most cannot be read."""
        chunks = ([(row["image"], row["caption"]) for row in chunk] for chunk in self.answered(source, rows))
        for x, said in readable(self._frames, chunks):
            yield {"x": self.normalise(x), **self.encode_captions(said)}

    def answered(self, source: Any, rows: int = 256) -> Iterator[list[Any]]:
        """Rows {"image": path, "caption": text} of a folder or a caption file. Raises DataError."""
        from engram.data.captioned import read_captioned

        found = read_captioned(source)
        split = next(s for s in ("test", "val", "", "train") if found.rows.get(s))
        pairs = found.rows[split]
        for start in range(0, len(pairs), rows):
            yield [{"image": path, "caption": caption} for path, caption in pairs[start : start + rows]]

    def _checked(self, prompt: str) -> list[int]:
        said = words(prompt)
        known = self.vocab.pieces
        if unknown := list(dict.fromkeys(w for w in said if w not in set(known))):
            near = did_you_mean(unknown[0], known)
            more = f" and {len(known) - 40} more" if len(known) > 40 else ""
            shown = ", ".join(map(repr, unknown[:5]))
            raise DataError(
                f"the prompt {prompt[:80]!r} has {shown}, which the captions of this run never use{near}; "
                f"they use: {', '.join(sorted(known[:40]))}{more}"
            )
        if len(said) > self.longest:
            raise DataError(f"the prompt {prompt[:80]!r} has {len(said)} words; this run reads at most {self.longest}")
        return self.vocab.encode_words(said)

    def _tensors(self, rows: list[list[int]]) -> dict[str, Tensor]:
        tokens = torch.zeros(len(rows), self.longest, dtype=torch.int64)
        for number, ids in enumerate(rows):
            tokens[number, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
        return {"tokens": tokens, "lengths": torch.tensor([len(ids) for ids in rows], dtype=torch.int64)}
