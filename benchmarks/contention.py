"""The MLP while a neighbour keeps one core busy: torch's threads against Engram's probe.  python -m benchmarks.contention"""

from __future__ import annotations

import sys

from benchmarks.harness import Contender, compare, finish, options
from benchmarks.training import ABOUT, command


def main() -> int:
    """The command line."""
    asked = options(__doc__ or "").parse_args()

    def row(name: str, work: str, threads: int, neighbour: bool) -> Contender:
        return Contender(name, command("mlp", work, asked.quick, threads), neighbour=neighbour)

    rows = [
        row("hand_1_thread_quiet", "hand", 1, False),
        row("hand_quiet", "hand", asked.threads, False),
        row("engram_default_quiet", "engram_default", 0, False),
        row("hand_1_thread", "hand", 1, True),
        row("hand", "hand", asked.threads, True),
        row("engram_default", "engram_default", 0, True),
    ]
    about = f"{ABOUT['mlp']}; + neighbour: one process in an endless Python loop, also during the probe"
    return finish(compare("contention", rows, asked, reference="hand_1_thread_quiet", about=about))


if __name__ == "__main__":
    sys.exit(main())
