"""Labs with Xen hosts, of a test file's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from vorch import lab as labs
from vorch.lab import Lab, xen_image
from vorch.lab.pytest_plugin import clear_remains, why_not


def ready() -> str:
    """The name of a lab to come; what may be built on the way is there by then."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    clear_remains()
    xen_image.build()
    return f"x{os.getpid()}"


@contextmanager
def xen_lab_up(name: str, *, xen: int = 1, osds: int = 0) -> Iterator[Lab]:
    """One KVM host beside the Xen hosts."""
    made = labs.up(name, hosts=1, xen=xen, osds=osds)
    try:
        yield made
    finally:
        labs.down(name)
