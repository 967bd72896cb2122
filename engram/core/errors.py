"""Errors that a person reads: one line that says what is wrong, where, and what to do. Each carries its exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EngramError(Exception):
    """Something Engram can explain. The command line prints the message without a traceback and exits with `exit_code`."""

    exit_code = 1


class RunError(EngramError):
    """A run folder that is missing, damaged, newer than this version, or cannot be written (exit code 1)."""


class ConfigError(EngramError):
    """An unknown recipe or knob, or a value of the wrong type or range (exit code 2)."""

    exit_code = 2


class DataError(EngramError):
    """Data that is missing, unreadable, or would teach the network nothing (exit code 3)."""

    exit_code = 3


class Diverged(EngramError):
    """A loss, gradient or weight stopped being a finite number (exit code 4)."""

    exit_code = 4


class OutOfMemory(EngramError):
    """The model, the batch or the data does not fit in memory (exit code 5)."""

    exit_code = 5


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """' (did you mean X?)' for the known word nearest to `word`, or '' when none is near.

    A dotted name also matches by its last part: `lr` suggests `optim.lr`.
    """
    names = list(known)
    tails = [n for n in names if n.rpartition(".")[2] == word]
    close = tails or difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    if not close:
        by_tail = {n.rpartition(".")[2]: n for n in names}
        close = [by_tail[t] for t in difflib.get_close_matches(word, list(by_tail), n=1, cutoff=0.6)]
    return f" (did you mean {close[0]}?)" if close else ""
