"""A lab comes up whole and leaves nothing, however it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.lab import bare
from tests.thorough import much
from vorch import lab as labs
from vorch.errors import Conflict, NoRoom
from vorch.lab import Lab, processes
from vorch.lab.pytest_plugin import why_not
from vorch.lab.spec import HOME

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(600)]

# Where anything that a host or Ceph writes would end if it were not kept apart.
CONTROL_GROUPS = "/sys/fs/cgroup"
PLACES = [
    *("/etc", "/run", "/var/lib/libvirt", "/var/log", "/var/cache/libvirt", "/var/lib/ceph"),
    *("/var/lib/vorch", "/var/lib/swtpm-localca", "/dev/shm", "/dev/net", CONTROL_GROUPS),
]
# What libvirt calls its machines' groups, and what a lab would call its own.
OUR_GROUPS = re.compile("machine|libvirt|vorch|qemu")
NAMESPACES = ("pid", "net", "mnt", "uts", "ipc")


@pytest.fixture(autouse=True)
def _possible() -> None:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)


def files(name: str) -> set[str]:
    """What lies about, without the folders of other labs: they work on, and write."""
    found = set()
    for place in PLACES:
        for folder, names, others in os.walk(place):
            if folder == str(HOME):
                names[:] = [one for one in names if one == name]
            if place == CONTROL_GROUPS and not OUR_GROUPS.search(folder):
                # Whatever else runs on the machine has its own, which come and go.
                found |= {f"{folder}/{one}" for one in names if OUR_GROUPS.search(one)}
                continue
            found |= {f"{folder}/{one}" for one in (*names, *others)}
    found |= {str(path) for path in Path("/tmp").glob(f"vorch-lab-{name}-*")}
    return found


def namespaces(name: str) -> set[str]:
    """All that any process is in, without those of other labs, which come and go as they like."""
    found: set[str] = set()
    others: set[str] = set()
    strangers = {one.process.pid for one in processes.holders() if one.lab != name}
    for process in processes.running():
        for kind in NAMESPACES:
            with suppress(OSError):
                seen = str(Path(f"/proc/{process.pid}/ns/{kind}").readlink())
                (others if process.pid in strangers else found).add(seen)
    own = {str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in NAMESPACES}
    return (found - others) | own


def traces(name: str) -> dict[str, set[str]]:
    """Everything that a lab could leave behind, as names."""
    return {
        "processes": {
            f"{one.pid} {' '.join(one.argv)[:80]}" for one in processes.running() if of(name, one)
        },
        "namespaces": namespaces(name),
        "mounts": set(Path("/proc/self/mountinfo").read_text().splitlines()),
        "links": {
            link.name
            for link in Path("/sys/class/net").iterdir()
            if not link.name.startswith("vl-") or link.name.startswith(f"vl-{name}-")
        },
        "sockets": {
            line.split()[-1]
            for line in Path("/proc/net/unix").read_text().splitlines()
            if "vorch-lab" in line and line.endswith((f"/{name}", "ranges"))
        },
        "files": files(name),
    }


def of(name: str, process: processes.Process) -> bool:
    text = " ".join(process.argv)
    return f"vorch-lab {name}" in text or f"labs/{name}" in text


def left(before: dict[str, set[str]], after: dict[str, set[str]]) -> dict[str, set[str]]:
    return {kind: after[kind] - before[kind] for kind in after if after[kind] - before[kind]}


def nothing_left(name: str, before: dict[str, set[str]]) -> None:
    """The kernel frees a dead process's namespaces in its own time; that is short."""
    deadline = time.monotonic() + 5
    while found := left(before, traces(name)):
        assert time.monotonic() < deadline, f"left behind: {found}"
        time.sleep(0.1)


def test_many_ups_and_downs_leave_no_trace() -> None:
    before = traces("manyups")
    for turn in range(much(20, 4)):
        # With Ceph every fourth time: it is most of the time, and the least of the traces.
        made = labs.up("manyups", hosts=3, osds=0 if turn % 4 else 3)
        assert len(made.status().hosts) == 3
        labs.down("manyups")
    nothing_left("manyups", before)


def test_it_is_told_what_is_being_done_and_comes_up_healthy() -> None:
    before = traces("told")
    said: list[str] = []
    made = labs.up("told", hosts=2, osds=1, say=said.append)
    try:
        assert any("h1: libvirt answers" in line for line in said)
        assert said[-1] == "Ceph: HEALTH_OK"
        status = made.status()
        assert [host.name for host in status.hosts] == ["h1", "h2"]
        assert status.accelerator in ("kvm", "tcg")
        assert all(host.power and host.libvirt == "running" for host in status.hosts)
        assert status.ceph is not None
        assert (status.ceph.health, status.ceph.osds_up) == ("HEALTH_OK", 1)
        # The name is taken.
        with pytest.raises(Conflict, match="there is one already"):
            labs.up("told")
        # Keys lie in its folder.
        assert made.spec.folder.stat().st_mode & 0o077 == 0
    finally:
        labs.down("told")
    nothing_left("told", before)


def test_two_labs_stand_side_by_side() -> None:
    before = traces("one")
    one = labs.up("one", hosts=1, osds=0)
    try:
        two = labs.up("two", hosts=1, osds=0)
        try:
            networks = {one.spec.management, one.spec.storage}
            networks |= {two.spec.management, two.spec.storage}
            assert len(networks) == 4
            for made in (one, two):
                with bare.connected(made, "h1") as connection:
                    assert connection.getHostname() == "h1"
            one.power_off("h1")
            assert two.status().hosts[0].libvirt == "running"
        finally:
            labs.down("two")
        one.power_on("h1")
        assert one.status().hosts[0].libvirt == "running"
    finally:
        labs.down("one")
    nothing_left("one", before)


def up_in_a_process(name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "vorch_cli", "lab", "up", "--name", name, "--hosts", "2"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def follow(process: subprocess.Popen[str], word: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if word in line:
            return
    pytest.fail(f"it ended before it said {word!r}")


@pytest.mark.parametrize("word", ["networks", "monitors agree", "osd.0 started"])
def test_interrupted_it_clears_away_itself(word: str) -> None:
    before = traces("crash")
    process = up_in_a_process("crash")
    try:
        follow(process, word)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.communicate()
    assert "crash" not in labs.names()
    nothing_left("crash", before)


@pytest.mark.parametrize("word", ["networks", "monitors agree", "HEALTH_OK"])
def test_killed_in_the_middle_down_clears_away(word: str) -> None:
    before = traces("crash")
    process = up_in_a_process("crash")
    try:
        follow(process, word)
    finally:
        process.kill()
        process.communicate()
    assert "crash" in labs.names()
    labs.down("crash")
    nothing_left("crash", before)


def test_the_death_of_its_daemon_is_the_death_of_the_lab() -> None:
    before = traces("crash")
    made = labs.up("crash", hosts=2, osds=1)
    for process in processes.running():
        if process.argv[1:3] == ("-m", "vorch.lab.daemon") and "crash" in process.argv[-1]:
            process.kill()
    bare.eventually(lambda: not processes.holders("crash"), "everything is gone", 20)
    # No knock: without the links, it would go out to a network that is not the lab's.
    bare.eventually(
        lambda: not any(Path("/sys/class/net", link).exists() for link in made.spec.own_links),
        "the links are gone",
        20,
    )
    # Its folder still is there, and its name is taken until it is cleared away.
    with pytest.raises(Conflict, match="vorch lab down --name crash"):
        labs.up("crash")
    labs.down("crash")
    nothing_left("crash", before)


def test_a_range_that_is_taken_is_refused_and_nothing_is_made() -> None:
    before = traces("clash")
    # The machine's own network, whatever it is, is never used.
    labs.up("wide", hosts=1, osds=0, address_range="10.78.0.0/23")
    try:
        with pytest.raises(NoRoom, match="--range"):
            labs.up("clash", hosts=1, osds=0, address_range="10.78.0.0/23")
    finally:
        labs.down("wide")
    assert "clash" not in labs.names()
    nothing_left("clash", before)


def test_reset_makes_a_used_lab_new(fresh_lab: Lab) -> None:
    lab = fresh_lab
    with bare.connected(lab, "h1") as connection:
        bare.secret_of(lab, connection)
        connection.networkDefineXML("<network><name>own</name><ip address='10.99.0.1'/></network>")
        connection.networkLookupByName("own").create()
    with bare.pool_of(lab) as pool:
        pool.write_full("object", b"x")
    lab.power_off("h2")
    lab.bmc_break("h3", "stuck")
    lab.reset()
    status = lab.status()
    assert all(host.power and host.bmc == "ok" for host in status.hosts)
    with bare.connected(lab, "h1") as connection:
        assert connection.listAllSecrets() == []
        assert connection.listAllNetworks() == []
    with bare.pool_of(lab) as pool:
        assert [one.key for one in pool.list_objects() if not one.key.startswith("rbd_")] == []
