"""Conversations for the `chat` recipe out of DialogSum's dialogues, and running English text for the `gpt` run it starts from.

    python -m benchmarks.talks FOLDER
    engram train gpt data=FOLDER/base documents=off vocab=bpe vocab_size=4096 context=256 layers=3 width=128 --out base
    engram train chat data=FOLDER/talks start_from=base context=256 layers=3 width=128

What ENGRAM_DATA has is taken: of DialogSum the development dialogues to train on (its training file is not pinned) and the
test dialogues to measure on; for the base wikitext2 (valid and test), the English training side of multi30k, and squad_dev.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
from pathlib import Path

TURN = re.compile(r"#Person(\d)#:\s*(.*)")
SHORT = re.compile(r"\s*'\s*(ve|s|t|m|re|ll|d)\b", re.IGNORECASE)  # DialogSum writes "I ' Ve"
SPACED = re.compile(r" ([,.;:!?)])")


def conversation(dialogue: str) -> list[dict[str, str]]:
    """The first speaker as the user, the second as the assistant; [] for a third speaker or a missing answer."""
    found: list[dict[str, str]] = []
    for number, line in TURN.findall(dialogue):
        text = SHORT.sub(lambda m: "'" + m[1].lower(), line).strip()
        if number not in "12":
            return []
        role = "user" if number == "1" else "assistant"
        if found and found[-1]["role"] == role:
            found[-1]["content"] += f" {text}"
        elif text:
            found.append({"role": role, "content": text})
    return found if any(m["role"] == "assistant" for m in found) else []


def write_talks(root: Path, out: Path) -> dict[str, int]:
    """train.jsonl and test.jsonl; no conversation is in both, none twice. How many are in each."""
    out.mkdir(parents=True, exist_ok=True)
    seen: set[str] = set()
    counts: dict[str, int] = {}
    for part, name in (("dev", "train"), ("test", "test")):
        rows = []
        for line in (root / f"dialogsum_dev_test/dialogsum.{part}.jsonl").read_text("utf-8").splitlines():
            row = json.dumps({"messages": conversation(json.loads(line)["dialogue"])})
            if row not in seen and "assistant" in row:
                seen.add(row)
                rows.append(row)
        (out / f"{name}.jsonl").write_text("".join(f"{row}\n" for row in rows), "utf-8")
        counts[name] = len(rows)
    return counts


def write_base(root: Path, out: Path) -> int:
    """Three text files; how many characters they hold."""
    out.mkdir(parents=True, exist_ok=True)
    wiki = "\n".join((root / f"wikitext2_valid_test/{part}.txt").read_text("utf-8") for part in ("valid", "test"))
    wiki = SPACED.sub(r"\1", wiki.replace(" @-@ ", "-").replace(" @,@ ", ",").replace(" @.@ ", "."))
    captions = gzip.decompress((root / "multi30k/raw/train.en.gz").read_bytes()).decode()
    lines: list[str] = []
    for path in sorted(root.glob("squad_dev/*.json")):
        for article in json.loads(path.read_text("utf-8"))["data"]:
            for paragraph in article["paragraphs"]:
                lines += [paragraph["context"], *(question["question"] for question in paragraph["qas"])]
    texts = {"wiki.txt": wiki, "captions.txt": captions, "squad.txt": "\n".join(lines)}
    for name, text in texts.items():
        (out / name).write_text(text, "utf-8")
    return sum(map(len, texts.values()))


def main() -> None:
    """Write both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    root = Path(os.environ["ENGRAM_DATA"])
    print(json.dumps({**write_talks(root, folder / "talks"), "base characters": write_base(root, folder / "base")}))


if __name__ == "__main__":
    main()
