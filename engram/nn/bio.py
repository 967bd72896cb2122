"""BIO tags: which may follow which, and the spans that a sequence of them names.

"B-X" begins an entity of type X, "I-X" goes on with it, "O" is outside. Spans are those of conlleval (Tjong Kim Sang &
De Meulder 2003): an "I-X" that follows no tag of type X begins an entity too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

IGNORE = -100  # the tag of a word that has none


def constraints(tags: Sequence[str]) -> tuple[Tensor, Tensor]:
    """(allowed (tags, tags) from row to column, starts (tags,)), bool: "I-X" only after "B-X" or "I-X"; any tag may end."""
    inside = [tag[2:] if tag.startswith("I-") else "" for tag in tags]
    allowed = [[not kind or before[2:] == kind for kind in inside] for before in tags]
    return torch.tensor(allowed), torch.tensor([not kind for kind in inside])


def spans(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """Entities (type, first word, word after the last) of one sentence, in order."""
    found: list[tuple[str, int, int]] = []
    for place, tag in enumerate(tags):
        kind = tag[2:]
        if tag.startswith("I-") and found and found[-1][0] == kind and found[-1][2] == place:
            found[-1] = (kind, found[-1][1], place + 1)
        elif tag[:2] in ("B-", "I-"):
            found.append((kind, place, place + 1))
    return found


def count(paths: Tensor, tags: Tensor, names: tuple[str, ...]) -> Tensor:
    """Per row (rows, 5) float64: words right, words with a tag, entities right, entities predicted, entities there are.

    `paths` (rows, T) are predicted; words whose `tags` (rows, T) are -100 do not count.
    """
    rows = []
    for path, gold in zip(paths.tolist(), tags.tolist(), strict=True):
        pairs = [(p, g) for p, g in zip(path, gold, strict=True) if g != IGNORE]
        found = set(spans([names[p] if p >= 0 else "O" for p, _ in pairs]))
        wanted = set(spans([names[g] for _, g in pairs]))
        rows.append([sum(p == g for p, g in pairs), len(pairs), len(found & wanted), len(found), len(wanted)])
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, 5)
