"""Huge pages and a NUMA cell on real libvirt: a guest that is made of them, and their end."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.guests import PREFIX, GuestConsole, embedded_cluster
from tests.real.test_watchdog import SECTOR
from vorch import NoRoom, Orchestrator

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(600)]

FIRST, SECOND, THIRD = (PREFIX + f"pages-{number}" for number in (1, 2, 3))
SETTING = Path("/proc/sys/vm/nr_hugepages")
PAGE_MIB = 2
# For one guest of 64 MiB and one of 96.
PAGES = 80
# What gives a guest's memory in the list of a process's mappings.
_MAPPING = re.compile(r"^[0-9a-f]+-[0-9a-f]+ ")


@pytest.fixture
def pages() -> Iterator[int]:
    """So many pages of 2 MiB beside those that are there; afterwards as it was."""
    if os.geteuid() != 0:
        pytest.skip("only root may set huge pages aside")
    sizes = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
    if not sizes.is_dir():
        pytest.skip("this kernel has no huge pages of 2 MiB")
    before = int(SETTING.read_text())
    in_use = before - _counted("HugePages_Free")
    if in_use:
        pytest.skip(f"{in_use} huge pages of this machine are in use by somebody else")
    try:
        SETTING.write_text(str(PAGES))
        found = int(SETTING.read_text())
        if found < PAGES:
            pytest.skip(f"this machine has {found} of {PAGES} huge pages in one piece now")
        yield found
    finally:
        SETTING.write_text(str(before))
    assert int(SETTING.read_text()) == before


def _counted(what: str) -> int:
    text = Path("/proc/meminfo").read_text()
    return int(re.findall(rf"^{what}:\s+(\d+)", text, re.MULTILINE)[0])


@pytest.fixture
def cluster(libvirt_system: str, tmp_path: Path, pages: int) -> Iterator[Orchestrator]:
    image = tmp_path / "halts.raw"
    image.write_bytes(SECTOR.ljust(1024**2, b"\0"))
    with embedded_cluster() as cluster:
        cluster.image_import("halts", str(image))
        yield cluster


def create(cluster: Orchestrator, name: str, mib: int, *, one_numa_cell: bool = False) -> None:
    cluster.create(
        name,
        image="halts",
        memory_mib=mib,
        huge_pages="2M",
        one_numa_cell=one_numa_cell,
        networks=(),
        graphics=False,
        start=True,
    )


def process_of(vm_id: str) -> Path:
    """The QEMU that runs it, as /proc has it."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"qemu" in words[0] and vm_id.encode() in words:
                return folder
    raise AssertionError(f"no QEMU runs {vm_id}")


def huge_mib(process: Path) -> int:
    """How much of what a process has in its memory is made of huge pages."""
    found, size_kib = 0, 0
    for line in (process / "smaps").read_text().splitlines():
        if _MAPPING.match(line):
            size_kib = 0
        elif line.startswith("Size:"):
            size_kib = int(line.split()[1])
        elif line.startswith("KernelPageSize:") and int(line.split()[1]) == 1024 * PAGE_MIB:
            found += size_kib
    return found // 1024


def kept_in(process: Path) -> str:
    """The processors that the threads of its vCPUs may run on."""
    for task in (process / "task").iterdir():
        if (task / "comm").read_text().startswith("CPU "):
            status = (task / "status").read_text()
            return str(re.findall(r"^Cpus_allowed_list:\s+(\S+)", status, re.MULTILINE)[0])
    raise AssertionError("it has no vCPU")


def test_a_guest_is_made_of_them_and_the_next_finds_none(cluster: Orchestrator) -> None:
    (node,) = cluster.node_list()
    facts = cluster.node_probe(node.name)
    assert sum(one.memory_mib for cell in facts.cells for one in cell.pages) == PAGES * PAGE_MIB
    # They are no room for others.
    assert cluster.node_show(node.name).memory_free_mib <= facts.memory_mib - PAGES * PAGE_MIB

    create(cluster, FIRST, 64, one_numa_cell=True)
    with GuestConsole(cluster, FIRST) as console:
        console.expect("upn")
    process = process_of(cluster.look().vm(FIRST).id)
    assert huge_mib(process) == 64
    cell = facts.cell(cluster.look().vm(FIRST).numa_cell)
    assert cell is not None
    assert kept_in(process) == cell.cpu_set
    assert f"prefer:{cell.number}" in (process / "numa_maps").read_text()
    assert b"hugetlb" in (process / "cmdline").read_bytes()
    left = _counted("HugePages_Free") - _counted("HugePages_Rsvd")
    assert left == PAGES - 64 // PAGE_MIB

    create(cluster, SECOND, 96)
    assert huge_mib(process_of(cluster.look().vm(SECOND).id)) == 96
    assert _counted("HugePages_Free") - _counted("HugePages_Rsvd") == 0
    with pytest.raises(NoRoom, match="64 MiB of huge pages of 2048 KiB are short"):
        create(cluster, THIRD, 64)
    assert THIRD not in cluster.look().vms
    # One that stops gives its pages back, to the kernel and to the next one.
    cluster.stop(FIRST, force=True)
    create(cluster, THIRD, 64, one_numa_cell=True)
    assert huge_mib(process_of(cluster.look().vm(THIRD).id)) == 64


def test_what_is_taken_away_is_not_counted_on(cluster: Orchestrator) -> None:
    """Pages that nobody uses can go at any time; a host that is probed again knows it."""
    (node,) = cluster.node_list()
    cluster.node_probe(node.name)
    SETTING.write_text("16")
    cluster.node_probe(node.name)
    with pytest.raises(NoRoom, match="32 MiB of huge pages of 2048 KiB are short"):
        create(cluster, FIRST, 64)
    create(cluster, FIRST, 32)
    assert huge_mib(process_of(cluster.look().vm(FIRST).id)) == 32
