"""ROUGE against cases worked out by hand, and the longest common subsequence against its textbook recurrence."""

from __future__ import annotations

import random

import pytest
import torch

from engram.inference.rouge import ROUGE, ROUGE1, lead, longest_common, rouge_l, rouge_n, rouge_tokens


def test_tokens_are_small_letters_and_digits() -> None:
    assert rouge_tokens("It's 3.5 U.S. under_score Größe #Person1#") == [
        "it", "s", "3", "5", "u", "s", "under", "score", "gr", "e", "person1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "reference", "one", "two", "longest"),
    [
        ("the cat sat on the mat", "the cat sat on the mat", 1.0, 1.0, 1.0),
        # common: the, cat, the; 3 of 3 and 3 of 6. bigrams: none of "cat the", "the the" is there but "the cat": 1 of 2, 1 of 5
        ("the cat the", "the cat sat on the mat", 2 * 3 / 9, 0.0 + 2 * 1 / 7, 2 * 3 / 9),
        # Lin 2004, section 3.1: S1 "police killed the gunman", S2 "police kill the gunman", S3 "the gunman kill police"
        ("police kill the gunman", "police killed the gunman", 0.75, 2 * 1 / 6, 0.75),
        ("the gunman kill police", "police killed the gunman", 0.75, 2 * 1 / 6, 0.5),
        ("a b c", "x y z", 0.0, 0.0, 0.0),
        ("", "x y z", 0.0, 0.0, 0.0),
        ("...", "x", 0.0, 0.0, 0.0),
        ("one", "one", 1.0, 0.0, 1.0),  # no bigram on either side
        ("A-b, C!", "a B c", 1.0, 1.0, 1.0),
    ],
)
def test_worked_cases(text: str, reference: str, one: float, two: float, longest: float) -> None:
    assert rouge_n(text, reference, 1) == pytest.approx(one)
    assert rouge_n(text, reference, 2) == pytest.approx(two)
    assert rouge_l(text, reference) == pytest.approx(longest)


def test_longest_common_subsequence_equals_the_recurrence() -> None:
    draw = random.Random(0)
    for _ in range(200):
        a, b = ([draw.choice("abcd") for _ in range(draw.randint(0, 90))] for _ in range(2))
        table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
        for i, x in enumerate(a, 1):
            for j, y in enumerate(b, 1):
                table[i][j] = table[i - 1][j - 1] + 1 if x == y else max(table[i - 1][j], table[i][j - 1])
        assert longest_common(a, b) == table[-1][-1]


def test_the_best_of_several_references_for_each_measure_by_itself() -> None:
    text, references = "a b c d", ["d c b a", "a b x y"]
    assert [m.count(text, references)[0] for m in ROUGE] == pytest.approx([1.0, 2 * 1 / 6, 0.5])


def test_a_figure_is_the_mean_over_texts() -> None:
    rows = [("a b", ["a b"]), ("a b", ["c d"]), ("a b", ["a d"])]
    parts = torch.tensor([ROUGE1.count(*row) for row in rows], dtype=torch.float64)
    assert parts.shape[1] == ROUGE1.columns
    assert float(ROUGE1.figure.statistic(parts.sum(0, keepdim=True))[0]) == pytest.approx(50.0)


def test_equal_to_the_package() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer([m.name for m in ROUGE], use_stemmer=False)
    draw = random.Random(1)
    words = ["the", "cat", "sat", "on", "a", "mat", ",", "3.5", "it's", "Größe", "U.S.", "under_score"]
    for _ in range(100):
        text, *references = (" ".join(draw.choices(words, k=draw.randint(0, 20))) for _ in range(4))
        known = scorer.score_multi(references, text)
        for measure in ROUGE:
            assert measure.count(text, references)[0] == pytest.approx(known[measure.name].fmeasure)


def test_lead() -> None:
    assert lead("One. Two! Three? Four.") == "One. Two! Three?"
    assert lead("#Person1#: a. b.\n#Person2#: c\n\n#Person1#: d\n#Person2#: e") == "#Person1#: a. b. #Person2#: c #Person1#: d"
