"""Byte pairs in MB/s: encoding and training, ours beside tiktoken, tokenizers and rustbpe.  python -m benchmarks.tokenizing

One vocabulary of 8,192 pieces, trained by the first contender, encodes the same Python source (the standard library and what is
installed beside it) with every library; the ids are compared before anything is timed. Contenders take turns, and the median of
five rounds counts. Ours gives an int32 array with the special ids counted in, tiktoken and tokenizers a list of numbers.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIZE = 8192


def source(megabytes: float) -> list[str]:
    """Python files, as many as make `megabytes`."""
    texts, held = [], 0
    for root in (Path(os.__file__).parent, *map(Path, sys.path)):
        for path in sorted(root.rglob("*.py")) if root.is_dir() else ():
            try:
                text = path.read_text("utf-8")
            except (OSError, UnicodeDecodeError):
                continue
            texts.append(text)
            held += len(text.encode())
            if held >= megabytes * 1e6:
                return texts
    return texts


def race(contenders: dict[str, Callable[[], Any]], megabytes: float, rounds: int) -> dict[str, dict[str, Any]]:
    """MB/s of each, warmed up once, in turn: median of wall time, and of the processor time of this process."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for number in range(-1, rounds):
        for name, work in contenders.items():
            wall, own = time.perf_counter(), time.process_time()
            work()
            if number >= 0:
                times[name].append((time.perf_counter() - wall, time.process_time() - own))
    return {
        name: {
            "MB/s": round(megabytes / statistics.median(w for w, _ in found), 2),
            "MB per processor second": round(megabytes / statistics.median(c for _, c in found), 2),
            "seconds": [round(w, 3) for w, _ in found],
        }
        for name, found in times.items()
    }


def main() -> int:
    """Run both races and print them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=float, default=30.0, help="MB that vocabularies are trained on")
    parser.add_argument("--encode", type=float, default=10.0, help="MB that are encoded")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="threads of each library; 0 = as it chooses")
    parser.add_argument("--out", type=Path, help="file for the result")
    asked = parser.parse_args()
    if asked.threads:
        os.environ["RAYON_NUM_THREADS"] = str(asked.threads)
    from engram.data import bytepair
    from engram.data.vocabulary import Vocabulary

    bytepair.THREADS = asked.threads or bytepair.THREADS
    if asked.threads == 1:
        bytepair.PIECE = 1 << 60
    texts = source(max(asked.train, asked.encode))
    trained, size = [], 0.0
    for text in texts:
        if size < asked.train * 1e6:
            trained.append(text)
            size += len(text.encode())
    count = SIZE - 256 - 9
    trainers: dict[str, Callable[[], Any]] = {"engram": lambda: Vocabulary.train("bpe", trained, SIZE)}
    if importlib.util.find_spec("rustbpe"):
        trainers["rustbpe"] = lambda: _rustbpe(trained, count)
    trainers["tokenizers"] = lambda: bytepair._by_tokenizers(trained, count)
    vocabulary = Vocabulary.train("bpe", trained, SIZE)
    text = "".join(texts)[: int(asked.encode * 1e6)]
    pairs, megabytes = vocabulary._pairs, len(text.encode()) / 1e6
    encoders: dict[str, Callable[[], Any]] = {"engram": lambda: vocabulary.encode_array(text)}
    if pairs._fast is not None:
        encoders["tiktoken"] = lambda: pairs._fast.encode_ordinary(text)
        encoders["tiktoken, to numpy"] = lambda: pairs._fast.encode_to_numpy(text, disallowed_special=())
    encoders["tokenizers"] = lambda: pairs._slow.encode(text, add_special_tokens=False).ids
    ours = (vocabulary.encode_array(text) - len(vocabulary.specials)).tolist()
    differ = [name for name, work in encoders.items() if name != "engram" and list(work()) != ours]
    result = {
        "encode": race(encoders, megabytes, asked.rounds), "encode MB": round(megabytes, 1),
        "train": race(trainers, size / 1e6, asked.rounds), "train MB": round(size / 1e6, 1),
        "other ids than ours": differ, "tokens per byte": round(len(ours) / megabytes / 1e6, 3),
        "threads": asked.threads or "as each library chooses", "cores": os.cpu_count(),
    }  # fmt: skip
    print(json.dumps(result, indent=1))
    if asked.out:
        asked.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    return int(bool(differ))


def _rustbpe(texts: list[str], count: int) -> Any:
    import rustbpe

    from engram.data.bytepair import SPLIT

    tokenizer = rustbpe.Tokenizer()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.train_from_iterator(iter(texts), 256 + count, pattern=SPLIT)
    return tokenizer.get_mergeable_ranks()


if __name__ == "__main__":
    sys.exit(main())
