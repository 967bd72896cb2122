"""engram sample: new pictures from a trained run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from engram.app.cli.options import json_option, recipe_class, recipe_option, run_argument
from engram.app.cli.output import emit, json_line, say


@click.command("sample")
@run_argument
@click.option("--n", "-n", default=16, show_default=True, type=click.IntRange(1), help="How many pictures.")
@click.option("--seed", default=0, show_default=True, type=int, help="Picture i of a seed is always the same one.")
@click.option("--output", "-o", type=click.Path(), metavar="FILE|DIR", help="A grid (.png), an array (.npy) or a folder.")
@click.option("--class", "--label", "label", metavar="NAME", help="Pictures of this class.")
@click.option("--prompt", metavar="TEXT", help="What the pictures shall show.")
@click.option("--negative", metavar="TEXT", help="What they shall not show.")
@click.option("--steps", type=int, help="Denoising steps: more is finer and slower.")
@click.option("--guidance", type=float, help="1 as learned; more holds closer to the class or prompt.")
@click.option("--sampler", metavar="NAME", help="ddpm, ddim, euler, heun or dpm++.")
@click.option("--temperature", type=float, help="Below 1: fewer surprises.")
@click.option("--top-k", type=int, help="Draw from the k most probable codes.")
@click.option("--image", type=click.Path(), metavar="FILE", help="A picture to start from, or with --mask to fill in.")
@click.option("--strength", type=float, help="How much of --image may change, 0 to 1.")
@click.option("--mask", type=click.Path(), metavar="FILE", help="A picture: white is made anew, black is kept.")
@click.option("--trajectory", type=click.Path(), metavar="FILE", help="A film of how they come to be, .gif or .png.")
@click.option("--chunk", default=64, show_default=True, type=click.IntRange(1), help="Pictures at a time: bounds the memory.")
@json_option
@recipe_option
def command(
    run: str, n: int, seed: int, output: str | None, image: str | None, mask: str | None, trajectory: str | None, chunk: int,
    as_json: bool, recipe_file: str | None, **wishes: Any,
) -> None:  # fmt: skip
    """Make new pictures with RUN and write them as a grid; the file's path goes to stdout.

    What a run takes beside n and seed depends on what it is: a class, a prompt, denoising steps and guidance.
    """
    from engram.app.pictures import check_film, write_film, write_samples
    from engram.app.run import load

    if trajectory is not None:
        check_film(Path(trajectory))
    found = load(run, recipe=recipe_class(recipe_file))
    chunks = found.sample(n, seed=seed, chunk=chunk, image=image, mask=mask, trajectory=trajectory is not None, **wishes)
    target = Path(output) if output else found.path / "samples" / f"seed-{seed}.png"
    written, first = write_samples(chunks, n, target)
    if trajectory is not None:
        write_film(first, Path(trajectory))
        say(f"film     {trajectory}")
    if as_json:
        film = {"trajectory": trajectory} if trajectory is not None else {}
        height, width, channels = first.arrays.shape[1:]
        emit(json_line({"n": n, "seed": seed, "path": written, "height": height, "width": width, "channels": channels} | film))
    else:
        emit(str(written))
