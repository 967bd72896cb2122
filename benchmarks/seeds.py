"""Does the faster format cost accuracy? The CNN over five seeds, one per round.  python -m benchmarks.seeds

Engram's defaults (bf16 where the machine has it, channels last) against fp32 in the contiguous layout, by Engram and by hand.
The accuracy of every seed is in the result file; the table shows mean and sample standard deviation.
"""

from __future__ import annotations

import statistics
import sys
from typing import Any

from benchmarks.harness import compare, finish, options
from benchmarks.training import ABOUT, contenders


def main() -> int:
    """The command line."""
    asked = options((__doc__ or "").splitlines()[0]).parse_args()
    rows = contenders("cnn", asked.quick, asked.threads, ("tutorial", "hand", "engram", "engram_default"))
    result = compare("seeds", rows, asked, reference="tutorial", about=f"{ABOUT['cnn']}; a seed per round")
    print(difference(result))
    return finish(result)


def difference(result: dict[str, Any]) -> str:
    """Accuracy of the defaults less that of fp32, seed by seed (both start from the same weights and see the same rows)."""
    held = {row["name"]: [r["figures"]["accuracy"] for r in row["rounds"]] for row in result["contenders"]}
    pairs = list(zip(held.get("engram_default", []), held.get("engram", []), strict=False))
    if not pairs:
        return "no pair of runs to compare"
    gaps = [a - b for a, b in pairs]
    spread = f" ± {statistics.stdev(gaps):.5f}" if len(gaps) > 1 else ""
    return f"accuracy, engram_default less engram, mean of {len(gaps)} seeds: {statistics.fmean(gaps):+.5f}{spread}"


if __name__ == "__main__":
    sys.exit(main())
