"""Fixtures for everybody: the real parts of this machine, or the reason why there are none."""

from __future__ import annotations

import faulthandler
import os
import re
import shutil
import subprocess
import time
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling

from tests.thorough import THOROUGH

# `lab` and `fresh_lab`: a real cluster, one for the whole run.
pytest_plugins = ["vorch.lab.pytest_plugin"]


# Those of this machine's own libvirt, whose VMs bear fixed names, and of what a lab leaves behind.
OF_THE_MACHINE = (
    "tests/real/",
    "tests/test_readme.py::test_on_libvirt",
    "tests/lab/test_up_down.py",
    "tests/house/test_prepare.py",
)


# Whole machines are emulated for them. packaging/test.sh runs these beside what needs no lab.
OF_XEN = (
    "tests/lab/test_xen",
    "tests/lab/test_relocate.py",
    "tests/lab/test_bench_install.py",
)


def _of_the_machine(nodeid: str) -> bool:
    return nodeid.startswith(OF_THE_MACHINE) or "[libvirt" in nodeid


class ByPlace(LoadScopeScheduling):  # type: ignore[misc]
    """What runs side by side (`-n`): files do, and each worker has a lab of its own.

    What is about this machine as a whole stays in one worker, wherever it is written.
    """

    def _split_scope(self, nodeid: str) -> str:
        if _of_the_machine(nodeid):
            return "machine"
        if nodeid.startswith(OF_XEN):
            # Never two such labs at once.
            return "xen"
        return nodeid.split("::", 1)[0]

    def _assign_work_unit(self, node: Any) -> None:
        # The long ones mostly wait, and the quick ones reckon: one worker begins at the other end,
        # so that the machine always has something to do.
        if len(self.nodes) > 1 and node is self.nodes[0]:
            self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
        super()._assign_work_unit(node)


# What takes minutes begins first, the longest before the others: else one worker is left with it
# in the end, and the others with nothing.
LONG = (
    *OF_XEN,
    *OF_THE_MACHINE,
    "tests/lab/test_failover.py",
    "tests/lab/test_kill.py",
    "tests/lab/test_failover_many.py",
    "tests/lab/test_migrate.py",
    "tests/lab/test_fencing.py",
    "tests/contract/test_rbd.py",
    "tests/lab/test_cluster.py",
    "tests/lab/",
    "tests/page/",
    "tests/guest/",
    "tests/contract/test_image_link.py",
    "tests/contract/test_rados.py",
    "tests/contract/",
    "tests/simulate/",
    "tests/api/",
)


def _turn(nodeid: str) -> int:
    return next((turn for turn, name in enumerate(LONG) if nodeid.startswith(name)), len(LONG))


# Of tests that compute for many examples, beside guests that want the processors as well.
EXAMPLES_TIMEOUT_S = 600


def _is_wanted(item: pytest.Item) -> bool:
    part = os.environ.get("VORCH_PART", "")
    in_a_lab = item.get_closest_marker("lab") is not None
    if part and (part == "labs") != (in_a_lab and not item.nodeid.startswith(OF_XEN)):
        return False
    return item.get_closest_marker("thorough") is None or THOROUGH


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        (wanted if _is_wanted(item) else left_out).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = wanted
    for item in items:
        of_examples = getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
        if of_examples and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(EXAMPLES_TIMEOUT_S))
    # Whoever runs them one after the other wants to hear of the quick ones first.
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: _turn(item.nodeid))


class Failures:
    """Says at once what failed, and writes it down for packaging/test.sh.

    pytest tells the reasons at the end, which a run that is cut off never sees.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            lines = report.longreprtext.strip().splitlines()
            way = [line for line in lines[:-12] if re.match(r"[\w./-]+\.py:\d+: ", line)]
            said = (f"\n{report.when} of {report.nodeid} failed:", *way, *lines[-12:])
            print(*said, sep="\n    ", flush=True)
            if self._path is not None:
                with self._path.open("a") as file:
                    print(report.nodeid, file=file)


def _keep_crashes() -> None:
    """Where a process died of a library, in a file that packaging/test.sh shows at the end."""
    folder = os.environ.get("VORCH_CRASHES")
    if folder:
        # Kept open for as long as the process lives.
        faulthandler.enable((Path(folder) / str(os.getpid())).open("w"))


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    _keep_crashes()
    # xdist would begin with the files that have the most tests, which are the quick ones.
    config.option.loadscopereorder = False
    path = os.environ.get("VORCH_FAILED_TESTS")
    if (path or os.environ.get("CI")) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Failures(Path(path) if path else None))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByPlace:
    return ByPlace(config, log)


DOES_NOT_ANSWER = "libvirt does not answer"


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
        return f"{DOES_NOT_ANSWER}: {exc}"
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Where no systemd does it, a daemon that died is started again, so that one test fails of it.

    libvirtd 9.0 was seen to die when a process was killed that it was just writing to.
    """
    supervised = Path("/run/systemd/system").exists()
    if not os.environ.get("CI") or supervised or not _of_the_machine(item.nodeid):
        return
    if (_why_no_libvirt() or "").startswith(DOES_NOT_ANSWER) and shutil.which("libvirtd"):
        warnings.warn(f"{item.nodeid} found libvirtd dead and started it again", stacklevel=1)
        subprocess.run(["libvirtd", "-d"], check=False, stdin=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while _why_no_libvirt() is not None and time.monotonic() < end:
            time.sleep(0.5)


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
