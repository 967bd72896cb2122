"""The knobs of the recipe `mlp` that reach the table."""

from __future__ import annotations

from pathlib import Path

import pytest

from engram.core.errors import DataError
from engram.core.knobs import build
from engram.recipes.mlp import Mlp


@pytest.fixture
def leaky(tmp_path: Path) -> str:
    """A column that is the target in disguise."""
    path = tmp_path / "x.csv"
    path.write_text("a,code,y\n" + "".join(f"{i % 7},{'pq'[i % 2]},{['no', 'yes'][i % 2]}\n" for i in range(40)))
    return str(path)


def test_the_advice_against_a_leak_can_be_followed(leaky: str) -> None:
    with pytest.raises(DataError, match="leave it out with drop=code"):
        build(Mlp, {"data": leaky, "target": "y"}, "mlp").make_data()
    for drop in ("code", ["code"]):
        spec = build(Mlp, {"data": leaky, "target": "y", "drop": drop}, "mlp").make_data().spec
        assert list(spec.columns) == ["a"]


def test_a_misspelt_column_to_leave_out_is_said(leaky: str) -> None:
    with pytest.raises(DataError, match=r"drop=cod: x\.csv has no such input column \(did you mean code\?\)"):
        build(Mlp, {"data": leaky, "target": "y", "drop": "cod"}, "mlp").make_data()
    with pytest.raises(DataError, match="drop=y: that is the target"):
        build(Mlp, {"data": leaky, "target": "y", "drop": "y"}, "mlp").make_data()
