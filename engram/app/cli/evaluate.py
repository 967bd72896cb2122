"""engram eval: how good a run is on unseen data, with 95 % intervals; and how good the pictures are that it makes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from engram.app.cli.options import json_option, recipe_class, recipe_option, run_argument
from engram.app.cli.output import emit, emit_json, emit_table, number, say

if TYPE_CHECKING:
    from engram.app.run import Run

WORDS = {
    "fid": "Frechet distance, 0 is best", "kid": "kernel distance, 0 is best", "precision": "share that could be real",
    "recall": "share of the real ones within reach", "density": "how deep among the real ones, about 1",
    "coverage": "share of the real ones with a sample nearby",
}  # fmt: skip


@click.command("eval")
@run_argument
@click.argument("path", required=False, type=click.Path())
@click.option("--fidelity", is_flag=True, help="Measure the pictures that RUN makes beside the test pictures of its data.")
@click.option("--composition", is_flag=True, help="Count how often pictures show what the words of a prompt ask.")
@click.option("--n", type=int, help="How many pictures are made: 1000 for fidelity, 480 of each group for composition.")
@click.option("--judge", type=click.Path(), metavar="RUN|FILE", help="Fidelity: your own classifier, or Inception weights.")
@click.option("--train-on-samples", default=0, type=int, metavar="N", help="Fidelity: train a classifier on N samples only.")
@click.option("--seed", default=0, show_default=True, type=int, help="Of the pictures.")
@click.option("--steps", type=int, help="Denoising steps.")
@click.option("--guidance", type=float, help="1 as learned; more holds closer to the class or prompt.")
@click.option("--sampler", metavar="NAME", help="ddpm, ddim, euler, heun or dpm++.")
@click.option("--temperature", type=float, help="Below 1: fewer surprises.")
@click.option("--top-k", type=int, help="Draw from the k most probable codes.")
@click.option("--chunk", default=64, show_default=True, type=click.IntRange(1), help="Pictures at a time.")
@json_option
@recipe_option
def command(
    run: str, path: str | None, fidelity: bool, composition: bool, n: int | None, judge: str | None, train_on_samples: int,
    seed: int, chunk: int, as_json: bool, recipe_file: str | None, **wishes: Any,
) -> None:  # fmt: skip
    """Figures with 95 % intervals on unseen data.

    They are those of the run's own test split, or of labelled data at PATH in the form that the run was trained on. With
    --fidelity: FID, KID, precision and recall of new pictures, which classes occur among them, written to RUN/fidelity.json.
    With --composition: the share of pictures that show what was asked, of combinations of words that training never had and of
    others, as a classifier trained apart sees it, written to RUN/composition.json.
    """
    from engram.app.run import load

    if fidelity and composition:
        raise click.UsageError("--fidelity and --composition are two measurements: ask for one at a time")
    given = {name: value for name, value in wishes.items() if value is not None}
    _check_asked("fidelity" if fidelity else "composition" if composition else "", path,
                 [*(["n"] if n is not None else []), *given],
                 [*(["judge"] if judge else []), *(["train_on_samples"] if train_on_samples else [])])  # fmt: skip
    found = load(run, recipe=recipe_class(recipe_file))
    if fidelity:
        result = _fidelity(found, judge, n=1000 if n is None else n, train_on=train_on_samples, seed=seed, chunk=chunk, **given)
    elif composition:
        result = _composition(found, n=480 if n is None else n, seed=seed, chunk=chunk, **given)
    else:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: say(f"warning  {message}")
            result = found.evaluate(path)
    if as_json:
        emit_json(result)
    elif fidelity:
        show_fidelity(result)
    elif composition:
        show_composition(result)
    else:
        show(result)


def _check_asked(measured: str, path: str | None, of_both: list[str], of_fidelity: list[str]) -> None:
    """Raises UsageError when something was given that would mean nothing."""
    if measured and path:
        raise click.UsageError(f"--{measured} measures new pictures beside the run's own data: leave {path} out")
    unused = [*([] if measured else of_both), *([] if measured == "fidelity" else of_fidelity)]
    if unused:
        to = "--fidelity" if unused[0] in of_fidelity else "--fidelity or --composition"
        what = f"leave it out, or ask for {to} in place of --{measured}" if measured else "name it too"
        raise click.UsageError(f"--{unused[0].replace('_', '-')} belongs to {to}: {what}")


def _fidelity(run: Run, judge: str | None, **asked: Any) -> dict[str, Any]:
    from engram.app.fidelity import fidelity
    from engram.app.judge import judge_named

    return fidelity(run, lambda data: judge_named(judge, run.recipe, data, say), say=say, **asked)


def _composition(run: Run, **asked: Any) -> dict[str, Any]:
    from engram.app.composition import composition

    return composition(run, say=say, **asked)


def show(result: dict[str, Any]) -> None:
    """The figures as tables: one line each with its interval, then one line per class."""
    metrics = result.get("metrics") or {}
    say(f"{result.get('verdict', '')}".strip() or "no figures")
    emit_table(["METRIC", "VALUE", "95 % LOW", "95 % HIGH"], list(_figures(metrics)), right=[1, 2, 3])
    if per_class := metrics.get("per_class"):
        emit("")
        heads = list(per_class[0])
        rows = [[number(row[head]) for head in heads] for row in per_class]
        emit_table([head.upper() for head in heads], rows, right=range(1, len(heads)))


def show_fidelity(result: dict[str, Any]) -> None:
    """Samples beside as many real training pictures, then the classes and the classifier trained on samples."""
    say(f"judge    {result['judge']}")
    say(f"beside   {result['real']:,} real pictures of the {result['split']} split")
    made, real = result["samples"], result["training"]
    rows = [[name, _with(made, name), _with(real, name), words] for name, words in WORDS.items()]
    if modes := result.get("modes"):
        rows.append(["classes", f"{modes['coverage']:.0%}", "", "of the classes occur"])
        rows.append(
            ["entropy", number(modes["entropy"]), number(modes["even"]), "nats, of the classes; right: if all were equal"]
        )
    if asked := result.get("asked"):
        rows.append(["as asked", f"{asked['value']:.1%}", "", "show the class that was asked"])
    if trained := result.get("train_on_samples"):
        text = f"on real pictures, of a classifier trained on {trained['rows']:,} of these only (labels: {trained['labels']})"
        rows.append(["accuracy", f"{trained['samples']['value']:.1%}", f"{trained['training']['value']:.1%}", text])
    emit_table(["METRIC", f"{result['n']:,} SAMPLES", "REAL TRAINING", "WHAT"], rows, right=[1, 2])
    if modes:
        emit("")
        shares = [[row["class"], f"{row['samples']:.1%}", f"{row['real']:.1%}"] for row in modes["classes"]]
        emit_table(["CLASS", "SAMPLES", "REAL TEST"], shares, right=[1, 2])


def show_composition(result: dict[str, Any]) -> None:
    """Shares of pictures that show what was asked, by group, and the prompts that failed most."""
    say(f"judge    {result['judge']}")
    rows: list[list[str]] = []
    for group, found in result["groups"].items():
        for name, share in found.items():
            if isinstance(share, dict):
                what = "as asked" if name == "all" else name
                rows.append([group, what, f"{share['value']:.1%}", f"{share['low']:.1%}", f"{share['high']:.1%}"])
    emit_table(["PROMPTS", "WHAT", "RIGHT", "95 % LOW", "95 % HIGH"], rows, right=[2, 3, 4])
    failed = [[f["prompt"], f"{f['wrong']} of {f['rows']}"] for found in result["groups"].values() for f in found["failed"]]
    if failed:
        emit("")
        emit_table(["PROMPT", "WRONG"], failed[:10], right=[1])


def _with(figures: dict[str, float], name: str) -> str:
    spread = f" +- {figures['kid_std']:.2g}" if name == "kid" else ""
    return number(round(figures[name], 4)) + spread


def _figures(metrics: dict[str, Any]) -> Iterator[list[str]]:
    """Rows of name, value, low, high for {"value", "low", "high"}; plain numbers have no interval."""
    for name, value in metrics.items():
        if isinstance(value, dict) and "value" in value:
            yield [name, number(value["value"]), number(value["low"]), number(value["high"])]
        elif isinstance(value, (int, float)):
            yield [name, number(value), "", ""]
