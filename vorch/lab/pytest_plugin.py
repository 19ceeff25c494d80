"""Fixtures for tests on a real cluster: `lab`, one for the whole run, and `fresh_lab`, as new.

In the topmost conftest.py:

    pytest_plugins = ["vorch.lab.pytest_plugin"]

Where a lab cannot be made, tests that ask for one are skipped with the reason.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from vorch import lab as labs
from vorch.errors import VorchError
from vorch.lab import Lab
from vorch.lab.lab import missing_programs

# Labs of test runs bear the number of their process, so that two runs do not meet, and so that
# what a killed run has left is known for it. Those with Xen hosts, besides the common one: x.
_OURS = re.compile(r"[tx]([0-9]{1,9})")


def why_not() -> str | None:
    """Why no lab can be made here; None where one can."""
    if os.geteuid() != 0:
        return "a lab needs root"
    missing = missing_programs(ceph=True)
    if missing:
        return f"a lab needs {', '.join(sorted(missing))}"
    try:
        import rbd  # noqa: F401
        import trustme  # noqa: F401
    except ImportError as exc:
        return f"a lab needs the Python package {exc.name}"
    return None


@pytest.fixture(scope="session")
def lab(pytestconfig: pytest.Config) -> Iterator[Lab]:
    """Three hosts and a real small Ceph, up until the last test is over."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    clear_remains()
    made = labs.up(f"t{os.getpid()}")
    try:
        yield made
    finally:
        labs.down(made.spec.name)


@pytest.fixture
def fresh_lab(lab: Lab) -> Lab:
    """The same, as it was made: every host on, no VM, no disk, no fence, Ceph healthy."""
    try:
        lab.reset()
    except VorchError as exc:
        pytest.fail(f"the lab cannot be brought back to order: {exc}")
    return lab


def clear_remains() -> None:
    """Take down what test runs have left that were killed."""
    for name in labs.names():
        owner = _OURS.fullmatch(name)
        if owner and not Path("/proc", owner[1]).exists():
            # Of several that begin at once, one is enough.
            with suppress(VorchError, FileNotFoundError):
                labs.down(name)
