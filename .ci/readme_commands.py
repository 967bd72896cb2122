"""Prints the set-up command lines of the README: the lines of its first `sh` block, comments left out."""

from __future__ import annotations

import re
import sys
from pathlib import Path

text = Path(sys.argv[1]).read_text("utf-8")
found = re.search(r"```sh\n(.*?)```", text, re.DOTALL)
if not found:
    sys.exit("README has no ```sh block")
for line in found[1].splitlines():
    command = line.partition("  #")[0].strip()
    if command and not command.startswith("#"):
        print(command)
