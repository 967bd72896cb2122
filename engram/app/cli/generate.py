"""engram generate: text from a trained language model, printed as it comes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import click

from engram.app.cli.options import recipe_class, recipe_option, run_argument
from engram.app.cli.output import json_line, say
from engram.core.errors import ConfigError, DataError

FORMS = ("auto", "fp32", "bf16", "int8", "int4")


@click.command("generate")
@run_argument
@click.argument("prompt", required=False, metavar="[PROMPT|-]")
@click.option("--tokens", default=200, show_default=True, type=click.IntRange(1), help="Longest continuation, in tokens.")
@click.option(
    "--temperature", default=1.0, show_default=True, type=click.FloatRange(0), help="0 takes the most probable token."
)
@click.option("--top-k", default=0, show_default=True, type=click.IntRange(0), help="Only the k most probable; 0 = all.")
@click.option(
    "--top-p", default=1.0, show_default=True, type=click.FloatRange(0, 1, min_open=True), help="The fewest with this sum."
)
@click.option(
    "--min-p", default=0.0, show_default=True, type=click.FloatRange(0, 1, max_open=True), help="Share of the best one's."
)
@click.option(
    "--repetition", default=1.0, show_default=True, type=click.FloatRange(0, min_open=True), help="Above 1 repeats less."
)
@click.option("--stop", multiple=True, metavar="TEXT", help="End before this text; may be given several times.")
@click.option("--seed", default=0, show_default=True, type=int)
@click.option("--samples", default=1, show_default=True, type=click.IntRange(1), help="Continuations of each prompt.")
@click.option(
    "--beams", default=1, show_default=True, type=click.IntRange(1), help="Search for the most probable text instead."
)
@click.option("--probs", default=0, metavar="K", type=click.IntRange(0), help="Print each token with its K best alternatives.")
@click.option(
    "--draft", default=None, metavar="RUN", type=click.Path(), help="A smaller run that proposes tokens: same text, sooner."
)
@click.option("--weights", default="auto", show_default=True, type=click.Choice(FORMS), help="Number format of the weights.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines: one object per continuation, with its tokens.")
@recipe_option
def command(
    run: str,
    prompt: str | None,
    tokens: int,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    repetition: float,
    stop: tuple[str, ...],
    seed: int,
    samples: int,
    beams: int,
    probs: int,
    draft: str | None,
    weights: str,
    as_json: bool,
    recipe_file: str | None,
) -> None:
    """Continue PROMPT with a trained run; - reads it from standard input, and without it a new document begins.

    Several samples are printed one after another, with an empty line between.
    """
    from engram.inference.sampling import Sampling

    Sampling(temperature, top_k, top_p, min_p, repetition, seed).check()
    rows = beams if beams > 1 else samples
    writer = _writer(run, weights, rows, recipe_file)
    helper = _writer(draft, weights, 1, None) if draft is not None else None
    given = _prompt(prompt)
    (gone,) = writer.left_out(given)
    if gone:
        say(f"the prompt is longer than the {writer.context} tokens that this run sees at once: its first {gone} are left out")
    pieces = writer.stream(
        given, tokens=tokens, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition=repetition, stop=stop,
        seed=seed, probs=probs, samples=samples, beams=beams, draft=helper,
    )  # fmt: skip
    if as_json:
        _json(pieces, prompt, given, samples, gone, writer.ends)
    elif probs:
        _table(pieces, samples)
    else:
        _text(pieces, samples)


def _writer(run: str, weights: str, rows: int, recipe_file: str | None) -> Any:
    """The generator of a run, with the asked weights. Raises ConfigError when the run is no language model."""
    import torch

    from engram.app.machine import has_bf16
    from engram.app.run import load
    from engram.inference.generate import Generator

    found = load(run, recipe=recipe_class(recipe_file))
    if not isinstance(found.predictor, Generator):
        raise ConfigError(
            f"{run} is a {found.info['recipe']} run, which writes no text; for its predictions: engram predict {run}"
        )
    device = next(found.model.parameters()).device
    chosen = found.predictor.use(weights, rows=rows, bf16=has_bf16(torch.device(device)))
    if chosen != "fp32":
        say(f"weights of {run} as {chosen}" + (" (--weights fp32 keeps them as trained)" if weights == "auto" else ""))
    return found.predictor


def _prompt(prompt: str | None) -> str | None:
    if prompt != "-":
        return prompt
    from engram.data.text_input import decode_bytes

    data = sys.stdin.buffer.read()
    if not data:
        raise DataError("standard input is empty; pipe the prompt in, or leave out - to start a new document")
    return decode_bytes(data, "standard input")[0].removesuffix("\n")


def _show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _text(pieces: Iterator[Any], samples: int) -> None:
    """The first sample as it comes; the others, written at the same time, after it."""
    later = [""] * samples
    at, ended = 0, [False] * samples
    try:
        for piece in pieces:
            ended[piece.row] = ended[piece.row] or piece.last
            later[piece.row] += piece.text
            while at < samples:
                _show(later[at])
                later[at] = ""
                if not ended[at]:
                    break
                at += 1
                _show("\n" if at == samples else "\n\n")
    except KeyboardInterrupt:
        _show("\n")
        raise


def _table(pieces: Iterator[Any], samples: int) -> None:
    """One line per token: its text and probability, then the alternatives."""
    for piece in pieces:
        token = piece.token
        others = "  ".join(f"{o['token']!r} {o['probability']:.3f}" for o in token["alternatives"])
        number = f"{piece.row + 1}\t" if samples > 1 else ""
        _show(f"{number}{token['token']!r} {token['probability']:.3f}\t{others}\n")


def _json(pieces: Iterator[Any], name: str | None, prompt: str | None, samples: int, gone: int, ends: frozenset[int]) -> None:
    """One object per sample, as soon as it is whole."""
    texts: list[str] = [""] * samples
    tokens: list[list[dict[str, Any]]] = [[] for _ in range(samples)]
    for piece in pieces:
        texts[piece.row] += piece.text
        tokens[piece.row].append(piece.token)
        if piece.last:
            found = {"input": "-" if name == "-" else prompt, "sample": piece.row, "text": texts[piece.row]}
            ended = piece.token["id"] in ends
            _show(json_line(found | {"ended": ended, "left_out": gone, "tokens": tokens[piece.row]}) + "\n")
