"""How much of one thing a test does: enough to see a mistake, or all of it with VORCH_THOROUGH=1.

Guests are emulated, so twenty of them, or a death at each of a dozen points, are minutes. A run of
all tests does some of it each time; before a release, and after a change of what is concerned, all
of it is done: `make test VORCH_THOROUGH=1 ARGS=tests/lab/test_ring.py`.
"""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T")

THOROUGH = os.environ.get("VORCH_THOROUGH") == "1"


def much(thorough: T, otherwise: T) -> T:
    return thorough if THOROUGH else otherwise
