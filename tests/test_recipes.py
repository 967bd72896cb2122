"""Every recipe passes every check: both are found by discovery."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from recipe_checks import CHECKS, FIXED, Case

import engram
from engram.recipes import find, names


@pytest.fixture(scope="module", params=names())
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """One recipe at its tiny size, trained once."""
    name = request.param
    folder = tmp_path_factory.mktemp(name)
    cls = find(name)
    run = engram.train(name, out=folder / "run", progress=False, **{**cls.tiny, **FIXED})
    return Case(name, cls, run, folder)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_recipe(case: Case, check: Callable[[Case], None]) -> None:
    check(case)


def test_discovery_finds_the_recipes() -> None:
    assert {"mlp", "cnn", "resnet", "vgg"} <= set(names())
    assert len(CHECKS) >= 13
