"""The command line: `engram COMMAND ...`. Data goes to stdout, talk to stderr; commands are imported when they are used."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from engram.app.cli.failures import exit_code_of
from engram.app.cli.group import cli
from engram.app.cli.output import prepare_streams

__all__ = ["cli", "main"]


def main(args: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 ok, 1 failed, 2 usage or config, 3 data, 4 diverged, 5 out of memory,
    130 interrupted. `args` are those of the process if not given."""
    given = list(sys.argv[1:] if args is None else args)
    prepare_streams()
    try:
        if instruction := os.environ.get("_ENGRAM_COMPLETE"):
            from engram.app.cli.complete import answer_shell

            return answer_shell(cli, instruction)
        with cli.make_context("engram", list(given), obj=given) as context:
            cli.invoke(context)
        sys.stdout.flush()
        return 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except (Exception, KeyboardInterrupt) as error:
        return exit_code_of(error, as_json="--json" in given)
