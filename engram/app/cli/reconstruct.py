"""engram reconstruct: pictures through the code of a trained run and back."""

from __future__ import annotations

from engram.app.cli.again import again

command = again(
    "reconstruct",
    "Code pictures with RUN and draw them again from their codes; the path of the grid or folder goes to stdout.",
    "reconstructed.png",
)
