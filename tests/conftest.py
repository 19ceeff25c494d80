"""Fixtures for everybody: the real parts of this machine, or the reason why there are none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator

import pytest

# `lab` and `fresh_lab`: a real cluster, one for the whole run.
pytest_plugins = ["vorch.lab.pytest_plugin"]


# Not marked as real, and yet about the whole machine.
ONE_AT_A_TIME = ("test_up_down.py", "test_prepare.py")


# Around all others: xdist looks for the groups very early.
@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None]:
    """What runs side by side (`-n`): a file of lab tests stays together, the machine's take turns.

    Each worker has a lab of its own. This machine's libvirt is one, its VMs bear fixed names, and
    who counts what a lab leaves behind wants nobody else to leave anything meanwhile.
    """
    for item in items:
        if item.get_closest_marker("real") or item.path.name in ONE_AT_A_TIME:
            item.add_marker(pytest.mark.xdist_group("machine"))
        elif item.get_closest_marker("lab") or item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    yield


@pytest.fixture(scope="session")
def libvirt_system() -> str:
    """The URI of this machine's libvirt, when it answers."""
    why_not = _why_no_libvirt()
    if why_not is not None:
        # What is skipped proves nothing; where the parts are promised, that is a failure.
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why_not)
    return "qemu:///system"


def _why_no_libvirt() -> str | None:
    try:
        import libvirt
    except ImportError:
        return "libvirt-python is not installed"
    if os.geteuid() != 0:
        return "only root may use this machine's libvirt"
    if shutil.which("qemu-system-x86_64") is None:
        return "QEMU is not installed"
    try:
        libvirt.open("qemu:///system").close()
    except libvirt.libvirtError as exc:
        return f"libvirt does not answer: {exc}"
    return None


# Reasons that lie in where the tests happen to stand, not in what this machine lacks.
PARDONED = ("may not read vorch where it is", "QEMU runs as root here")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a test of real parts that is skipped has failed: what is skipped proves nothing."""
    report = yield
    marked = any(item.get_closest_marker(name) for name in ("real", "lab"))
    if os.environ.get("CI") and marked and report.skipped:
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if not any(pardoned in reason for pardoned in PARDONED):
            report.outcome = "failed"
            report.longrepr = f"it must run here and was skipped: {reason}"
    return report
