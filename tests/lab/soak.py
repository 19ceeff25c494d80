"""Random real faults on a lab for as long as one likes, writers on it, the checker at the end.

`python -m tests.lab.soak [--for 1h] [--seed N] [--vms 4]`, as root; or `make soak ARGS=…`.
A lab of three hosts is made for it and taken down again. Round after round one or two things break,
some time passes, all is mended, and vorch has to bring everything back by itself: every host
online, every VM running once and writing, and no host fenced that had nothing. What is printed is
the log. It ends with status 1 as soon as anything is not so, or lost.
"""

from __future__ import annotations

import argparse
import itertools
import random
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.lab.test_nodes import redfish
from tests.lab.watched import Watched, Watcher, watched_on
from vorch import lab as labs
from vorch.errors import VorchError
from vorch.lab.spec import BMC_PASSWORD

NAME = "soak"
UNITS = {"s": 1, "m": 60, "h": 3600}
# Long enough for a fence, a start and all that comes between; and too short for most.
LASTS_S = (1.0, 90.0)
FENCED = re.compile(r"node (\S+): fencing:")


def seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if found is None:
        raise argparse.ArgumentTypeError("a time is like 90s, 10m or 1h")
    return float(found[1]) * UNITS[found[2]]


class Soak:
    """One run. `rounds` ends by the clock, or by an AssertionError."""

    def __init__(self, watched: Watched, chance: random.Random, names: list[str]) -> None:
        self.watched = watched
        self.lab = watched.lab
        self.chance = chance
        self.names = names
        self.began = time.monotonic()
        self.numbers = itertools.count(1)
        self.paused: list[Watcher] = []
        self.movers: list[subprocess.Popen[bytes]] = []
        # What may be fenced in this round, and how often each was said to be so far.
        self.touched: set[str] = set()
        self.read: dict[Path, int] = {}
        self.fences = 0

    def say(self, line: str) -> None:
        print(f"[{time.monotonic() - self.began:7.1f} s] {line}", flush=True)

    # -- faults

    def fault(self) -> None:
        """One thing breaks."""
        host = self.chance.choice(self.lab.spec.host_names)
        of_hosts: dict[str, Callable[[], object]] = {
            "power cut": lambda: self.lab.power_off(host),
            "reboot": lambda: self.lab.reboot(host),
            "management cut": lambda: self.lab.cut(host, "management"),
            "storage cut": lambda: self.lab.cut(host, "storage"),
            "both networks cut": lambda: self.lab.cut(host, "both"),
            "libvirtd hangs": lambda: self.lab.hang(host),
            "libvirtd dies": lambda: self._kill_libvirtd(host),
            "everything stands still": lambda: self.lab.freeze(host),
            "all QEMU die": lambda: self.lab.kill_qemu(host),
            "BMC lies": lambda: self.lab.bmc_break(host, "stuck"),
            "BMC hangs": lambda: self.lab.bmc_break(host, "silent"),
        }
        of_others: dict[str, Callable[[], object]] = {
            "a monitor dies": lambda: self.lab.mon_kill(self.chance.choice("abc")),
            "an OSD dies": lambda: self.lab.osd_kill(self.chance.randrange(3)),
            "a vorch dies": self._kill_watcher,
            "a vorch stands still": self._pause_watcher,
            "a vorch is ended in good order": self._end_watcher,
            "a person moves a VM": self._move,
        }
        what = self.chance.choice([*of_hosts, *of_others])
        if what in of_hosts:
            self.touched.add(host)
        self.say(f"{what}{f' ({host})' if what in of_hosts else ''}")
        try:
            (of_hosts | of_others)[what]()
        except (VorchError, subprocess.CalledProcessError) as exc:
            # Such as what two faults in a row come to: nothing is there to be broken.
            self.say(f"  not possible: {exc}")

    def _kill_libvirtd(self, host: str) -> None:
        words = ["sh", "-c", "kill -9 $(cat /run/libvirtd.pid)"]
        subprocess.run(self.lab.command(host, words), check=True, capture_output=True)

    def _watcher(self) -> Watcher:
        return self.chance.choice([one for one in self.watched.watchers if one not in self.paused])

    def _kill_watcher(self) -> None:
        one = self._watcher()
        one.process.kill()
        one.process.wait()

    def _end_watcher(self) -> None:
        status = self._watcher().end()
        assert status == 0, f"it ended with status {status}"

    def _pause_watcher(self) -> None:
        one = self._watcher()
        one.pause()
        self.paused.append(one)

    def _move(self) -> None:
        vm = self.chance.choice(self.names)
        target = self.chance.choice(self.lab.spec.host_names)
        self.say(f"  {vm} to {target}")
        words = self.watched.vorch("migrate", vm, target)
        quiet = subprocess.DEVNULL
        self.movers.append(
            subprocess.Popen(
                words,
                env=self.watched.environment(self.watched.config),
                stdin=quiet,
                stdout=quiet,
                stderr=quiet,
            )
        )

    # -- rounds

    def round(self) -> None:
        self.touched.clear()
        for _ in range(self.chance.choice((1, 1, 2))):
            self.fault()
            self._wait(self.chance.uniform(*LASTS_S))
        self.mend()
        self.all_is_well()

    def _wait(self, how_long_s: float) -> None:
        self.say(f"  {how_long_s:.0f} s pass")
        time.sleep(how_long_s)

    def mend(self) -> None:
        for one in self.paused:
            one.go_on()
        self.paused.clear()
        self.lab.heal(timeout_s=300)
        for mover in self.movers:
            mover.wait(300)
        self.movers.clear()
        self._see_fences()
        self.watched.reap()
        while len(self.watched.watchers) < 2:
            self.watched.serve(name=f"vorch-{next(self.numbers)}")
        self.say("all is mended")

    def all_is_well(self) -> None:
        """vorch has brought everything back."""
        watched = self.watched
        watched.leader()
        watched.await_all_online()
        watched.await_running(self.names)
        self._see_fences()

        def once() -> bool:
            there = watched.on_hosts()
            return sorted(there) == sorted(self.names) and all(
                len(hosts) == 1 for hosts in there.values()
            )

        watched.eventually(once, "each VM runs once")
        self._all_write()
        where = {name: hosts[0] for name, hosts in sorted(watched.on_hosts().items())}
        self.say(f"all is well: {where}")

    def _all_write(self) -> None:
        """Of as many boots as there are VMs something new is confirmed."""
        seen = len(self.watched.acks.all())

        def they_do() -> bool:
            fresh = {ack.boot for ack in self.watched.acks.all()[seen:]}
            return len(fresh) >= len(self.names)

        self.watched.eventually(they_do, "each VM writes")

    def _see_fences(self) -> None:
        for one in self.watched.watchers:
            text = one.said()
            new = text[self.read.get(one.log, 0) :]
            self.read[one.log] = len(text)
            for host in FENCED.findall(new):
                self.fences += 1
                self.say(f"  {host} was fenced")
                assert host in self.touched, f"{host} was fenced, and nothing was done to it"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--for", dest="length_s", type=seconds, default=3600.0, metavar="TIME")
    parser.add_argument("--seed", type=int, default=0, help="chooses what breaks")
    parser.add_argument("--vms", type=int, default=4)
    given = parser.parse_args()
    names = [f"w{number}" for number in range(1, given.vms + 1)]
    lab = labs.up(NAME, hosts=3, osds=3, mons=3)
    status = 0
    try:
        with (
            tempfile.TemporaryDirectory(prefix="vorch-soak-") as folder,
            watched_on(lab, Path(folder)) as watched,
        ):
            soak = Soak(watched, random.Random(given.seed), names)
            soak.say(f"seed {given.seed}, {len(names)} VMs that write, for {given.length_s:g} s")
            rounds = 0
            try:
                for host in lab.spec.host_names:
                    bmc = redfish(lab, host)
                    watched.cluster.node_change(host, bmc=bmc, bmc_password=BMC_PASSWORD)
                for number, name in enumerate(names):
                    hosts = lab.spec.host_names
                    watched.create([name], hosts[number % len(hosts)])
                for _ in range(2):
                    watched.serve()
                soak.all_is_well()
                while time.monotonic() - soak.began < given.length_s:
                    rounds += 1
                    soak.say(f"round {rounds}")
                    soak.round()
                watched.stop_watching()
                watched.check_disks(names)
                acks = len(watched.acks.all())
                soak.say(
                    f"{rounds} rounds, {soak.fences} fences, {acks} writes confirmed:"
                    " nothing lost, one writer at a time"
                )
            except Exception:  # noqa: BLE001 - whatever it was is the finding
                soak.say(f"FAILED in round {rounds}, seed {given.seed}")
                traceback.print_exc()
                print(watched.logs(), flush=True)
                status = 1
    finally:
        labs.down(NAME)
    return status


if __name__ == "__main__":
    sys.exit(main())
