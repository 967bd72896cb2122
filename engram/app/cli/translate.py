"""engram translate: texts through a run that goes from text to text (translation, summaries)."""

from __future__ import annotations

from typing import Any

import click

from engram.app.cli.options import recipe_class, recipe_option, run_argument
from engram.app.cli.output import json_line, say
from engram.core.errors import DataError


@click.command("translate")
@run_argument
@click.argument("source", metavar="TEXT|FILE|-", type=click.Path(allow_dash=True))
@click.option("--beam", "beams", type=click.IntRange(1), metavar="N", help="Hypotheses kept at a time; 1 is greedy.")
@click.option("--penalty", type=click.FloatRange(0), metavar="A", help="Length penalty: above 0 favours longer texts.")
@click.option(
    "--no-repeat", "repeats", type=click.IntRange(0), metavar="N", help="No N tokens in a row twice.  [default: 3 in summaries]"
)
@click.option("--most", default=0, type=click.IntRange(0), metavar="N", help="Most tokens to write.  [default: by the source]")
@click.option(
    "--best", default=1, show_default=True, type=click.IntRange(1), metavar="N", help="Hypotheses to show (--beam or fewer)."
)
@click.option(
    "--attention", type=click.Path(dir_okay=False), metavar="PNG", help="Draw there where the run looked (first text)."
)
@click.option("--layer", type=click.IntRange(1), help="Layer to draw, from 1; the mean of all if not given.")
@click.option("--head", type=click.IntRange(1), help="Head to draw, from 1; the mean of all if not given.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines with scores; with --attention the weights too.")
@recipe_option
def command(
    run: str, source: str, beams: int | None, penalty: float | None, repeats: int | None, most: int, best: int,
    attention: str | None, layer: int | None, head: int | None, as_json: bool, recipe_file: str | None,
) -> None:  # fmt: skip
    """Translate a text, or every line of a file (- is standard input), with a run such as `engram train transformer` makes."""
    from engram.app.alignment import align, draw, translator_of
    from engram.app.run import load

    found = load(run, recipe=recipe_class(recipe_file))
    translator, spec = translator_of(found)
    some = False
    for names, rows in spec.read(source):
        texts = [spec.texts(row)[0] for row in rows]
        for name, text, hypotheses in zip(names, texts, translator.search(texts, beams, penalty, most, repeats), strict=True):
            if cut := spec.too_long(text):
                where = "the text" if name == text else name
                say(
                    f"{where} is {cut:,} tokens longer than the {spec.context - 1:,} that this run reads; "
                    "its end was not translated"
                )
            aligned = None
            if attention and not some:
                aligned = align(found, text, beams=beams, penalty=penalty)
                draw(aligned, attention, layer, head)
            some = True
            kept = [(spec.decode(h.ids), h) for h in hypotheses[:best]]
            if not as_json:
                click.echo("\n".join(line for line, _ in kept))
                continue
            said: dict[str, Any] = {"input": text, "text": kept[0][0]}
            said |= {"hypotheses": [{"text": t, "score": h.score, "log_probability": h.log_probability} for t, h in kept]}
            click.echo(json_line(said | ({"attention": aligned.to_json()} if aligned else {})))
    if not some:
        raise DataError(f"{source} holds no text")
