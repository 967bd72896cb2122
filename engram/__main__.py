"""`python -m engram`."""

import sys

from engram.app.cli import main

sys.exit(main())
