"""`python -m engram.app.cli`."""

import sys

from engram.app.cli import main

sys.exit(main())
