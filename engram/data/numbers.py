"""Made pairs that need no network: the numbers 0 to 999 in English and in German words, where tens and ones change places.

"three hundred and twenty-one" is "dreihunderteinundzwanzig": something to align, and small enough to learn in a minute.
"""

from __future__ import annotations

from engram.data.text_rows import Texts, sha256_of_rows

_ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen"),
    *("fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_EINER = (
    *("null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn", "elf", "zwölf", "dreizehn"),
    *("vierzehn", "fünfzehn", "sechzehn", "siebzehn", "achtzehn", "neunzehn"),
)
_ZEHNER = ("zwanzig", "dreißig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig")


def english(n: int) -> str:
    """0 to 999 in English."""
    hundreds, rest = divmod(n, 100)
    if hundreds:
        return f"{_ONES[hundreds]} hundred" + (f" and {english(rest)}" if rest else "")
    if n < 20:
        return _ONES[n]
    return _TENS[n // 10 - 2] + (f"-{_ONES[n % 10]}" if n % 10 else "")


def german(n: int) -> str:
    """0 to 999 in German, one word."""
    hundreds, rest = divmod(n, 100)
    if hundreds:
        return f"{_before(hundreds)}hundert" + (german(rest) if rest else "")
    if n < 20:
        return _EINER[n]
    return (f"{_before(n % 10)}und" if n % 10 else "") + _ZEHNER[n // 10 - 2]


def numbers() -> Texts:
    """All of them as pairs."""
    splits = {"train": [{"source": english(n), "target": german(n)} for n in range(1000)]}
    return Texts("pairs", splits, "numbers", sha256_of_rows(splits), facts={"source": "en", "target": "de", "set": "numbers"})


def _before(n: int) -> str:
    return "ein" if n == 1 else _EINER[n]
