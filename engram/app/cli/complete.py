"""What the shell offers at TAB. Recipes, runs and data come without importing torch; knobs need the recipe itself."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Mapping

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    ShellComplete,
    ZshComplete,
    get_completion_class,
    shell_complete,
)

_VARIABLE = "_ENGRAM_COMPLETE"

# As click's own, but no space is added after `epochs=`, where the value follows.
_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' line kind value
    COMPREPLY=()
    for line in $(env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD %(complete_var)s=bash_complete $1); do
        kind="${line%%,*}" value="${line#*,}"
        case "$kind" in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("$value"); [[ $value == *= || $value == */ ]] && compopt -o nospace ;;
        esac
    done
    return 0
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""
_ZSH = """\
#compdef %(prog_name)s

%(complete_func)s() {
    local -a words_done words_open response
    (( ! $+commands[%(prog_name)s] )) && return 1
    response=("${(@f)$(env COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) %(complete_var)s=zsh_complete %(prog_name)s)}")
    for type key descr in ${response}; do
        if [[ "$type" == "dir" ]]; then
            _path_files -/
        elif [[ "$type" == "file" ]]; then
            _path_files -f
        elif [[ "$key" == *= || "$key" == */ ]]; then
            words_open+=("$key")
        else
            words_done+=("$key")
        fi
    done
    [ -n "$words_done" ] && compadd -U -V unsorted -a words_done
    [ -n "$words_open" ] && compadd -U -S '' -V unsorted -a words_open
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""


class Bash(BashComplete):
    """click's, with the script above."""

    source_template = _BASH


class Zsh(ZshComplete):
    """click's, with the script above."""

    source_template = _ZSH


def _class(shell: str) -> type[ShellComplete]:
    found = {"bash": Bash, "zsh": Zsh}.get(shell) or get_completion_class(shell)
    assert found is not None
    return found


def script(cli: click.Command, shell: str) -> str:
    """The script that `engram completion SHELL` prints."""
    maker = _class(shell)(cli, {}, "engram", _VARIABLE)
    return maker.source_template % maker.source_vars()


def answer_shell(cli: click.Command, instruction: str) -> int:
    """Answer one question of a shell, as those scripts put it: `bash_complete` and the words in COMP_WORDS."""
    shell, _, wanted = instruction.partition("_")
    if wanted == "complete" and shell in ("bash", "zsh"):
        click.echo(_class(shell)(cli, {}, "engram", _VARIABLE).complete())
        return 0
    return shell_complete(cli, {}, "engram", _VARIABLE, instruction)


def complete_run(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Run folders in ./runs, newest first, then folders."""
    from engram.app.cli.listing import run_folders

    found = [CompletionItem(str(path)) for path in run_folders() if str(path).startswith(incomplete)]
    return [*found, *(CompletionItem(p) for p in _paths(incomplete) if p.rstrip("/") not in {c.value for c in found})]


def complete_train(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """First a recipe, data set or path; then the knobs of the recipe; after `data=` data, after `depth=` its choices."""
    from engram.data.sources import BUILT_IN
    from engram.recipes import names, summary

    before = [str(word) for word in ctx.params.get(param.name or "", ()) or ()]
    key, equals, start = incomplete.partition("=")
    # bash breaks words at '=', so `data=di` arrives as data, =, di: what was typed before is then only the key
    if not equals and before and (before[-1] == "=" or _is_key(before[-1], before)):
        key, start = (before[-2] if before[-1] == "=" else before[-1]), incomplete.removeprefix("=")
        return [CompletionItem(value) for value in _values(key, start, _recipe(before))]
    if equals:
        return [CompletionItem(f"{key}={value}") for value in _values(key, start, _recipe(before))]
    recipe = _recipe(before)
    found: list[CompletionItem] = []
    if recipe is None:
        found += [CompletionItem(name, help=summary(name)) for name in names() if name.startswith(incomplete)]
        found += [CompletionItem(n, help=s.description) for n, s in BUILT_IN.items() if n.startswith(incomplete)]
        found += [CompletionItem(path) for path in _paths(incomplete)]
    else:
        known = _knobs(recipe)
        found += [CompletionItem(f"{k}=", help=text) for k, (text, _) in known.items() if k.startswith(incomplete)]
    return found


def _recipe(before: list[str]) -> str | None:
    """The recipe or path among the words: the first that is no part of a key=value."""
    words = [w for i, w in enumerate(before) if "=" not in w and before[i - 1 : i] != ["="] and before[i + 1 : i + 2] != ["="]]
    return words[0] if words else None


def _is_key(word: str, before: list[str]) -> bool:
    """Whether a bare last word is the key of a value being typed (bash, just after the '=')."""
    recipe = _recipe(before)
    return recipe is not None and word != recipe and bool(re.fullmatch(r"[\w.]+", word)) and word in _knobs(recipe)


def _values(key: str, start: str, recipe: str | None) -> Iterator[str]:
    from engram.data.sources import BUILT_IN

    if key == "data":
        yield from (name for name in BUILT_IN if name.startswith(start))
    if key in ("data", "test"):
        yield from _paths(start)
    elif key == "start_from":
        from engram.app.cli.listing import run_folders

        yield from (str(path) for path in run_folders() if str(path).startswith(start))
    else:
        choices = _knobs(recipe or "cnn").get(key, ("", ()))[1]
        yield from (choice for choice in choices if choice.startswith(start))


def _knobs(recipe: str) -> Mapping[str, tuple[str, tuple[str, ...]]]:
    """Key -> (help, choices) of a recipe, or of the one that would be picked for a path; empty when it cannot be told."""
    from engram.app.pick import pick
    from engram.core.errors import EngramError
    from engram.core.knobs import knobs_of
    from engram.recipes import find

    if recipe.endswith(".py"):
        return {}  # pressing TAB must not run the user's file
    try:
        found = knobs_of(find(pick(recipe, {})[0]))
    except EngramError:
        return {}
    switch = ("true", "false")
    return {key: (k.help, k.choices or (switch if isinstance(k.default, bool) else ())) for key, k in found.items()}


def _paths(start: str) -> list[str]:
    """Files and folders that begin with `start`; folders end with '/'."""
    expanded = os.path.expanduser(start)
    found = sorted(glob.glob(glob.escape(expanded) + "*"))
    return [start + path[len(expanded) :] + ("/" if os.path.isdir(path) else "") for path in found]
