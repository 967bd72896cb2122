"""Cutting a sentence into words as corpora of tagged words do: signs at the ends of a word stand apart, those inside stay."""

from __future__ import annotations

import re

_WHOLE = re.compile(r"https?://\S+|www\.\S+|[@#]\w+|(?:\w\.){2,}|\.{2,}|[:;=][-']?[()DPp/\\|]", re.UNICODE)
_SIGNS = re.compile(r"^([^\w\s@#$€£]*)(.*?)([^\w\s%$€£]*)$", re.DOTALL)


def cut_words(text: str) -> list[str]:
    """'He lives in the U.S., near @bob.' -> He lives in the U.S. , near @bob ."""
    words: list[str] = []
    for piece in text.split():
        if _WHOLE.fullmatch(piece):
            words.append(piece)
            continue
        match = _SIGNS.match(piece)
        before, body, after = match.groups() if match else ("", piece, "")
        if after and _WHOLE.fullmatch(body + after[0]):  # the dot of U.S. is part of it
            body, after = body + after[0], after[1:]
        words += [*before, *([body] if body else []), *after]
    return words
