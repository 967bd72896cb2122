"""BLEU and chrF equal sacrebleu's, to the last digit that floating point has, on corpora and on parts of them."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest
import torch

from engram.inference.bleu import BLEU, CHRF, Measure, tokens_13a

sacrebleu = pytest.importorskip("sacrebleu")

SIGNS = [
    "A man, in the U.S., paid $3,000.50 for 2-3 dogs!", "He said: \"no\" -- and left...", "&quot;Ja&quot; &amp; nein &lt;b&gt;",
    "Größe: 1.5m; 50%", "end-\nline", "a\nb", "<skipped> x", "  spaces  ", "'tis (so) [it] {is} a/b c\\d ~e^f_g`h", 
    ".5 5. 5.a a.5 5,a",
    "100-200 a-b 3-b -4", "日本語。テスト", "😀 ok?", "", "@user #tag + = * |", "1,2,3.", "Don't; can't.", "...",
]  # fmt: skip


def corpus(seed: int, rows: int = 40) -> tuple[list[str], list[list[str]]]:
    """Texts and one to three references of which they are damaged copies."""
    draw = random.Random(seed)
    said = 'ein mann , der am strand läuft . two dogs 3.5 1,000 U.S. (the) run-down "so" it\'s grün !'
    words = said.split()
    texts, references = [], []
    for _ in range(rows):
        base = [draw.choice(words) for _ in range(draw.randint(1, 14))]
        references.append([" ".join(w if draw.random() > 0.2 else draw.choice(words) for w in base) for _ in range(3)])
        texts.append(" ".join(w for w in base if draw.random() > 0.15))
    return texts, references


def value(measure: Measure, texts: list[str], references: list[list[str]]) -> float:
    parts = torch.tensor([measure.count(t, r) for t, r in zip(texts, references, strict=True)], dtype=torch.float64)
    assert parts.shape[1] == measure.columns
    return float(measure.figure.statistic(parts.sum(0, keepdim=True))[0])


def test_tokens_are_those_of_sacrebleu() -> None:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    theirs = Tokenizer13a()
    for text in [*SIGNS, *corpus(5)[0]]:
        assert tokens_13a(text) == theirs(text.rstrip()).split(), text


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_sacrebleu(seed: int, count: int) -> None:
    texts, references = corpus(seed)
    for size in (1, 2, 5, 40):
        mine, known = texts[:size], [r[:count] for r in references[:size]]
        streams = [[r[k] for r in known] for k in range(count)]
        assert value(BLEU, mine, known) == pytest.approx(sacrebleu.corpus_bleu(mine, streams).score, abs=1e-9)
        assert value(CHRF, mine, known) == pytest.approx(sacrebleu.corpus_chrf(mine, streams).score, abs=1e-9)


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("", "a b c d e"),
        ("a", "a"),
        ("a b", "a b"),
        ("x y z w v", "a b c d e"),
        ("a b c d", "a b c d"),
        ("a b x c d", "a b c d"),
    ],
)
def test_equals_sacrebleu_where_counts_are_zero(text: str, reference: str) -> None:
    assert value(BLEU, [text], [[reference]]) == pytest.approx(sacrebleu.corpus_bleu([text], [[reference]]).score, abs=1e-9)
    assert value(CHRF, [text], [[reference]]) == pytest.approx(sacrebleu.corpus_chrf([text], [[reference]]).score, abs=1e-9)


def test_texts_with_every_sign() -> None:
    turned = SIGNS[1:] + SIGNS[:1]
    for other in (SIGNS, turned):
        known = [[t] for t in other]
        assert value(BLEU, SIGNS, known) == pytest.approx(sacrebleu.corpus_bleu(SIGNS, [other]).score, abs=1e-9)
        assert value(CHRF, SIGNS, known) == pytest.approx(sacrebleu.corpus_chrf(SIGNS, [other]).score, abs=1e-9)


def test_figures_of_many_sums_at_once() -> None:
    """Resampling asks for (draws, columns): every row is what it is alone."""
    texts, references = corpus(2)
    for measure in (BLEU, CHRF):
        parts = torch.tensor([measure.count(t, r) for t, r in zip(texts, references, strict=True)], dtype=torch.float64)
        together = measure.figure.statistic(parts)
        alone = torch.cat([measure.figure.statistic(row[None]) for row in parts])
        assert torch.equal(together, alone)


def test_german_of_multi30k() -> None:
    """Real sentences, where they are on this machine."""
    import os

    path = Path(os.environ.get("ENGRAM_DATA", "")) / "multi30k/raw/test_2016_flickr.de.gz"
    if not path.exists():
        pytest.skip("multi30k is not here")
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    turned = [" ".join(reversed(line.split()[1:])) for line in lines]
    assert value(BLEU, turned, [[x] for x in lines]) == pytest.approx(sacrebleu.corpus_bleu(turned, [lines]).score, abs=1e-9)
    assert value(CHRF, turned, [[x] for x in lines]) == pytest.approx(sacrebleu.corpus_chrf(turned, [lines]).score, abs=1e-9)
