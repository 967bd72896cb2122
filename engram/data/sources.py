"""Built-in data sets by name: bundled with a package, in ENGRAM_DATA, in the user's cache, or downloaded, in this order.

Every file is pinned by the sha256 of its content. For a `.gz` file that is the content after decompression, because the same
data compressed again has other bytes. A file whose sha256 differs is never used.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
import shutil
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from engram.core.errors import DataError, did_you_mean
from engram.data.text_pins import PINS

if TYPE_CHECKING:
    from pandas import DataFrame

_GITHUB = "https://raw.githubusercontent.com"
_ADULT = f"{_GITHUB}/jbrownlee/Datasets/d20fcb6402ae34e653d4513b00f39257bb37ed7f"
_HOUSING = f"{_GITHUB}/ageron/handson-ml/b7051594afbb1d835f5e031af8664c4363878050/datasets/housing"
_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist"
_FASHION = f"{_GITHUB}/zalandoresearch/fashion-mnist/b2617bb6d3ffa2e429640350f613e3291e10b141/data/fashion"
_log = logging.getLogger("engram.data")

# The columns of adult-train.csv and adult-test.csv in the order of adult.names; the files have no header.
ADULT_COLUMNS = (
    *("age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation", "relationship"),
    *("race", "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country", "income"),
)


@dataclass(frozen=True)
class Remote:
    """Where a file comes from and the sha256 of its content (decompressed for .gz)."""

    address: str
    sha256: str


@dataclass(frozen=True)
class Source:
    """A built-in data set; one without `files` is bundled with a package, or is the user's `own` copy."""

    kind: Literal["table", "image", "captioned", "text"]
    description: str
    rows: int  # over all splits
    licence: str
    target: str = ""  # the column to predict, for tables
    files: dict[str, Remote] = field(default_factory=dict)
    folder: str = ""  # another name that its folder in ENGRAM_DATA may have
    own: str = ""  # what a user has to put there, when there is nothing to download


def _idx(address: str, *sha256: str) -> dict[str, Remote]:
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return {f"{n}-ubyte.gz": Remote(f"{address}/{n}-ubyte.gz", s) for n, s in zip(names, sha256, strict=True)}


BUILT_IN: dict[str, Source] = {
    "digits": Source("image", "handwritten digits, 8x8 grey, 10 classes", 1797, "CC BY 4.0 (UCI)"),
    "iris": Source("table", "iris flowers, 4 measurements, 3 species", 150, "CC BY 4.0 (UCI)", "species"),
    "wine": Source("table", "chemistry of wines, 13 measurements, 3 cultivars", 178, "CC BY 4.0 (UCI)", "cultivar"),
    "breast_cancer": Source("table", "breast tumours, 30 measurements, 2 diagnoses", 569, "CC BY 4.0 (UCI)", "diagnosis"),
    "diabetes": Source("table", "progress of diabetes after a year, 10 measurements", 442, "not stated", "progression"),
    "california_housing": Source(
        "table",
        "house values in California's 1990 census blocks, 9 columns",
        20640,
        "Apache-2.0 (repository)",
        "median_house_value",
        {"housing.csv": Remote(f"{_HOUSING}/housing.csv", "8a3727f4cf54ac1a327f69b1d5b4db54c5834ea81c6e4efc0d163300022a685e")},
    ),
    "adult": Source(
        "table",
        "census income above or below 50,000 dollars, 14 columns",
        48842,
        "CC BY 4.0 (UCI)",
        "income",
        {
            "adult-train.csv": Remote(
                f"{_ADULT}/adult-train.csv", "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d"
            ),
            "adult-test.csv": Remote(
                f"{_ADULT}/adult-test.csv", "72567b94f5c1a6f8501377dd80f93892c3848ff071cf91ba47e00b0785a28074"
            ),
        },
    ),
    "mnist": Source(
        "image",
        "handwritten digits, 28x28 grey, 10 classes",
        70000,
        "not stated",
        files=_idx(
            _MNIST,
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    "fashion_mnist": Source(
        "image",
        "clothes, 28x28 grey, 10 classes",
        70000,
        "MIT",
        files=_idx(
            _FASHION,
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ),
    "shapes": Source("captioned", "coloured shapes in nine places, 32x32, in plain words", 13920, "drawn when asked for"),
    "digit_names": Source("captioned", "digits with captions such as 'a handwritten seven'", 1797, "CC BY 4.0 (UCI)"),
    "mnist_names": Source("captioned", "mnist with captions such as 'a handwritten seven'", 70000, "not stated"),
}
BUILT_IN |= {
    name: Source("text", p.description, p.rows, p.licence, "", {f: Remote(*r) for f, r in p.files.items()}, p.folder, p.own)
    for name, p in PINS.items()
}


def locate(name: str, *, mirror: str = "", only: Collection[str] | None = None) -> dict[str, Path]:
    """The checked files of a built-in set (or `only` those) by file name; {} when it is bundled or the user's own copy.

    Looks in $ENGRAM_DATA/<name>/, then in the cache ($ENGRAM_CACHE or ~/.cache/engram), then downloads into the cache.
    `mirror` is a web address that holds <name>/<file> and replaces the pinned ones. Raises DataError when the name is unknown,
    a file cannot be had, or its sha256 differs.
    """
    source = find(name)
    wanted = {f: r for f, r in source.files.items() if only is None or f in only}
    return {file: _file(name, file, remote, mirror, source.folder) for file, remote in wanted.items()}


def find(name: str) -> Source:
    """The built-in set called `name`. Raises DataError with the nearest name."""
    if name not in BUILT_IN:
        raise DataError(
            f"no built-in data set is called {name!r}{did_you_mean(name, BUILT_IN)}; there are {', '.join(BUILT_IN)}"
        )
    return BUILT_IN[name]


def cache_folder() -> Path:
    """Where downloads go: $ENGRAM_CACHE or ~/.cache/engram."""
    return Path(os.environ.get("ENGRAM_CACHE") or Path.home() / ".cache" / "engram")


def folders(name: str) -> list[Path]:
    """The existing folders where a built-in set may lie: in $ENGRAM_DATA under its names, then in the cache."""
    own = os.environ.get("ENGRAM_DATA")
    names = [n for n in (name, find(name).folder) if n]
    return [p for p in [*(Path(own) / n for n in names if own), cache_folder() / name] if p.is_dir()]


def content_sha256(path: Path) -> str:
    """The sha256 of a file, of a .gz after decompression; '' when the compressed data is damaged."""
    opened: Callable[..., Any] = gzip.open if path.name.endswith(".gz") else open
    try:
        with opened(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (gzip.BadGzipFile, EOFError, zlib.error):
        return ""


def _file(name: str, file: str, remote: Remote, mirror: str, folder: str) -> Path:
    own = os.environ.get("ENGRAM_DATA")
    cached = cache_folder() / name / file
    for path in ([Path(own) / n / file for n in (name, folder) if n] if own else []) + [cached]:
        if path.is_file():
            if content_sha256(path) != remote.sha256:
                raise DataError(
                    f"{path} is not the {name} data: its sha256 differs from {remote.sha256[:12]}...; delete it or get it again"
                )
            return path
    address = f"{mirror.rstrip('/')}/{name}/{file}" if mirror else remote.address
    _download(name, address, remote.sha256, cached, f"ENGRAM_DATA ({own or 'not set'}) and {cached.parent}")
    return cached


def _download(name: str, address: str, sha256: str, path: Path, looked: str) -> None:
    """Download into a temporary file beside `path` and move it there once its content is right."""
    _log.info("downloading %s", address)
    part = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".part-", suffix=f"-{path.name}", delete=False) as stream:
            part = Path(stream.name)
            with urllib.request.urlopen(address, timeout=60) as answer:
                shutil.copyfileobj(answer, stream)
        if content_sha256(part) != sha256:
            raise DataError(
                f"{address} did not send the {name} data: its sha256 differs from {sha256[:12]}..., so it was thrown away; "
                f"try again or put {path.name} into {path.parent}"
            )
        os.replace(part, path)
    except (OSError, HTTPException) as error:  # URLError and timeouts are OSErrors
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        bundled = ", ".join(n for n, s in BUILT_IN.items() if not s.files and not s.own and s.kind == BUILT_IN[name].kind)
        raise DataError(
            f"{name} is not on this machine and {address} cannot be had ({reason}); looked in {looked}; put {path.name} into "
            f"{path.parent}, set ENGRAM_DATA to the folder above {name}/, or use a bundled set: {bundled}"
        ) from None
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def table_frames(name: str, *, mirror: str = "") -> tuple[DataFrame, str, DataFrame | None]:
    """A built-in table: its rows, the column to predict, and the official test rows where there are any.

    Raises DataError as `locate` does, and when `name` is a set of images.
    """
    import pandas as pd

    source = find(name)
    if source.kind != "table":
        what = {"image": "images", "captioned": "captioned images"}.get(source.kind, "texts")
        recipe = {"image": "an image recipe such as cnn", "captioned": "latent_diffusion"}.get(source.kind, "a text recipe")
        raise DataError(f"{name} is a set of {what}, not a table; train it with {recipe}")
    if not source.files:
        return _bundled(name, source.target), source.target, None
    files = locate(name, mirror=mirror)
    if name == "california_housing":
        return pd.read_csv(files["housing.csv"]), source.target, None
    frames = [
        pd.read_csv(files[f"adult-{s}.csv"], names=list(ADULT_COLUMNS), skipinitialspace=True, na_values="?")
        for s in ("train", "test")
    ]
    frames[1]["income"] = frames[1]["income"].str.removesuffix(".")  # the labels of adult-test.csv end with a full stop
    return frames[0], source.target, frames[1]


def _bundled(name: str, target: str) -> DataFrame:
    from sklearn import datasets

    if name == "diabetes":
        # Unscaled: the scaled variant has seen every row, test rows included.
        loaded: Any = datasets.load_diabetes(as_frame=True, scaled=False)
        return loaded.frame.rename(columns={"target": target})
    loaded = {"iris": datasets.load_iris, "wine": datasets.load_wine, "breast_cancer": datasets.load_breast_cancer}[name](
        as_frame=True
    )
    frame = loaded.frame.rename(columns={"target": target})
    return frame.assign(**{target: [str(loaded.target_names[i]) for i in frame[target]]})
