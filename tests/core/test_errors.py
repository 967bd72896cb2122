"""Errors for people: exit codes, and suggestions that help."""

from __future__ import annotations

import pytest

from engram.core.errors import ConfigError, DataError, Diverged, EngramError, OutOfMemory, RunError, did_you_mean

CODES = {EngramError: 1, RunError: 1, ConfigError: 2, DataError: 3, Diverged: 4, OutOfMemory: 5}


@pytest.mark.parametrize("kind", CODES)
def test_exit_codes(kind: type[EngramError]):
    assert kind.exit_code == CODES[kind]
    assert issubclass(kind, EngramError)


KNOWN = ["epochs", "clr", "batch", "optim.lr", "optim.weight_decay", "model.width", "seed"]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("lr", "optim.lr"),  # the last part alone
        ("epoch", "epochs"),
        ("weight_decay", "optim.weight_decay"),
        ("weightdecay", "optim.weight_decay"),
        ("optim.rl", "optim.lr"),
        ("widht", "model.width"),
        ("sede", "seed"),
    ],
)
def test_suggestions(word: str, meant: str):
    assert did_you_mean(word, KNOWN) == f" (did you mean {meant}?)"


@pytest.mark.parametrize("word", ["xyzzy", "", "0"])
def test_no_suggestion_when_nothing_is_near(word: str):
    assert did_you_mean(word, KNOWN) == ""
    assert did_you_mean(word, []) == ""
