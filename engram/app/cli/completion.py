"""engram completion: the script that teaches a shell to complete."""

from __future__ import annotations

import click

SETUP = """\b
Set up:
  bash  echo 'eval "$(engram completion bash)"' >> ~/.bashrc
  zsh   echo 'eval "$(engram completion zsh)"' >> ~/.zshrc
  fish  engram completion fish > ~/.config/fish/completions/engram.fish"""


@click.command("completion", epilog=SETUP)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the script that completes at TAB.

    It completes commands, recipes, runs, knobs and data.
    """
    from engram.app.cli.complete import script
    from engram.app.cli.group import cli

    click.echo(script(cli, shell), nl=False)
