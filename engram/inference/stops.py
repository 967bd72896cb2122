"""Stop strings: text is given on as it comes, but never what may turn out to be the beginning of a stop string."""

from __future__ import annotations

from collections.abc import Sequence


class Stops:
    """Fed with pieces of text; gives what is safe to show. `hit` is the stop string that ended the text."""

    def __init__(self, stops: Sequence[str]):
        self.stops = [s for s in stops if s]
        self.held = ""
        self.hit = ""

    def __call__(self, piece: str) -> str:
        """The text that can be shown now; after a stop string was met, nothing more."""
        if self.hit:
            return ""
        self.held += piece
        found = min(((at, s) for s in self.stops if (at := self.held.find(s)) >= 0), default=None)
        if found:
            shown, self.held, self.hit = self.held[: found[0]], "", found[1]
            return shown
        keep = max((n for s in self.stops for n in range(1, len(s)) if self.held.endswith(s[:n])), default=0)
        shown, self.held = self.held[: len(self.held) - keep], self.held[len(self.held) - keep :]
        return shown

    def end(self) -> str:
        """What was held back, when the text ends otherwise."""
        shown, self.held = self.held, ""
        return shown
