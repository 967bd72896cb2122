"""word2vec beside gensim: raw words per second on one core, and WordSim-353, on the same text, width, window and epochs.

    python -m benchmarks.word2vec                                    # both here; gensim must be installed
    python -m benchmarks.word2vec --peer ../other/bin/python --seeds 1,2,3

Each is a process of its own with one thread; they take turns. The text is what ENGRAM_DATA has of wikitext2 (valid and test),
tinyshakespeare, multi30k (English training side) and the paragraphs and questions of squad_dev, in small letters. Words per
second are those of the text, all of them, over the time of the training loop alone; reading and counting are left out for both.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CASES = {
    "engram": {"kind": "skipgram"},
    "gensim": {"sg": 1, "alpha": 0.025},
    "gensim alpha=0.05": {"sg": 1, "alpha": 0.05},
    "engram cbow": {"kind": "cbow"},
    "gensim cbow": {"sg": 0, "alpha": 0.025},
}
WIDTH, WINDOW, NOISE, SAMPLE, LEAST = 100, 5, 5, 1e-3, 5


def sentences(root: Path) -> Iterator[str]:
    """The lines of the corpus."""
    names = ["wikitext2_valid_test/valid.txt", "wikitext2_valid_test/test.txt", "tinyshakespeare/input.txt"]
    for name in [*names, "multi30k/tok/train.lc.norm.tok.en"]:
        if (root / name).is_file():
            yield from (root / name).read_text("utf-8").split("\n")
    for path in sorted(root.glob("squad_dev/*.json")):
        for article in json.loads(path.read_text("utf-8"))["data"]:
            for paragraph in article["paragraphs"]:
                yield paragraph["context"]
                yield from (question["question"] for question in paragraph["qas"])


def write_corpus(path: Path) -> int:
    """Words separated by spaces, a sentence per line, the same for both; how many words."""
    from engram.data.word_spec import cut

    count = 0
    with path.open("w", encoding="utf-8") as stream:
        for line in sentences(Path(os.environ["ENGRAM_DATA"])):
            if words := cut(line, lower=True, spaces=False):
                count += len(words)
                stream.write(" ".join(words) + "\n")
    return count


def train_gensim(corpus: Path, out: Path, epochs: int, seed: int, sg: int, alpha: float) -> dict[str, float]:
    """One run of gensim; writes its vectors."""
    from gensim.models import Word2Vec  # type: ignore[import-not-found]

    text = [line.split() for line in corpus.read_text("utf-8").splitlines()]
    model = Word2Vec(
        vector_size=WIDTH,
        window=WINDOW,
        min_count=LEAST,
        negative=NOISE,
        sample=SAMPLE,
        sg=sg,
        alpha=alpha,
        workers=1,
        seed=seed,
    )
    model.build_vocab(text)
    begun, used = time.perf_counter(), time.process_time()
    model.train(text, total_examples=model.corpus_count, epochs=epochs)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - used
    model.wv.save_word2vec_format(str(out))
    return rates(model.corpus_total_words * epochs, seconds, cpu)


def train_engram(corpus: Path, out: Path, epochs: int, seed: int, kind: str) -> dict[str, float]:
    """One run of ours, through the loop that every recipe uses; writes its vectors."""
    from engram.app.train import make_recipe, prepare
    from engram.data.vectors import save_vectors
    from engram.data.windows import Windows
    from engram.models.word2vec import Word2Vec
    from engram.training.fit import fit

    knobs = {
        "data": str(corpus), "spaces": True, "holdout": 0.0, "threads": 1, "device": "cpu", "seed": seed, "epochs": epochs,
        "kind": kind, "width": WIDTH, "window": WINDOW, "noise": NOISE, "sample": SAMPLE, "min_count": LEAST,
    }  # fmt: skip
    job = prepare(*make_recipe("word2vec", knobs))
    assert isinstance(job.data, Windows)
    begun, used = time.perf_counter(), time.process_time()
    for _ in fit(job.task, job.data, job.optims, job.plan):
        pass
    seconds, cpu = time.perf_counter() - begun, time.process_time() - used
    model = job.task.get_submodule("model")
    assert isinstance(model, Word2Vec)
    save_vectors(out, job.data.corpus.spec.words, model.vectors())
    return rates(job.data.corpus.raw * epochs, seconds, cpu)


def rates(words: float, seconds: float, cpu: float) -> dict[str, float]:
    """Words per second of the clock, and of the processor: the second leaves out waiting for other programs."""
    return {
        "words_per_second": round(words / seconds),
        "words_per_cpu_second": round(words / cpu),
        "seconds": round(seconds, 2),
    }


def score(path: Path) -> dict[str, float]:
    """WordSim-353, SimLex-999 and Google analogies of a file of vectors."""
    from engram.data.vectors import judgements, load_vectors
    from engram.insight.similarity import analogies, lookup, pairs

    words, vectors = load_vectors(path)
    lists, find = judgements(), lookup(words)
    found = {name: pairs(vectors, find, judged)["spearman"] for name, judged in lists.pairs.items()}
    return found | {name: analogies(vectors, find, asked)["accuracy"] for name, asked in lists.questions.items()}


def main() -> None:
    """Take turns, print one JSON line per run and the medians at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", default=sys.executable, help="the Python that has gensim")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--worker", nargs=3, metavar=("CASE", "CORPUS", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        name, corpus, out = options.worker
        train = train_gensim if name.startswith("gensim") else train_engram
        print(json.dumps(train(Path(corpus), Path(out), options.epochs, int(options.seeds), **CASES[name])))  # type: ignore[arg-type]
        return
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in options.cases.split(",")}
    with tempfile.TemporaryDirectory() as folder:
        corpus, out = Path(folder, "corpus.txt"), Path(folder, "vectors.txt")
        print(f"{write_corpus(corpus):,} words", file=sys.stderr)
        for seed in options.seeds.split(","):
            for name, found in runs.items():
                python = options.peer if name.startswith("gensim") else sys.executable
                given = ["--worker", name, str(corpus), str(out), "--epochs", str(options.epochs), "--seeds", seed]
                environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
                done = subprocess.run(
                    [python, __file__, *given], env=environment, check=True, capture_output=True, text=True
                )  # fmt: skip
                found.append(json.loads(done.stdout) | score(out))
                print(json.dumps({"case": name, "seed": int(seed)} | found[-1]), flush=True)
    for name, found in runs.items():
        print(json.dumps({"case": name} | {key: round(statistics.median(r[key] for r in found), 4) for key in found[0]}))


if __name__ == "__main__":
    main()
