"""Stop strings: what is shown is the text before the first one, however the text is cut into pieces."""

from __future__ import annotations

import random

import pytest

from engram.inference.stops import Stops


def run(stops: list[str], pieces: list[str]) -> tuple[str, str]:
    watch, shown = Stops(stops), ""
    for piece in pieces:
        shown += watch(piece)
    return shown + watch.end(), watch.hit


def test_text_before_a_stop_is_shown_however_it_is_cut() -> None:
    """Nothing is lost, added or shown of a stop string, for random texts of few letters, stops and cuts."""
    dice = random.Random(0)
    hits = 0
    for _ in range(2000):
        text = "".join(dice.choice("ab\n") for _ in range(dice.randrange(12)))
        stops = ["".join(dice.choice("ab\n") for _ in range(dice.randrange(1, 5))) for _ in range(dice.randrange(3))]
        cuts = sorted(dice.randrange(len(text) + 1) for _ in range(4))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        ends = [text.find(s) + len(s) for s in stops if s in text]
        shown, hit = run(stops, pieces)
        hits += bool(hit)
        if not ends:
            assert (shown, hit) == (text, "")
            continue
        assert hit in stops
        assert shown + hit == text[: len(shown) + len(hit)]
        assert not any(s in shown for s in stops)
    assert hits > 300


def test_what_may_become_a_stop_is_held_back() -> None:
    watch = Stops(["END"])
    assert [watch(p) for p in ("ab", "cE", "N", "x", "E", "N", "D", "more")] == ["ab", "c", "", "ENx", "", "", "", ""]
    assert watch.hit == "END"
    assert watch.end() == ""
    watch = Stops(["END"])
    assert (watch("xEN"), watch.end()) == ("x", "EN")


@pytest.mark.parametrize("stops", [[], [""]])
def test_no_stop_holds_nothing_back(stops: list[str]) -> None:
    assert run(stops, ["a", "", "b"]) == ("ab", "")


def test_the_first_of_several_counts() -> None:
    assert run(["cd", "bcde"], ["abcdef"]) == ("a", "bcde")
    assert run(["cd", "xyz"], ["abc", "dxyz"]) == ("ab", "cd")
