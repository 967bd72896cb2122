"""From the user's data to a recipe: `engram train houses.csv` looks at the file, picks the network and says why.

Only as much is read as the choice needs: the start of a file, the header of a few images. Nothing here imports torch.
"""

from __future__ import annotations

import csv
import io
import os
import sys
from pathlib import Path
from typing import Any

from engram.app.pick_pictures import of_pictures
from engram.app.pick_text import ROWS, Found, of_file, of_folder, of_rows, of_set
from engram.core.errors import ConfigError, DataError, did_you_mean
from engram.data.sources import BUILT_IN
from engram.recipes import names

TABLES = (".csv", ".tsv", ".txt", ".parquet", ".jsonl", ".json")
COUNTED = 16 << 20  # bytes of a text file up to which its rows are counted

Picked = tuple[Any, dict[str, Any], list[str]]


def pick(recipe: Any, knobs: dict[str, Any]) -> Picked:
    """(recipe, knobs, what was picked and why, line by line) for `train(recipe, **knobs)`.

    A Recipe, a recipe's name and a recipe file pass unchanged. A built-in data set's name, the path of a table, of texts or of
    a folder of images or texts, and a DataFrame become the `data` knob of the recipe that suits them. Raises ConfigError when
    the word is neither a recipe nor data, DataError when there is no such file or it is no data to train on.
    """
    if _is_frame(recipe):
        table = recipe.head(ROWS).to_dict("records")
        if "target" not in knobs and (found := of_rows(table, "the DataFrame")):
            return _texts(found, recipe, knobs)
        return _chosen("mlp", recipe, knobs, f"a table of {_rows(len(recipe))}")
    if isinstance(recipe, os.PathLike):
        recipe = os.fspath(recipe)
    if not isinstance(recipe, str) or recipe in names() or recipe.endswith(".py"):
        return recipe, knobs, []
    if found := of_set(recipe):
        return _texts(found, recipe, knobs)
    if recipe in BUILT_IN:
        source = BUILT_IN[recipe]
        what = {"image": "set of images", "captioned": "set of captioned images"}.get(source.kind, "table")
        suits = {"image": "cnn", "captioned": "latent_diffusion"}.get(source.kind, "mlp")
        return _chosen(suits, recipe, knobs, f"{recipe} is a built-in {what} ({source.description})")
    path = Path(recipe).expanduser()
    if recipe and path.is_dir():
        return _folder(path, recipe, knobs)
    if path.is_file():
        if "target" not in knobs and (found := of_file(path)):
            return _texts(found, recipe, knobs)
        return _chosen("mlp", recipe, knobs, f"{path.name} is a table of {_size_of(path)}")
    if _looks_like_path(recipe):
        raise DataError(_missing(path))
    known = [*names(), *BUILT_IN]
    raise ConfigError(
        f"no recipe or data called {recipe!r}{did_you_mean(recipe, known)}; recipes: {', '.join(names())}; "
        f"data: {', '.join(BUILT_IN)}, or the path of your own"
    )


def is_known(word: str) -> bool:
    """Whether `pick` would take the word: a recipe, a recipe file, a built-in data set, or something that exists on disk."""
    return bool(word) and (word in names() or word in BUILT_IN or Path(word).expanduser().exists())


def _chosen(recipe: str, data: Any, knobs: dict[str, Any], what: str) -> Picked:
    if "data" in knobs:
        raise ConfigError(f"the data is given twice: {data} and data={knobs['data']}; leave one out, or name a recipe")
    return recipe, {"data": data} | knobs, [f"{what}: training {recipe}"]


def _texts(found: Found, data: Any, knobs: dict[str, Any]) -> Picked:
    recipe, columns, why = found
    return _chosen(recipe, data, columns | knobs, why)


def _is_frame(value: object) -> bool:
    """Whether it is a pandas DataFrame; nobody can have made one without importing pandas."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, pandas.DataFrame)


def _looks_like_path(word: str) -> bool:
    return os.sep in word or word.startswith((".", "~")) or bool(Path(word).suffix)


def _missing(path: Path) -> str:
    folder = path.parent
    if path.is_symlink():
        return f"{path} is a link to {os.readlink(path)}, which does not exist"
    if not folder.is_dir():
        return f"there is no file {path}, and no folder {folder}"
    found = sorted(p.name for p in folder.iterdir() if p.is_dir() or p.suffix.lower() in TABLES)
    where = "here" if str(folder) == "." else f"in {folder}"
    return f"there is no file {path.name} {where}{did_you_mean(path.name, found)}"


def _size_of(path: Path) -> str:
    """'1,460 rows' where counting is quick, else '3.1 GB'. Raises DataError when the file is no table."""
    from engram.data.sniff import HEAD, sniff

    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            fmt = sniff(stream.read(HEAD), path.name)
            stream.seek(0)
            if fmt.kind == "parquet":
                return _rows(_parquet_rows(path))
            if size > COUNTED:
                return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
            text = io.TextIOWrapper(stream, fmt.encoding, errors="replace", newline="")
            if fmt.kind == "jsonl":
                return _rows(sum(1 for line in text if line.strip()))
            return _rows(max(sum(1 for row in csv.reader(text, delimiter=fmt.delimiter) if row) - 1, 0))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
    except csv.Error:
        return f"{size:,} bytes"


def _rows(count: int) -> str:
    return f"{count:,} row{'s' * (count != 1)}"


def _parquet_rows(path: Path) -> int:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path).metadata.num_rows
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path.name} is damaged ({str(error).splitlines()[0]}); write or download it again") from None


def _folder(path: Path, given: str, knobs: dict[str, Any]) -> Picked:
    if (path / "run.json").exists():
        raise ConfigError(
            f"{given} is a run, not data: `engram resume {given}` goes on with it; to train from its weights, "
            f"name a recipe and set start_from={given}"
        )
    if pictures := of_pictures(path, given, knobs):
        recipe, what = pictures
        return _chosen(recipe, given, knobs, what)
    if found := of_folder(path):
        return _texts(found, given, knobs)
    tables = sorted(p.name for p in path.iterdir() if p.suffix.lower() in TABLES)
    named = f"it holds {', '.join(tables[:5])}: name one file"
    hint = named if tables else "put one folder per class there (photos/cat/1.jpg)"
    raise DataError(f"{given} holds no images; {hint}")
