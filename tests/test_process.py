"""Who a process is and whether it still lives: certain, or "cannot be seen"."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from vorch.drivers.process import LocalProcesses, SystemClock, system_chance

FIRST = "pid:[4026531836]"
MACHINE = "0123456789abcdef0123456789abcdef"


def machine(folder: Path, **changes: Any) -> LocalProcesses:
    """A machine as it would show itself in /proc, with one process of ID `pid` on it."""
    it = {
        "boot": "boot-1",
        "pid_namespace": FIRST,
        "time_namespace": "time:[4026531834]",
        "pid": os.getpid(),
        "start": 1000,
        "state": "S",
        "machine": MACHINE,
        **changes,
    }
    proc = folder / f"proc-{len(list(folder.iterdir()))}"
    (proc / "self" / "ns").mkdir(parents=True)
    (proc / "sys/kernel/random").mkdir(parents=True)
    if it["boot"]:
        (proc / "sys/kernel/random/boot_id").write_text(it["boot"] + "\n")
    if it["pid_namespace"]:
        (proc / "self/ns/pid").symlink_to(it["pid_namespace"])
    if it["time_namespace"]:
        (proc / "self/ns/time").symlink_to(it["time_namespace"])
    if it["state"]:
        (proc / str(it["pid"])).mkdir()
        middle = " ".join(["0"] * 18)
        (proc / str(it["pid"]) / "stat").write_text(
            f"{it['pid']} (odd) name (x)) {it['state']} {middle} {it['start']} 0 0\n"
        )
    return LocalProcesses(proc, it["machine"])


def test_this_process_is_alive_and_known_for_good() -> None:
    processes = LocalProcesses()
    me = processes.me()
    assert me == processes.me() == LocalProcesses().me()
    assert processes.alive(me) is True
    assert processes.alive(json.loads(json.dumps(me))) is True
    assert me["pid"] == os.getpid()


def test_a_child_is_seen_until_it_ends() -> None:
    processes = LocalProcesses()
    program = (
        "import json, sys; from vorch.drivers.process import LocalProcesses;"
        "print(json.dumps(LocalProcesses().me()), flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    )
    assert child.stdout is not None
    identity = json.loads(child.stdout.readline())
    assert identity != processes.me()
    assert processes.alive(identity) is True
    child.send_signal(signal.SIGSTOP)
    assert processes.alive(identity) is True
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    # A zombie does nothing any more.
    assert processes.alive(identity) is False
    child.wait()
    assert processes.alive(identity) is False
    child.stdout.close()
    assert child.stdin is not None
    child.stdin.close()


def test_a_fork_is_another_process() -> None:
    processes = LocalProcesses()
    me = processes.me()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, json.dumps(processes.me()).encode())
        os._exit(0)
    os.close(write)
    other = json.loads(os.read(read, 65536))
    os.close(read)
    os.waitpid(child, 0)
    assert other != me
    assert processes.alive(other) is False


def test_the_process_id_of_a_dead_one_may_be_anothers_now(tmp_path: Path) -> None:
    me = machine(tmp_path).me()
    assert machine(tmp_path).alive(me) is True
    assert machine(tmp_path, start=1001).alive(me) is False


def test_a_program_that_replaced_another_in_its_process_is_not_it(tmp_path: Path) -> None:
    here = machine(tmp_path)
    assert here.alive({**here.me(), "program": "another"}) is False


def test_after_a_reboot_all_have_ended(tmp_path: Path) -> None:
    me = machine(tmp_path).me()
    assert machine(tmp_path, boot="boot-2").alive(me) is False


@pytest.mark.parametrize(
    "changes",
    [
        # Another machine.
        {"boot": "boot-2", "machine": "f" * 32},
        # Machines or containers made from one image have one machine ID, or none.
        {"boot": "boot-2", "machine": ""},
        {"boot": "boot-2", "pid_namespace": "pid:[4026532000]"},
        # Another container on the same kernel.
        {"pid_namespace": "pid:[4026532000]"},
        {"pid_namespace": ""},
        # Start times are told differently there.
        {"time_namespace": "time:[4026532001]"},
        # /proc is not mounted, or hides the processes of others.
        {"boot": ""},
        {"state": ""},
    ],
)
def test_what_cannot_be_seen_is_not_called_dead(tmp_path: Path, changes: dict[str, Any]) -> None:
    me = machine(tmp_path).me()
    assert machine(tmp_path, **changes).alive(me) is None


def test_containers_of_one_image_on_two_machines_are_not_one(tmp_path: Path) -> None:
    contained: dict[str, Any] = {"pid_namespace": "pid:[4026532000]"}
    me = machine(tmp_path, **contained).me()
    assert machine(tmp_path, boot="boot-2", **contained).alive(me) is None


def test_a_machine_of_another_name_may_be_another(tmp_path: Path) -> None:
    me = machine(tmp_path).me()
    assert machine(tmp_path, boot="boot-2").alive({**me, "host_name": "other"}) is None


def test_kernels_without_time_namespaces(tmp_path: Path) -> None:
    me = machine(tmp_path, time_namespace="").me()
    assert machine(tmp_path, time_namespace="").alive(me) is True


@pytest.mark.parametrize(
    "identity",
    [
        {},
        {"kind": "memory", "process": 1},
        {"kind": "linux"},
        {"kind": "linux", "boot": "boot-1", "pid": "7"},
        {"kind": "linux", "boot": "boot-1", "pid": -1},
        {"kind": "linux", "boot": "boot-1", "pid": 0},
    ],
)
def test_what_is_no_identity_cannot_be_seen(tmp_path: Path, identity: dict[str, Any]) -> None:
    assert machine(tmp_path).alive(identity) is None


def test_an_impossible_process_id_is_nobodys(tmp_path: Path) -> None:
    here = machine(tmp_path)
    assert here.alive({**here.me(), "pid": 2**80}) is False


def test_the_real_clock_and_chance() -> None:
    clock = SystemClock()
    assert abs(clock.now() - time.time()) < 5
    clock.sleep(0)
    clock.sleep(-1)
    chance = system_chance()
    assert len({chance.uuid() for _ in range(100)}) == 100
    assert chance.uuid()[14] == "4"
    assert len(chance.take(6)) == 6
    assert chance.take(16) != chance.take(16)
