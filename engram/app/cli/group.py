"""The command `engram` and the table of its commands. A command's module is imported when the command is used or listed."""

from __future__ import annotations

import importlib
from typing import Any

import click

from engram import __version__
from engram.core.errors import did_you_mean

# command -> module of this package whose `command` it is, in the order of the help page
SECTIONS: dict[str, dict[str, str]] = {
    "Train": {"train": "train", "resume": "resume", "find-lr": "find_lr", "new": "new"},
    "Use": {
        "predict": "predict",
        "eval": "evaluate",
        "generate": "generate",
        "sample": "sample",
        "encode": "encode",
        "reconstruct": "reconstruct",
        "denoise": "denoise",
        "chat": "chat",
        "translate": "translate",
        "neighbours": "neighbours",
        "search": "search",
    },
    "Look": {"list": "listing", "report": "report", "compare": "compare", "inspect": "inspect", "tokenize": "tokenize"},
    "Set up": {"completion": "completion"},
}
_MODULES = {name: module for section in SECTIONS.values() for name, module in section.items()}

EPILOG = """\b
Start here:
  engram train                                   a small network on bundled data
  engram train houses.csv target=price           your own data: the network is picked
  engram predict runs/mlp-houses-001 new.csv

Data goes to stdout, talk to stderr. With --json, stdout is JSON, for failures too: {"error": "...", "exit_code": 3}.

Exit codes: 0 ok, 1 failed, 2 usage or configuration, 3 data, 4 diverged, 5 out of memory, 130 interrupted.

ENGRAM_DEBUG=1 shows tracebacks, NO_COLOR=1 switches colours off, ENGRAM_DATA=DIR holds data sets already downloaded."""


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports them one by one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of the help page."""
        return list(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, None if there is none."""
        if cmd_name not in _MODULES:
            return None
        return importlib.import_module(f"engram.app.cli.{_MODULES[cmd_name]}").command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with a hint for unknown names: the nearest command, or `train` before a recipe or file."""
        name = args[0]
        if name not in _MODULES and not name.startswith("-") and not ctx.resilient_parsing:
            raise click.UsageError(f"no command {name!r}{self._hint(name)}; `engram --help` lists them")
        return super().resolve_command(ctx, args)

    def _hint(self, name: str) -> str:
        from engram.app.pick import is_known

        return f" (did you mean engram train {name}?)" if is_known(name) else did_you_mean(name, _MODULES)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands under their sections."""
        for section, names in SECTIONS.items():
            rows: list[tuple[str, str]] = []
            for name in names:
                command = self.get_command(ctx, name)
                assert command is not None
                rows.append((name, command.get_short_help_str(limit=90)))
            with formatter.section(section):
                formatter.write_dl(rows)


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"engram {__version__}")
        ctx.exit()


SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 120}


@click.group("engram", cls=LazyGroup, context_settings=SETTINGS, epilog=EPILOG, invoke_without_command=True)
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version.")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Every kind of neural network trained, looked into, put right, reused and served in the same way."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
