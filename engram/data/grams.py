"""N-grams of a text by hashing: its words and pairs of words, and its runs of 2 to 5 characters, as numbers below a size.

Weinberger et al. 2009 (hashing in place of a dictionary), Bojanowski et al. 2017 (characters tell what a word that training
never saw has in common with others). Differs: runs of characters cross from one word to the next, so they hold short phrases.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

WORDS = (1, 2)  # words of an n-gram, from and to
LETTERS = (2, 5)  # characters of an n-gram, spaces included
_STEP, _MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)  # odd numbers of SplitMix64 (Steele et al. 2014)


def hashed(words: Sequence[str], size: int) -> np.ndarray:
    """The different n-grams of a text as sorted int32 ids: 1 to size / 2 - 1 of words, size / 2 to size - 1 of characters.

    0 stands for none. Two n-grams may share an id, the more seldom the larger `size` (at least 4).
    """
    half = size // 2
    coded = np.array([zlib.crc32(w.encode()) for w in words], np.uint64)
    letters = np.frombuffer(f" {' '.join(words)} ".encode("utf-32-le"), "<u4").astype(np.uint64)
    of_words = _runs(coded, *WORDS) % np.uint64(half - 1) + np.uint64(1)
    of_letters = _runs(letters, *LETTERS) % np.uint64(size - half) + np.uint64(half)
    return np.unique(np.concatenate([of_words, of_letters])).astype(np.int32)


def _runs(codes: np.ndarray, least: int, most: int) -> np.ndarray:
    """A number for every run of `least` to `most` codes; equal runs have equal numbers, wherever they stand."""
    found, run = [], np.zeros(len(codes), np.uint64)
    for n in range(1, min(most, len(codes)) + 1):
        run = (run[: len(codes) - n + 1] + codes[n - 1 :] + np.uint64(n)) * _STEP
        run ^= run >> np.uint64(29)
        if n >= least:
            found.append(run * _MIX >> np.uint64(32))
    return np.concatenate(found) if found else np.zeros(0, np.uint64)
