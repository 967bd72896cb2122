"""Progress inside a notebook: one line that is drawn anew in place, words as plain text, no widgets asked for."""

import sys
import types
import warnings
from functools import partial

import pytest
from rich.console import Console

import engram


class Cell:
    """Stands for IPython's display under one cell."""

    def __init__(self):
        self.drawn: list[str] = []

    def display(self, data, raw, display_id):
        assert (raw, display_id) == (True, True)
        self.drawn.append(data["text/plain"])
        return self

    def update(self, data, raw):
        assert raw
        self.drawn.append(data["text/plain"])


@pytest.fixture
def cell(monkeypatch):
    cell = Cell()
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(display=cell.display))
    monkeypatch.setattr("engram.app.progress.Console", partial(Console, force_jupyter=True))
    return cell


def test_a_cell_shows_the_bar_to_its_end_and_the_figures_as_text(cell, tmp_path, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # rich warns when it misses ipywidgets
        engram.train("mlp", data="iris", steps=7, out=tmp_path / "run", threads=1)
    assert "░ 0/7" in cell.drawn[0]
    assert "█" * 40 + " 7/7  loss" in cell.drawn[-1]
    talk = capsys.readouterr()
    assert "data     iris" in talk.out
    assert "result   " in talk.out
    assert "result" not in talk.err
