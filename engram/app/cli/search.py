"""engram search: the passages of a folder of texts that are nearest in meaning to a question."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engram.app.cli.options import json_option, recipe_class, recipe_option, run_argument
from engram.app.cli.output import emit_json, emit_table, say

if TYPE_CHECKING:
    from torch import Tensor

    from engram.inference.embed import Embedder
    from engram.inference.search import Passage


@click.command("search")
@run_argument
@click.argument("source", metavar="FOLDER|FILE", type=click.Path())
@click.argument("query", metavar="QUESTION")
@click.option("--top", default=5, show_default=True, type=click.IntRange(1), help="Passages to show.")
@click.option("--words", default=100, show_default=True, type=click.IntRange(1), help="Longest passage, in words.")
@click.option("--index", type=click.Path(dir_okay=False), metavar="FILE", help="Keep the vectors there (safetensors); they are "
              "used again as long as run, texts and --words stay the same.")  # fmt: skip
@json_option
@recipe_option
def command(
    run: str, source: str, query: str, top: int, words: int, index: str | None, as_json: bool, recipe_file: str | None
) -> None:
    """Search the texts of FOLDER or FILE for what is nearest in meaning to QUESTION, with a run of `sentence`."""
    from engram.app.run import load
    from engram.core.errors import ConfigError, DataError
    from engram.inference.embed import Embedder
    from engram.inference.search import nearest

    found = load(run, recipe=recipe_class(recipe_file))
    embedder = found.predictor
    if not isinstance(embedder, Embedder):
        raise ConfigError(f"{run} gives no embeddings; train one that does with: engram train sentence")
    if not query.strip():
        raise DataError("the question is empty; write what you look for")
    weights = hashlib.sha256(found.folder.weights.read_bytes()).hexdigest()
    held, vectors = _vectors(embedder, Path(source), words, Path(index) if index else None, weights)
    rows = [
        {"similarity": round(cosine, 4), "file": held[n].file, "line": held[n].line, "text": held[n].text}
        for n, cosine in nearest(embedder.embed([query])[0], vectors, top)
    ]
    if as_json:
        emit_json(rows)
    else:
        emit_table(
            ["COSINE", "WHERE", "PASSAGE"], [[f"{r['similarity']:.3f}", f"{r['file']}:{r['line']}", r["text"]] for r in rows]
        )


def _vectors(embedder: Embedder, source: Path, words: int, index: Path | None, weights: str) -> tuple[list[Passage], Tensor]:
    """Passages and their unit vectors: of the index where it still fits, else made anew (and kept there)."""
    from engram.checkpoint.files import read_tensors, write_tensors
    from engram.core.errors import DataError
    from engram.core.snapshot import Snapshot
    from engram.inference.search import Passage, passages

    texts = _texts(source)
    said = repr(sorted((name, hashlib.sha256(text.encode()).hexdigest()) for name, text in texts.items()))
    facts: dict[str, Any] = {"weights": weights, "words": words, "texts": hashlib.sha256(said.encode()).hexdigest()}
    if index and index.exists():
        kept = read_tensors(index)
        if facts.items() <= kept.facts.items():
            return [Passage(*p) for p in kept.facts["passages"]], kept.tensors["vectors"]
        say(f"{index} is of another run or of other texts; it is made anew")
    held = [p for name, text in texts.items() for p in passages(text, name, words)]
    if not held:
        raise DataError(f"{source} holds no text to search")
    vectors = embedder.embed([p.text for p in held])
    if index:
        write_tensors(index, Snapshot({"vectors": vectors}, facts | {"passages": [[p.file, p.line, p.text] for p in held]}))
    return held, vectors


def _texts(source: Path) -> dict[str, str]:
    """The texts of a file or of the text files below a folder, by name. Files of a folder that are no text are told and left
    out. Raises DataError."""
    from engram.core.errors import DataError
    from engram.data.text_folders import find_texts
    from engram.data.text_input import read_text_file

    if not source.is_dir():
        return {str(source): read_text_file(source)[0]}
    found: dict[str, str] = {}
    for path in find_texts(source):
        try:
            found[str(path)] = read_text_file(path)[0]
        except DataError as error:
            say(f"left out: {error}")
    if not found:
        raise DataError(f"there is no text file in {source}; name a folder with .txt or .md files, or one file")
    return found
