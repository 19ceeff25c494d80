"""`python -m vorch_cli`: the command line where the script `vorch` is not on the path."""

from __future__ import annotations

import sys

from .main import main

sys.exit(main())
