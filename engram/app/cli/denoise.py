"""engram denoise: pictures without the noise that a run has learned to remove."""

from __future__ import annotations

from engram.app.cli.again import again

command = again("denoise", "Clean pictures with RUN; the path of the grid or folder goes to stdout.", "denoised.png")
