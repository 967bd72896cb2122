"""Knobs: every type, range and spelling, the errors, and the way back through JSON."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from engram.core.errors import ConfigError
from engram.core.knobs import build, idle, knob, knobs_of, older, to_json


@dataclass(frozen=True)
class Inner:
    depth: int = knob(1, "layers", low=0)
    act: Literal["relu", "gelu"] = knob("relu", "activation")


@dataclass(frozen=True)
class OptimKnobs:
    lr: float = knob(0.1, "rate", low=0)
    betas: tuple[float, float] = knob((0.9, 0.99), "moments", low=0, high=0.999)
    inner: Inner = knob(Inner(depth=5), "nested twice")


@dataclass(frozen=True, kw_only=True)
class Toy:
    name: str = knob("toy", "a name")
    width: int = knob(8, "units", low=1, high=1024)
    drop: float = knob(0.0, "share dropped", low=0, high=1)
    fast: bool = knob(False, "fast")
    kind: Literal["a", "B", 3] = knob("a", "kind")
    sizes: tuple[int, ...] = knob((1, 2), "sizes", low=1)
    limit: int | None = knob(None, "limit", low=1)
    mark: str | None = knob(None, "mark")
    source: Any = knob("", "a path or an object")
    optim: OptimKnobs = knob(OptimKnobs(lr=0.5), "optimizer")
    second: OptimKnobs = OptimKnobs(betas=(0.5, 0.5), inner=Inner(depth=9))


@dataclass(frozen=True)
class Must:
    size: int
    more: int = 1


@dataclass
class Holds:
    part: Must = Must(size=4)


GOOD = [
    ("width", "16", 16), ("width", "1e2", 100), ("width", "1_000", 1000), ("width", 16.0, 16), ("width", "+3", 3),
    ("drop", "0.5", 0.5), ("drop", 1, 1.0), ("drop", "1e-3", 1e-3), ("drop", ".5", 0.5),
    ("fast", "true", True), ("fast", "Yes", True), ("fast", "ON", True), ("fast", "1", True), ("fast", True, True),
    ("fast", "false", False), ("fast", "no", False), ("fast", "off", False), ("fast", "0", False),
    ("kind", "a", "a"), ("kind", "b", "B"), ("kind", "A", "a"), ("kind", "3", 3), ("kind", 3, 3),
    ("sizes", "3,4,5", (3, 4, 5)), ("sizes", "3 4", (3, 4)), ("sizes", "(3, 4)", (3, 4)), ("sizes", "[7]", (7,)),
    ("sizes", 7, (7,)), ("sizes", [3, "4"], (3, 4)), ("sizes", "", ()),
    ("limit", "none", None), ("limit", "None", None), ("limit", "", None), ("limit", None, None), ("limit", "4", 4),
    ("mark", "null", None), ("mark", "x", "x"),
    ("name", "a b=c", "a b=c"), ("name", 5, "5"), ("name", Path("a/b"), "a/b"), ("name", "none", "none"),
    ("optim.lr", "1e-3", 1e-3), ("optim.lr", 1, 1.0), ("optim.betas", "0.8,0.9", (0.8, 0.9)), ("optim.lr", "inf", math.inf),
    ("optim.inner.depth", "3", 3), ("optim.inner.act", "GELU", "gelu"),
]  # fmt: skip


def dig(toy: Toy, key: str) -> Any:
    value: Any = toy
    for part in key.split("."):
        value = getattr(value, part)
    return value


@pytest.mark.parametrize(("key", "given", "value"), GOOD)
def test_values(key: str, given: Any, value: Any):
    found = dig(build(Toy, {key: given}), key)
    assert found == value
    assert type(found) is type(value)


BAD = [
    ("width", "wide", "width=wide is not an integer"),
    ("width", "1.5", "width=1.5 is not an integer"),
    ("width", 1.5, "width=1.5 is not an integer"),
    ("width", True, "width=True is not an integer"),
    ("width", "inf", "not an integer"),
    ("width", "nan", "not an integer"),
    ("width", None, "width=None is not an integer"),
    ("width", [3], "not an integer"),
    ("width", "0", "width=0 is out of range: 1 to 1024"),
    ("width", 1025, "out of range"),
    ("drop", "much", "drop=much is not a number"),
    ("drop", "nan", "not a number"),
    ("drop", False, "not a number"),
    ("drop", 10**400, "not a number"),
    ("drop", "1.01", "drop=1.01 is out of range: 0 to 1"),
    ("drop", -1e-9, "out of range"),
    ("fast", "maybe", "fast=maybe is not a boolean"),
    ("fast", 2, "not a boolean"),
    ("kind", "c", "kind=c is not one of a, B, 3"),
    ("sizes", "3,x", "sizes=x is not an integer"),
    ("sizes", "3,0", "out of range: at least 1"),
    ("optim.betas", "0.5", "optim.betas takes 2 values, got 1"),
    ("optim.betas", "0.5,0.9999", "out of range: 0 to 0.999"),
    ("optim.lr", "-1", "optim.lr=-1 is out of range: at least 0"),
    ("optim.lr", "fast", "optim.lr=fast is not a number"),
    ("limit", "0", "out of range: at least 1"),
    ("limit", "few", "limit=few is not an integer"),
    ("name", None, "name=None is not a text"),
]


@pytest.mark.parametrize(("key", "given", "message"), BAD)
def test_wrong_values(key: str, given: Any, message: str):
    with pytest.raises(ConfigError) as caught:
        build(Toy, {key: given})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


NEAR = {
    "lr": "optim.lr",
    "widht": "width",
    "optim.depth": "optim.inner.depth",
    "optim.rl": "optim.lr",
    "optim__rl": "optim.lr",
}


@pytest.mark.parametrize("key", NEAR)
def test_unknown_keys_suggest(key: str):
    meant = rf"toy has no knob .* \(did you mean {NEAR[key]}\?\); `engram train toy --help` lists all"
    with pytest.raises(ConfigError, match=meant):
        build(Toy, {key: 1}, "toy")


def test_unknown_keys_without_a_neighbour():
    with pytest.raises(ConfigError, match=r"Toy has no knob 'qqqqqq'; `engram"):
        build(Toy, {"qqqqqq": 1})
    with pytest.raises(ConfigError, match=r"no knob 'optim\.inner\.qqqqq'"):
        build(Toy, {"optim": {"inner": {"qqqqq": 1}}})


SPELLINGS: list[dict[str, Any]] = [
    {"optim.lr": 0.2, "optim.inner.depth": 2},
    {"optim__lr": 0.2, "optim__inner__depth": 2},
    {"optim": {"lr": "0.2", "inner": {"depth": "2"}}},
    {"optim": {"lr": 0.2, "inner.depth": 2}},
    {"optim": {"lr": 0.2, "inner": Inner(depth=2)}},
    {"optim": OptimKnobs(lr=0.2, inner=Inner(depth=2))},
]


@pytest.mark.parametrize("values", SPELLINGS)
def test_spellings_of_nested_knobs(values: dict[str, Any]):
    assert build(Toy, values) == Toy(optim=OptimKnobs(lr=0.2, inner=Inner(depth=2)))


def test_what_is_not_given_keeps_the_default_of_the_place():
    """Not that of the class: `optim` starts at lr=0.5 and depth 5, `second` at other moments."""
    toy = build(Toy, {"optim.betas": "0.1,0.2", "second.lr": 3})
    assert toy.optim == OptimKnobs(lr=0.5, betas=(0.1, 0.2), inner=Inner(depth=5))
    assert toy.second == OptimKnobs(lr=3.0, betas=(0.5, 0.5), inner=Inner(depth=9))
    assert build(Toy, {}) == Toy()
    assert build(Toy, {"optim.inner.act": "gelu"}).optim.inner == Inner(depth=5, act="gelu")


def test_large_whole_numbers_are_exact():
    @dataclass
    class Seeds:
        seed: int = 0

    for given in (2**60 + 1, str(2**60 + 1)):
        assert build(Seeds, {"seed": given}).seed == 2**60 + 1


def test_a_knob_without_default_must_be_given():
    @dataclass
    class Must:
        size: int

    assert build(Must, {"size": "3"}).size == 3
    with pytest.raises(ConfigError, match="size must be given"):
        build(Must, {})


def test_a_nested_knob_without_default_takes_that_of_the_place():
    assert build(Holds, {"part.more": 2}).part == Must(size=4, more=2)


def test_objects_pass_through():
    thing = object()
    assert build(Toy, {"source": thing}).source is thing


def test_help_knows_every_knob():
    known = knobs_of(Toy)
    assert list(known)[:3] == ["name", "width", "drop"]
    assert set(known) >= {"optim.lr", "optim.betas", "optim.inner.depth", "second.inner.act"}
    assert "optim" not in known
    assert (known["optim.lr"].default, known["second.lr"].default) == (0.5, 0.1)
    assert (known["optim.inner.depth"].default, known["second.betas"].default) == (5, (0.5, 0.5))
    assert known["optim.inner.depth"].help == "layers"
    assert known["kind"].choices == ("a", "B", "3")
    types = {key: info.type for key, info in known.items()}
    assert types["width"] == "integer"
    assert types["drop"] == "number"
    assert types["kind"] == "a|B|3"
    assert types["sizes"] == "list of integers"
    assert types["optim.betas"] == "number,number"
    assert types["limit"] == "integer"


@pytest.mark.parametrize(
    "toy",
    [
        Toy(),
        Toy(name="none", sizes=(), limit=3, kind=3, fast=True, drop=1e-12),
        Toy(optim=OptimKnobs(lr=math.inf, betas=(0.25, 0.5), inner=Inner(7, "gelu")), mark="x"),
    ],
)
def test_through_json_and_back(toy: Toy):
    def refuse(word: str) -> None:
        raise AssertionError(word)

    text = json.dumps(to_json(toy), allow_nan=False)
    assert build(Toy, json.loads(text, parse_constant=refuse)) == toy
    assert list(to_json(toy)) == list(knobs_of(Toy))


def test_objects_are_named_in_json():
    class Table:
        shape = (150, 5)

    assert to_json(Toy(source=Table()))["source"] == "<Table (150, 5)>"
    assert to_json(Toy(source=Path("a/b")))["source"] == "a/b"


def test_knobs_made_since_a_run_was_saved_mean_what_it_did() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Grown:
        width: int = knob(8, "units")
        norm: bool = knob(True, "normalise", before=False)

    assert build(Grown, {}) == Grown(norm=True)
    assert build(Grown, older(Grown, {"width": 4})) == Grown(width=4, norm=False)
    assert build(Grown, older(Grown, {"width": 4, "norm": True})) == Grown(width=4, norm=True)


def test_knobs_for_other_things_to_learn_are_told() -> None:
    @dataclass
    class Several:
        width: int = knob(4, "of the network")
        crf: bool = knob(True, "choose tags together", of="tags")
        smooth: float = knob(0.0, "spread the target", of="labels, tags")

    assert knobs_of(Several)["smooth"].help == "labels, tags: spread the target"
    given = Several(width=8, crf=False, smooth=0.1)
    assert idle(given, "text") == ["crf (for tags)", "smooth (for labels, tags)"]
    assert idle(given, "labels") == ["crf (for tags)"]
    assert idle(given, "tags") == idle(Several(width=8), "text") == []
