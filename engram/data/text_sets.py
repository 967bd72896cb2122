"""The built-in texts by name: each function reads the upstream files of one set into rows.

A set without a training file on this machine is still usable: the notes say which split was trained on instead.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from engram.core.data import Note
from engram.core.errors import DataError, did_you_mean
from engram.data.numbers import numbers
from engram.data.sources import BUILT_IN, content_sha256, find, folders, locate
from engram.data.text_conll import parse_columns, to_bio
from engram.data.text_decode import lines_of, read_text
from engram.data.text_manual import pydoc_code, pydoc_topics
from engram.data.text_own import home, needed, own_file, own_folder
from engram.data.text_questions import by_article, squad_rows
from engram.data.text_rows import Row, Texts, sha256_of_files

_WIKITEXT_TRAIN_WORDS = 2_088_628  # with one end per line, Merity et al. 2016, table 1
_TITLE = re.compile(r" = [^=].*? = \n")
_LANGUAGES = ("de", "en", "fr")


def is_set(name: str) -> bool:
    """Whether `name` is a built-in set of texts, with or without a variant (multi30k:en-fr)."""
    base = name.partition(":")[0]
    return base in BUILT_IN and BUILT_IN[base].kind == "text"


def read_set(name: str) -> Texts:
    """A built-in set with its official splits. Raises DataError when it is unknown or not on this machine."""
    base, _, variant = name.partition(":")
    source = find(base)
    if source.kind != "text":
        known = ", ".join(n for n, s in BUILT_IN.items() if s.kind == "text")
        raise DataError(f"{base} is a set of {source.kind}s, not of texts; texts are {known}")
    if variant and base not in ("multi30k", "clinc150"):
        raise DataError(f"{base} has no variants, so {name!r} means nothing; leave out :{variant}")
    texts = _multi30k(variant) if base == "multi30k" else _READERS[base]()
    return Texts(
        texts.form, texts.splits, name, texts.sha256, texts.notes, {**texts.facts, "set": name, "licence": source.licence}
    )


def _digest(files: dict[str, Path]) -> str:
    """Of the contents, so that a set compressed again has the same digest."""
    return hashlib.sha256("".join(f"{n}\0{content_sha256(p)}\n" for n, p in sorted(files.items())).encode()).hexdigest()


def _pydoc() -> Texts:
    """The topics of Python's help(): sections of the language reference; they differ between versions of Python."""
    from pydoc_data.topics import topics

    rows: list[Row] = [{"text": topics[name]} for name in sorted(topics)]
    sha256 = hashlib.sha256("\0".join(f"{k}\0{topics[k]}" for k in sorted(topics)).encode()).hexdigest()
    return Texts("corpus", {"train": rows}, "", sha256)


def _tinyshakespeare() -> Texts:
    """One document; `finish` cuts it as nanoGPT does: the first 90 % of characters to train, the rest to validate."""
    path = locate("tinyshakespeare")["input.txt"]
    return Texts("corpus", {"train": [{"text": path.read_text("utf-8")}]}, "", content_sha256(path))


def wikitext_articles(text: str) -> list[str]:
    """The articles of a WikiText file: each begins with a line ' = Title = ' between two blank lines; nothing is lost."""
    lines = text.splitlines(keepends=True)
    starts = [
        i
        for i, line in enumerate(lines)
        if _TITLE.fullmatch(line) and not lines[i - 1].strip() and (i + 1 == len(lines) or not lines[i + 1].strip())
    ]
    cuts = [0, *(i for i in starts[1:]), len(lines)]
    return ["".join(lines[a:b]) for a, b in pairwise(cuts)]


def _wikitext2() -> Texts:
    files = locate("wikitext2")
    notes: tuple[Note, ...] = ()
    train = own_file("wikitext2", "train.txt")
    if train:
        files["train.txt"] = train
        parts = {"train": "train.txt", "val": "valid.txt", "test": "test.txt"}
        words = sum(len(line.split()) + 1 for line in train.read_text("utf-8").splitlines())
        if words != _WIKITEXT_TRAIN_WORDS:
            text = f"{train} has {words:,} words and the published train.txt has {_WIKITEXT_TRAIN_WORDS:,}: not comparable"
            notes = (Note("warning", text),)
    else:
        parts = {"train": "valid.txt", "test": "test.txt"}
        notes = (
            Note(
                "warning",
                "train.txt is not here, so this trains on WikiText-2's validation articles and tests on its test articles: "
                f"not comparable with published figures; put train.txt into {home('wikitext2')} for the standard split",
            ),
        )
    splits = {s: [{"text": t} for t in wikitext_articles(files[f].read_text("utf-8"))] for s, f in parts.items()}
    return Texts("corpus", splits, "", _digest(files), notes)


def _sst2() -> Texts:
    """Binary sentences of the Stanford Sentiment Treebank (Socher et al. 2013), lower case, in the standard splits."""
    files, names = locate("sst2"), ("negative", "positive")
    splits: dict[str, list[Row]] = {}
    for split, file in (("train", "train.tsv"), ("val", "dev.tsv"), ("test", "test.tsv")):
        lines = (line.split("\t") for line in files[file].read_text("utf-8").splitlines())
        splits[split] = [{"text": text, "label": names[int(label)]} for text, label in lines]
    return Texts("labelled", splits, "", _digest(files))


def _imdb() -> Texts:
    """Maas et al. 2011, from the user's own copy; the reviews without a label (train/unsup) are left out."""
    root = own_folder("imdb", "aclImdb", "train/pos")
    splits: dict[str, list[Row]] = {}
    files: dict[str, Path] = {}
    for split in ("train", "test"):
        splits[split] = []
        for label, folder in (("negative", "neg"), ("positive", "pos")):
            found = sorted((root / split / folder).glob("*.txt"))
            if not found:
                raise DataError(f"{root / split / folder} holds no .txt files; imdb needs {find('imdb').own}")
            splits[split] += [{"text": read_text(p)[0].replace("<br />", "\n"), "label": label} for p in found]
            files |= {f"{split}/{folder}/{p.name}": p for p in found}
    return Texts("labelled", splits, "", sha256_of_files(files))


def _wnut17() -> Texts:
    """Derczynski et al. 2017; the test set is the annotated file that the shared task scored."""
    files = locate("wnut17")
    parts = {"train": "wnut17train.conll", "val": "emerging.dev.conll", "test": "emerging.test.annotated"}
    return _tagged({s: files[f] for s, f in parts.items()}, _digest(files))


def _conll2003() -> Texts:
    """Tjong Kim Sang and De Meulder 2003, from the user's own copy, in IOB1 or IOB2."""
    names = {"train": ("train.txt", "eng.train"), "val": ("valid.txt", "eng.testa"), "test": ("test.txt", "eng.testb")}
    found = [f for f in folders("conll2003") if any((f / n).is_file() for n in names["train"])]
    if not found:
        raise DataError(needed("conll2003"))
    files = {s: next((found[0] / n for n in pair if (found[0] / n).is_file()), None) for s, pair in names.items()}
    present = {s: p for s, p in files.items() if p}
    return _tagged(present, sha256_of_files({p.name: p for p in present.values()}))


def _tagged(files: dict[str, Path], sha256: str) -> Texts:
    splits: dict[str, list[Row]] = {}
    notes: list[Note] = []
    scheme = ""
    for split, path in files.items():
        rows, places = parse_columns(read_text(path)[0], path.name)
        splits[split], scheme, new = to_bio(rows, places, path.name)
        notes += [Note(n.level, f"{path.name}: {n.text}") for n in new]
    return Texts("tagged", splits, "", sha256, tuple(notes), {"scheme": scheme})


def _multi30k(variant: str) -> Texts:
    """Elliott et al. 2016, raw sentences; the test set is Flickr 2016. Variants: en-de, en-fr, de-en, fr-en, de-fr, fr-de."""
    known = [f"{a}-{b}" for a in _LANGUAGES for b in _LANGUAGES if a != b]
    direction = variant or "en-de"
    if direction not in known:
        raise DataError(
            f"multi30k has no direction {direction!r}{did_you_mean(direction, known)}; there are {', '.join(known)}"
        )
    source, target = direction.split("-")
    parts = {"train": "train", "val": "val", "test": "test_2016_flickr"}
    files = locate("multi30k", only=[f"raw/{p}.{language}.gz" for p in parts.values() for language in (source, target)])
    lines = {name: lines_of(read_text(path)[0]) for name, path in files.items()}
    splits = {
        s: [
            {"source": a, "target": b}
            for a, b in zip(lines[f"raw/{p}.{source}.gz"], lines[f"raw/{p}.{target}.gz"], strict=True)
        ]
        for s, p in parts.items()
    }
    return Texts("pairs", splits, "", _digest(files), facts={"source": source, "target": target})


def _squad() -> Texts:
    """Rajpurkar et al. 2016: the official files, or the dev set alone, cut by article: no article is in two splits."""
    name = "squad_dev_v1.1_from_html.json"
    dev = next((f / name for f in folders("squad") if (f / name).is_file()), None)
    if dev is None or own_file("squad", "train-v1.1.json"):
        files = locate("squad")
        train, test = (squad_rows(json.loads(files[f"{p}-v1.1.json"].read_text("utf-8")), p) for p in ("train", "dev"))
        cut = by_article(train, (0.9, 0.1, 0.0))
        note = Note("info", "the official dev set is the test split; val is a tenth of the training articles")
        return Texts("questions", {"train": cut["train"], "val": cut["val"], "test": test}, "", _digest(files), (note,))
    rows = squad_rows(json.loads(dev.read_text("utf-8")), dev.name)
    text = "only SQuAD's dev set is here, cut by article into train, val and test: a non-standard split, not comparable with "
    note = Note("warning", f"{text}published figures")
    return Texts("questions", by_article(rows, (0.8, 0.1, 0.1)), "", content_sha256(dev), (note,))


def _dialogsum() -> Texts:
    """Chen et al. 2021; the three references of a test dialogue are in "references", the first is its target."""
    files = locate("dialogsum")
    train = own_file("dialogsum", "dialogsum.train.jsonl")
    parts = {"val": "dialogsum.dev.jsonl", "test": "dialogsum.test.jsonl"}
    if train:
        files[train.name] = train
        parts = {"train": train.name} | parts
        notes: tuple[Note, ...] = ()
    else:
        parts = {"train": "dialogsum.dev.jsonl", "test": "dialogsum.test.jsonl"}
        text = "no training dialogues are here, so this trains on DialogSum's dev set: not comparable with published figures"
        notes = (Note("warning", f"{text}; put dialogsum.train.jsonl into {home('dialogsum')} for the standard split"),)
    splits: dict[str, list[Row]] = {}
    for split, file in parts.items():
        found = [json.loads(line) for line in lines_of(files[file].read_text("utf-8"))]
        splits[split] = [_dialogue(row) for row in found]
    return Texts("pairs", splits, "", _digest(files), notes, {"source": "dialogue", "target": "summary"})


def _dialogue(row: dict[str, str]) -> Row:
    if "summary" in row:
        return {"source": row["dialogue"], "target": row["summary"]}
    references = [row[f"summary{i}"] for i in (1, 2, 3)]
    return {"source": row["dialogue"], "target": references[0], "references": references}


def _clinc150() -> Texts:
    """Larson et al. 2019, data_full: 150 intents and, labelled "oos", requests that are none of them, in every split."""
    files = locate("clinc150")
    data = json.loads(files["data_full.json"].read_text("utf-8"))
    splits = {s: [{"text": t, "label": k} for t, k in data[s] + data[f"oos_{s}"]] for s in ("train", "val", "test")}
    return Texts("labelled", splits, "", _digest(files), facts={"out_of_scope": "oos"})


_READERS: dict[str, Callable[[], Texts]] = {
    "pydoc": _pydoc,
    "pydoc_topics": pydoc_topics,
    "pydoc_code": pydoc_code,
    "numbers": numbers,
    "tinyshakespeare": _tinyshakespeare,
    "wikitext2": _wikitext2,
    "sst2": _sst2,
    "imdb": _imdb,
    "wnut17": _wnut17,
    "conll2003": _conll2003,
    "squad": _squad,
    "dialogsum": _dialogsum,
    "clinc150": _clinc150,
}
