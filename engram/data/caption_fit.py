"""From captions to the CaptionSpec: the words that are told apart, the longest caption, and what people should know."""

from __future__ import annotations

from typing import Literal

import numpy as np

from engram.core.data import Note, Summary
from engram.data.caption_spec import CaptionSpec, words
from engram.data.checks import check_size
from engram.data.pixels import Shape
from engram.data.survey import mean_std
from engram.data.vocabulary import UNK, Vocabulary

Scale = Literal["standard", "unit", "signed"]
LONGEST, WORDS = 64, 8192  # words of a caption that are read, and words that are told apart


def fit_spec(
    shape: Shape, said: dict[str, list[str]], total: np.ndarray, count: int, scale: Scale, source: str
) -> tuple[CaptionSpec, list[Note]]:
    """The spec of captions by split, and what to say about words that are lost.

    `total`: the moments (see survey.moments) of `count` training pictures, read for scale="standard".
    """
    cut = [words(c) for c in said["train"]]
    longest = max(map(len, cut))
    vocab = Vocabulary.train("word", [" ".join(c) for c in cut], WORDS, lower=True)
    if scale == "standard":
        mean, std = mean_std(total, count * shape.height * shape.width)
    else:
        mean, std = ((0.5 * (scale == "signed"),) * shape.channels, (0.5 if scale == "signed" else 1.0,) * shape.channels)
    spec = CaptionSpec(
        channels=shape.channels,
        height=shape.height,
        width=shape.width,
        mean=mean,
        std=std,
        crop=shape.crop,
        vocabulary=vocab.to_json(),
        longest=min(longest, LONGEST),
        source=source,
    )
    notes = [Note("warning", f"only the first {LONGEST} words of a caption are read")] if longest > LONGEST else []
    for split, listed in said.items():
        lost = sum(UNK in vocab.encode_words(words(c)) for c in listed)
        if lost:
            notes.append(Note("warning", f"{lost:,} of {len(listed):,} {split} captions have words that are not told apart"))
    return spec, notes


def caption_summary(name: str, spec: CaptionSpec, said: dict[str, list[str]], notes: tuple[Note, ...], sha256: str) -> Summary:
    """'pets: 6 captioned images 16x16x3, 12 words', with rows counted. Raises DataError below 3 rows."""
    total = sum(map(len, said.values()))
    more = check_size(total, name, allow=("tiny",))
    if "test" not in said:
        more.append(Note("info", "there is no test split: the last figures are those of val"))
    shape = f"{spec.height}x{spec.width}x{spec.channels}"
    return Summary(
        title=f"{name}: {total:,} captioned images {shape}, {len(spec.vocab.pieces):,} words",
        rows={split: len(listed) for split, listed in said.items()},
        facts={
            "words": len(spec.vocab.pieces),
            "longest caption": spec.longest,
            "bytes": total * spec.channels * spec.height * spec.width,
            "captions": said["train"][:5],
        },
        notes=(*notes, *more),
        sha256=sha256,
    )
