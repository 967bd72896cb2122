"""Numbers in words, against some written by hand."""

from engram.data.numbers import english, german, numbers


def test_some_numbers() -> None:
    for n, en, de in (
        (0, "zero", "null"), (1, "one", "eins"), (16, "sixteen", "sechzehn"), (17, "seventeen", "siebzehn"),
        (21, "twenty-one", "einundzwanzig"),
        (30, "thirty", "dreißig"), (100, "one hundred", "einhundert"), (101, "one hundred and one", "einhunderteins"),
        (217, "two hundred and seventeen", "zweihundertsiebzehn"),
        (999, "nine hundred and ninety-nine", "neunhundertneunundneunzig"),
    ):  # fmt: skip
        assert (english(n), german(n)) == (en, de)


def test_every_pair_is_different() -> None:
    rows = numbers().splits["train"]
    assert len({r["source"] for r in rows}) == len({r["target"] for r in rows}) == 1000
