"""engram neighbours: what word vectors know, of a run or of a file: near words, analogies, figures; and writing them out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from engram.app.cli.complete import complete_run
from engram.app.cli.options import json_option, recipe_class, recipe_option
from engram.app.cli.output import emit_json, emit_table, number, say

if TYPE_CHECKING:
    from torch import Tensor


@click.command("neighbours")
@click.argument("run", metavar="RUN|FILE", type=click.Path(), shell_complete=complete_run)
@click.argument("words", metavar="[WORD]...", nargs=-1)
@click.option("--analogy", "questions", multiple=True, metavar='"A B C"', help="A is to B as C is to what.")
@click.option("--most", default=10, show_default=True, type=click.IntRange(1), help="Words to show for each.")
@click.option("--evaluate", is_flag=True, help="WordSim-353, SimLex-999 and Google analogies from the folder ENGRAM_DATA.")
@click.option("--save", type=click.Path(dir_okay=False), metavar="FILE", help="Write the vectors there as word2vec text.")
@json_option
@recipe_option
def command(
    run: str, words: tuple[str, ...], questions: tuple[str, ...], most: int, evaluate: bool, save: str | None,
    as_json: bool, recipe_file: str | None,
) -> None:  # fmt: skip
    """The words nearest to each WORD, with their cosine.

    RUN is a run of word2vec or glove; FILE holds vectors in the word2vec text, word2vec binary or GloVe text format.
    """
    from engram.core.errors import ConfigError
    from engram.data.vectors import save_vectors

    if not (words or questions or evaluate or save):
        raise ConfigError('nothing to do: give words, --analogy "man king woman", --evaluate or --save FILE')
    names, vectors = open_vectors(run, recipe_file)
    if save:
        save_vectors(save, names, vectors)
        say(f"{len(names):,} vectors of {vectors.shape[1]} numbers written to {save}")
    found: dict[str, Any] = {}
    if words or questions:
        found |= near(names, vectors, words, questions, most)
    if evaluate:
        found |= {"evaluation": figures(names, vectors)}
    if as_json:
        emit_json(found)
    else:
        _show(found)


def open_vectors(source: str, recipe_file: str | None = None) -> tuple[list[str], Tensor]:
    """Words and vectors of a run folder or of a file of vectors. Raises RunError, ConfigError, DataError."""
    from pathlib import Path

    from engram.app.run import load
    from engram.core.errors import ConfigError
    from engram.data.vectors import load_vectors
    from engram.inference.neighbours import Neighbours

    if Path(source).is_file():
        return load_vectors(source)
    predictor = load(source, recipe=recipe_class(recipe_file)).predictor
    if not isinstance(predictor, Neighbours):
        raise ConfigError(f"{source} holds no word vectors: give a run of word2vec or glove, or a file of vectors")
    return list(predictor.words), predictor.vectors


def near(names: list[str], vectors: Tensor, words: tuple[str, ...], questions: tuple[str, ...], most: int) -> dict[str, Any]:
    """{"neighbours": {word: [...]}, "analogies": {question: [...]}}. Raises DataError when a word has no vector."""
    import torch

    from engram.core.errors import ConfigError, DataError, did_you_mean
    from engram.inference.neighbours import analogy, nearest, unit
    from engram.insight.similarity import lookup

    find = lookup(names)

    def place(word: str) -> int:
        found = find(word)
        if found is None:
            raise DataError(f"{word!r} has no vector among {len(names):,} words{did_you_mean(word.lower(), names[:20_000])}")
        return found

    def rows(cosines: Tensor, numbers: Tensor) -> list[dict[str, Any]]:
        pairs = zip(numbers[0].tolist(), cosines[0].tolist(), strict=True)
        return [{"word": names[n], "similarity": round(c, 4)} for n, c in pairs]

    units = unit(vectors)
    found: dict[str, Any] = {"neighbours": {}, "analogies": {}}
    for word in words:
        at = torch.tensor([[place(word)]])
        found["neighbours"][word] = rows(*nearest(units, units[at[:, 0]], most, at))
    for question in questions:
        asked = question.split()
        if len(asked) != 3:
            raise ConfigError(f'--analogy takes three words, as in "man king woman"; got {question!r}')
        found["analogies"][question] = rows(*analogy(units, torch.tensor([[place(w) for w in asked]]), most))
    return found


def figures(names: list[str], vectors: Tensor) -> dict[str, dict[str, float]]:
    """The lists under ENGRAM_DATA and how the vectors do on them. Raises DataError when there are none."""
    from engram.core.errors import DataError
    from engram.data.vectors import judgements
    from engram.insight.similarity import analogies, lookup, pairs

    lists = judgements()
    if not (lists.pairs or lists.questions):
        raise DataError(
            "no lists to evaluate on: set ENGRAM_DATA to a folder with wordsim/EN-WS-353-ALL.txt, wordsim/EN-SIMLEX-999.txt "
            "or google_analogies/questions-words.txt"
        )
    find = lookup(names)
    found = {name: pairs(vectors, find, judged) for name, judged in lists.pairs.items()}
    return found | {name: analogies(vectors, find, asked) for name, asked in lists.questions.items()}


def _show(found: dict[str, Any]) -> None:
    for kind, text in (("neighbours", "{}"), ("analogies", "{} ?")):
        for asked, rows in found.get(kind, {}).items():
            emit_table([text.format(asked).upper() if kind == "neighbours" else f"{asked} ?", "COSINE"],
                       [[row["word"], f"{row['similarity']:.4f}"] for row in rows], right=[1])  # fmt: skip
    if "evaluation" in found:
        rows = [
            [name, next(iter(f)), number(next(iter(f.values()))), number(f["covered"]), number(list(f.values())[2])]
            for name, f in found["evaluation"].items()
        ]
        emit_table(["LIST", "FIGURE", "VALUE", "COVERED", "OF"], rows, right=[2, 3, 4])
