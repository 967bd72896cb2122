"""The arguments of `train` and `find-lr`: one recipe or path, and key=value anywhere."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any

import click

from engram.core.errors import EngramError, did_you_mean

_KNOB = re.compile(r"([A-Za-z_]\w*(?:\.\w+)*)=(.*)", re.DOTALL)
_WORD = re.compile(r"[A-Za-z_][\w.-]*")


def split_arguments(arguments: Sequence[str]) -> tuple[str | None, dict[str, str]]:
    """(recipe or path, knobs) of the words after the command; of a key given twice the last counts.

    Raises UsageError on a word that is neither, with the way to write it.
    """
    knobs: dict[str, str] = {}
    words: list[str] = []
    for argument in arguments:
        if found := _KNOB.fullmatch(argument):
            knobs[found[1]] = found[2]
        else:
            words.append(argument)
    if len(words) > 1:
        raise click.UsageError(_unexpected(words))
    return (words[0] if words else None), knobs


def choose(arguments: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """What to train: the recipe or path named; else what suits data=...; else cnn, which has data of its own."""
    recipe, knobs = split_arguments(arguments)
    if recipe is None and "data" in knobs:
        return knobs.pop("data"), dict(knobs)
    return ("cnn" if recipe is None else recipe), dict(knobs)


def _unexpected(words: list[str]) -> str:
    from engram.app.pick import is_known

    first = 1 if is_known(words[0]) or not _WORD.fullmatch(words[0]) else 0
    key, *rest = words[first:]
    value = next((w for w in rest if w != "="), None)
    if value is None or not _WORD.fullmatch(key):
        return f"unexpected argument {key!r}; knobs are written key=value, and there is one recipe or path"
    return f"unexpected argument {key!r}; write {_nearest(key, words[:first])}={value}"


def _nearest(key: str, words: Sequence[str]) -> str:
    """The knob that `key` means: `lr` is `optim.lr`."""
    keys = knob_keys(next(iter(words), "cnn"))
    found = re.search(r"did you mean (\S+)\?", did_you_mean(key, keys))
    return key if key in keys or not found else found[1]


def knob_keys(recipe: str) -> list[str]:
    """The knobs of a recipe or of the one that would be picked for a path; none when it cannot be told."""
    from engram.app.pick import pick
    from engram.core.knobs import knobs_of
    from engram.recipes import find

    try:
        name: Any = pick(recipe, {})[0]
        return list(knobs_of(find(name)))
    except EngramError:
        return []


class KnobCommand(click.Command):
    """A command with knobs: an unknown option such as --epochs 5 is answered with the way to write it, epochs=5."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does."""
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise click.UsageError(self._hint(ctx, error.option_name, given)) from None

    def _hint(self, ctx: click.Context, option: str, given: list[str]) -> str:
        place = next((i for i, word in enumerate(given) if word.partition("=")[0] == option), len(given))
        _, equals, value = next(iter(given[place:]), "").partition("=")
        after = next((w for w in given[place + 1 :] if not w.startswith("-") and "=" not in w), "...")
        recipes = [w for w in given[:place] if not w.startswith("-") and "=" not in w]
        word = option.lstrip("-").replace("-", "_")
        keys = knob_keys(next(iter(recipes), "cnn"))
        own = [name for param in self.get_params(ctx) for name in param.opts if name.startswith("--")]
        near = difflib.get_close_matches(option, own, n=1, cutoff=0.6)
        if near and word not in {k for key in keys for k in (key, key.rpartition(".")[2])}:
            return f"no option {option} (did you mean {near[0]}?)"
        return f"no option {option}; knobs have no dashes: write {_nearest(word, recipes)}={value if equals else after}"
