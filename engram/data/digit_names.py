"""Captions of handwritten digits: "a handwritten seven", "the digit 7"."""

from __future__ import annotations

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SAYINGS = ("a handwritten {word}", "the digit {digit}", "the number {word}", "a {word}", "a handwritten {digit}")


def digit_caption(digit: int, choose: int = 0) -> str:
    """A caption of a handwritten digit; `choose` picks the phrasing."""
    text = SAYINGS[choose % len(SAYINGS)].format(word=NUMBERS[digit], digit=digit)
    return text.replace("a eight", "an eight")
