"""The report of a run: one HTML file and one picture, made from the run folder alone."""

from __future__ import annotations

from pathlib import Path

from engram.app.report.content import read_content
from engram.app.report.page import page
from engram.app.report.poster import poster
from engram.checkpoint.files import write_bytes
from engram.checkpoint.folder import RunFolder


def write_report(folder: RunFolder) -> Path:
    """Write report.html (self-contained) and report.png; works for unfinished and crashed runs too. Returns the page's path.

    Raises RunError when run.json cannot be read or the folder cannot be written.
    """
    run = read_content(folder)
    write_bytes(folder.html, page(run).encode())
    write_bytes(folder.png, poster(run))
    return folder.html
