"""Knobs: typed dataclass fields that flags, forms and the run folder share. Parses `key=value` against the field's type."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal, TypeVar, Union

from engram.core.errors import ConfigError, did_you_mean

T = TypeVar("T")
_TRUE, _FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}


@dataclass(frozen=True)
class KnobInfo:
    """One knob as help, completion and forms show it."""

    key: str
    type: str
    default: Any
    help: str
    choices: tuple[str, ...] = ()


def knob(
    default: Any, help: str, *, low: float | None = None, high: float | None = None, before: Any = None, of: str = ""
) -> Any:
    """A dataclass field with a help line and an allowed range (ends included).

    `before` is its value in runs saved when there was no such knob, where that is not the default; see `older`. `of` names what
    must be learned for it to matter ("labels, tags"), where a recipe learns several things; see `idle`.
    """
    facts = {"help": f"{of}: {help}" if of else help, "low": low, "high": high, "before": before, "of": of}
    if dataclasses.is_dataclass(default) and not isinstance(default, type):
        return dataclasses.field(default_factory=lambda: default, metadata=facts)
    return dataclasses.field(default=default, metadata=facts)


def knobs_of(cls: type, prefix: str = "") -> dict[str, KnobInfo]:
    """Every knob of a dataclass by dotted key, nested dataclasses included."""
    hints = typing.get_type_hints(cls)
    found: dict[str, KnobInfo] = {}
    for f in dataclasses.fields(cls):
        kind = hints[f.name]
        default = f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            nested = knobs_of(kind, f"{prefix}{f.name}.")
            for key, info in nested.items():
                path = key.removeprefix(f"{prefix}{f.name}.")
                value = info.default if default is dataclasses.MISSING else _dig(default, path)
                found[key] = dataclasses.replace(info, default=value)
            continue
        choices = tuple(str(a) for a in typing.get_args(kind)) if typing.get_origin(kind) is Literal else ()
        found[prefix + f.name] = KnobInfo(prefix + f.name, _type_name(kind), default, f.metadata.get("help", ""), choices)
    return found


def older(cls: type, saved: Mapping[str, Any]) -> dict[str, Any]:
    """The knobs of a saved run, with those that were made since at the value that means what the run did."""
    since = {f.name: f.metadata["before"] for f in dataclasses.fields(cls) if f.metadata.get("before") is not None}
    return since | dict(saved)


def idle(recipe: Any, learned: str) -> list[str]:
    """What was set and does nothing where `learned` is learned, because it is for other things: ["crf (for tags)", ...]."""
    others = [f for f in dataclasses.fields(recipe) if f.metadata.get("of") and learned not in f.metadata["of"].split(", ")]
    return [f"{f.name} (for {f.metadata['of']})" for f in others if getattr(recipe, f.name) != f.default]


def build(cls: type[T], values: Mapping[str, Any], what: str = "") -> T:
    """An instance of the dataclass from dotted keys; strings are parsed, other values are checked.

    Raises ConfigError that names the key, the value and the type, and suggests the nearest key.
    """
    what = what or cls.__name__
    flat = _flatten(values, knobs_of(cls))
    known = knobs_of(cls)
    for key in flat:
        if key not in known:
            raise ConfigError(f"{what} has no knob {key!r}{did_you_mean(key, known)}; `engram train {what} --help` lists all")
    return _build(cls, flat, "", {})


def _build(cls: type[T], flat: Mapping[str, Any], prefix: str, base: Mapping[str, Any]) -> T:
    hints = typing.get_type_hints(cls)
    given: dict[str, Any] = dict(base)
    for f in dataclasses.fields(cls):  # type: ignore[arg-type]
        kind, key = hints[f.name], prefix + f.name
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            default = base.get(f.name, f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default)
            asked = {k.removeprefix(key + "."): v for k, v in flat.items() if k.startswith(key + ".")}
            if asked and hasattr(default, "following"):  # defaults that hang on another knob of the group
                default = default.following(asked)
            given_there = dataclasses.fields(default) if default is not dataclasses.MISSING else ()
            start = {n.name: getattr(default, n.name) for n in given_there}
            given[f.name] = _build(kind, flat, key + ".", start)
        elif key in flat:
            value = parse(flat[key], kind, key)
            low, high = f.metadata.get("low"), f.metadata.get("high")
            numbers = value if isinstance(value, tuple) else (value,)
            for n in numbers:
                if isinstance(n, (int, float)) and ((low is not None and not n >= low) or (high is not None and not n <= high)):
                    raise ConfigError(f"{key}={flat[key]} is out of range: {_range(low, high)}")
            given[f.name] = value
        elif f.name not in base and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{key} must be given: it has no default")
    return cls(**given)


def parse(value: Any, kind: Any, key: str) -> Any:
    """`value` as `kind` (int, float, bool, str, Literal, tuple of these, or one of these or None)."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        empty = value is None or (isinstance(value, str) and value.lower() in ("none", "null", ""))
        if empty and type(None) in args:
            return None
        return parse(value, next(a for a in args if a is not type(None)), key)
    if origin is Literal:
        for choice in args:
            if value == choice or str(value).lower() == str(choice).lower():
                return choice
        raise ConfigError(f"{key}={value} is not one of {', '.join(map(str, args))}{did_you_mean(str(value), map(str, args))}")
    if origin is tuple:
        inner = args[0]
        if isinstance(value, str):
            text = value.strip().strip("()[]")
            value = [part for part in text.replace(" ", ",").split(",") if part]
        elif not isinstance(value, (list, tuple)):
            value = [value]
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(parse(v, inner, key) for v in value)
        if len(value) != len(args):
            raise ConfigError(f"{key} takes {len(args)} values, got {len(value)}")
        return tuple(parse(v, a, key) for v, a in zip(value, args, strict=True))
    return _scalar(value, kind, key)


def _scalar(value: Any, kind: Any, key: str) -> Any:
    wrong = ConfigError(f"{key}={value} is not {_article(_type_name(kind))}")
    if kind is bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in _TRUE | _FALSE:
            return value.lower() in _TRUE
        raise wrong
    if kind is str:
        if isinstance(value, (str, int, float)):
            return str(value)
        if hasattr(value, "__fspath__"):
            return value.__fspath__()
        raise wrong
    if kind is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value  # not by way of a float, which is exact to 2^53 only
        try:
            number = float(value)
            if isinstance(value, bool) or not number.is_integer():
                raise wrong
            return int(value) if isinstance(value, str) and value.lstrip("+-").replace("_", "").isdigit() else int(number)
        except (TypeError, ValueError, OverflowError):
            raise wrong from None
    if kind is float:
        try:
            if isinstance(value, bool):
                raise wrong
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            raise wrong from None
        if number != number:
            raise wrong
        return number
    if kind is Any or (isinstance(kind, type) and isinstance(value, kind)):
        return value
    raise wrong


def _flatten(values: Mapping[str, Any], known: Mapping[str, KnobInfo], prefix: str = "") -> dict[str, Any]:
    """Nested dicts and dataclasses as dotted keys: {"optim": {"lr": 1}} is {"optim.lr": 1}; `optim__lr` is `optim.lr`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        key = prefix + name.replace("__", ".")
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        if isinstance(value, Mapping) and key not in known:
            flat |= _flatten(value, known, key + ".")
        else:
            flat[key] = value
    return flat


def values_of(recipe: Any) -> dict[str, Any]:
    """The knobs of a recipe as dotted keys and the very values."""
    return {key: _dig(recipe, key) for key in knobs_of(type(recipe))}


def to_json(recipe: Any) -> dict[str, Any]:
    """The knobs of a recipe as dotted keys and JSON values."""
    return {key: _json(value) for key, value in values_of(recipe).items()}


def _json(value: Any) -> Any:
    """Infinity and paths as text, which `parse` reads back; data passed as an object as '<DataFrame (150, 5)>'."""
    if isinstance(value, (list, tuple)):
        return [_json(v) for v in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, PurePath):
        return str(value)
    return f"<{type(value).__name__} {getattr(value, 'shape', '')}>"


def _dig(obj: Any, key: str) -> Any:
    for part in key.split("."):
        obj = getattr(obj, part)
    return obj


def _range(low: float | None, high: float | None) -> str:
    if low is None:
        return f"at most {high}"
    return f"at least {low}" if high is None else f"{low} to {high}"


def _article(name: str) -> str:
    return ("an " if name[0] in "aeiou" else "a ") + name


def _type_name(kind: Any) -> str:
    args = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        return "|".join(map(str, args))
    if typing.get_origin(kind) is tuple:
        inner = _type_name(args[0])
        return f"list of {inner}s" if args[-1] is Ellipsis else ",".join(_type_name(a) for a in args)
    if args:
        return " or ".join(_type_name(a) for a in args if a is not type(None))
    names = {int: "integer", float: "number", Any: "path or name", bool: "boolean (true or false)", str: "text"}
    return names.get(kind, getattr(kind, "__name__", str(kind)))
