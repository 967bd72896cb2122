"""The results as Markdown, from results/*.json:  python benchmarks/table.py [--write]

With --write they replace what stands between the two markers of README.md; otherwise they are printed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BEGIN, END = "<!-- results -->", "<!-- /results -->"


def markdown(result: dict[str, Any]) -> str:
    """One result file as a heading, a line of conditions and a table; failed contenders stay in it."""
    from benchmarks.show import HEADS, cells

    lines = [
        f"### {result['name']}",
        "",
        f"{result['about']}. Time per {result['unit']}, ratio to {result['reference']}, {result['rounds']} rounds. "
        f"{result['machine']['processor']}, {result['machine']['cores']} cores, Python {result['python']}.",
        "",
        "| " + " | ".join(HEADS) + " |",
        "|" + "---|" * len(HEADS),
    ]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in result["contenders"]]
    made = {f"{k} {v}" for row in result["contenders"] for k, v in row.get("versions", {}).items()}
    return "\n".join([*lines, "", "Versions: " + ", ".join(sorted(made)) + "."])


def document(folder: Path) -> str:
    """All result files of a folder in the order of their names."""
    files = sorted(folder.glob("*.json"))
    return "\n\n".join(markdown(json.loads(file.read_text("utf-8"))) for file in files)


def insert(page: str, results: str) -> str:
    """The page with the part between the markers replaced. Raises ValueError when a marker is missing."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} ... {END} to write between")
    return f"{head}{BEGIN}\n\n{results}\n\n{END}{tail}"


def main() -> int:
    """The command line."""
    found = document(HERE / "results")
    if not found:
        print("benchmarks/results holds no result yet; run python -m benchmarks.training mlp", file=sys.stderr)
        return 1
    if "--write" in sys.argv[1:]:
        page = HERE / "README.md"
        page.write_text(insert(page.read_text("utf-8"), found), encoding="utf-8")
    else:
        print(found)
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))
    sys.exit(main())
