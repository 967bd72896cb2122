"""A progress bar in a notebook's cell, as text that is drawn anew in place; needs no widgets."""

from __future__ import annotations

import time
from importlib import import_module
from typing import Any

WIDTH = 40  # characters of the bar


class NotebookBar:
    """One line of text under the cell: how far, the loss, the time that is left."""

    def __init__(self, total: int, done: int = 0):
        self.total, self.done, self.first, self.began = total, done, done, time.monotonic()
        self.handle = _display({"text/plain": self.line("")}, raw=True, display_id=True)

    def line(self, text: str) -> str:
        """The bar as text."""
        full = WIDTH * self.done // max(self.total, 1)
        made = self.done - self.first
        left = (time.monotonic() - self.began) / made * (self.total - self.done) if made else None
        clock = "" if left is None else f"  {int(left) // 60}:{int(left) % 60:02d} left"
        return f"training {'█' * full}{'░' * (WIDTH - full)} {self.done:,}/{self.total:,}  {text}{clock}"

    def update(self, done: int, text: str) -> None:
        """Draw it anew after `done` steps."""
        self.done = done
        self.handle.update({"text/plain": self.line(text)}, raw=True)


def _display(*args: Any, **kwargs: Any) -> Any:
    """IPython's, which is there wherever a notebook runs and nowhere else."""
    return import_module("IPython.display").display(*args, **kwargs)
