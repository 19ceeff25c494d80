"""The lab's Ceph: monitors, a manager and OSDs on sparse files, all of it in the lab's folder.

Lives in the lab's daemon, which is the parent of every Ceph daemon. Orders go through librados: the
`ceph` program needs half a second for each.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vorch.errors import NotFound, StepFailed, TimedOut, Unreachable, Unsupported
from vorch.lab import processes
from vorch.lab.host import run
from vorch.lab.processes import Process
from vorch.lab.spec import CEPH_USER, POOL, LabSpec

Say = Callable[[str], None]
# The command line that runs another one on a host; None: beside the hosts.
Place = Callable[[str | None, Sequence[str]], Sequence[str]]

MONITOR_PORT = 3300
# Sparse: an OSD takes the room of what is in it, about 20 MiB when it is new.
OSD_BYTES = 10 << 30
PLACEMENT_GROUPS = 16
# What vorch's own user may ask of the monitors, as docs/fencing.md tells administrators to set it.
MONITOR_CAPS = 'profile rbd, allow r, allow command "osd blocklist"'
# What each OSD holds is known to the manager alone, and is no part of that profile.
MANAGER_CAPS = 'profile rbd, allow command "osd df"'
# Ceph's manager makes it for itself.
MANAGERS_OWN_POOL = "device_health_metrics"
# One answer of a monitor; a cluster in trouble needs longer than a healthy one.
ANSWER_TIMEOUT_S = 10.0
QUORUM_TIMEOUT_S = 90.0
STOPPED_TIMEOUT_S = 10.0
HEALTH_PAUSE_S = 0.25


@dataclass(frozen=True, slots=True)
class CephStatus:
    """What the monitors say, or that they say nothing."""

    # HEALTH_OK, HEALTH_WARN, HEALTH_ERR, or "silent".
    health: str
    checks: tuple[str, ...] = ()
    mons_up: int = 0
    osds_up: int = 0
    osds_in: int = 0


class LabCeph:
    """`make` writes an empty cluster, `start` starts it, the faults take it to pieces."""

    def __init__(self, spec: LabSpec, place: Place) -> None:
        self.spec = spec
        self.folder = spec.ceph_folder
        self._place = place
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._turn = threading.RLock()

    # --- making ---------------------------------------------------------------------------------

    def make(self, say: Say, *, hosts_are_on: Callable[[], object]) -> None:
        """Monitors with their map and keys. OSDs come after: they get their keys from a monitor."""
        for name in ("run", "keys"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        fsid = str(uuid.uuid4())
        self.spec.ceph_conf.write_text(self._conf(fsid))
        self._add_addresses()
        keys, monmap = self.folder / "keys/mon.", self.folder / "monmap"
        admin = self.keyring("client.admin")
        tool = ("ceph-authtool", "--gen-key", "--create-keyring")
        run(*tool, str(keys), "--name=mon.", "--cap", "mon", "allow *")
        caps = [word for who in ("mon", "mgr", "osd", "mds") for word in ("--cap", who, "allow *")]
        run(*tool, str(admin), "--name=client.admin", *caps)
        run("ceph-authtool", str(keys), "--import-keyring", str(admin))
        mons = [
            word
            for mon in self.spec.mon_names
            for word in ("--addv", mon, f"[v2:{self.spec.mon_address(mon)}:{MONITOR_PORT}]")
        ]
        run("monmaptool", "--create", "--clobber", "--fsid", fsid, *mons, str(monmap))
        for mon in self.spec.mon_names:
            (self.folder / f"mon.{mon}").mkdir()
            run(*self._daemon("ceph-mon", mon), "--mkfs", f"--monmap={monmap}", f"--keyring={keys}")
        # Those that live on hosts have to wait for them.
        hosts_are_on()
        for mon in self.spec.mon_names:
            self.start_mon(mon)
        say(f"Ceph: {len(self.spec.mon_names)} monitor(s) started")
        self._wait_for_quorum()
        self._start_manager()
        say("Ceph: the monitors agree, the manager starts")

    def add_osds(self, say: Say) -> None:
        """Every OSD, written and started; beside the hosts, or each on its own."""
        # On two cores more at once only wait for each other.
        with ThreadPoolExecutor(4) as pool:
            for osd in pool.map(self._add_osd, self.spec.osd_numbers):
                say(f"Ceph: osd.{osd} started")

    def add_pool(self) -> None:
        """A pool for disks, and the user that may use it and nothing else."""
        import rbd

        self.order("osd pool create", pool=POOL, pg_num=PLACEMENT_GROUPS)
        key = self.order(
            "auth get-or-create",
            entity=f"client.{CEPH_USER}",
            caps=["mon", MONITOR_CAPS, "osd", "profile rbd", "mgr", MANAGER_CAPS],
        )
        path = self.keyring(f"client.{CEPH_USER}")
        path.write_text(_keyring(key))
        path.chmod(0o600)
        with self.connected() as cluster, cluster.open_ioctx(POOL) as pool:
            rbd.RBD().pool_init(pool, True)

    def _add_osd(self, osd: int) -> int:
        secret = run("ceph-authtool", "--gen-print-key").strip()
        identity = str(uuid.uuid4())
        self._order_with(
            json.dumps({"cephx_secret": secret}).encode(), "osd new", uuid=identity, id=osd
        )
        folder = self.folder / f"osd.{osd}"
        folder.mkdir()
        (folder / "keyring").write_text(f"[osd.{osd}]\n\tkey = {secret}\n")
        (folder / "keyring").chmod(0o600)
        run(*self._daemon("ceph-osd", str(osd)), "--mkfs", f"--osd-uuid={identity}")
        self.start_osd(osd)
        return osd

    def _start_manager(self) -> None:
        folder = self.folder / "mgr.x"
        folder.mkdir(exist_ok=True)
        caps = ["mon", "allow profile mgr", "osd", "allow *", "mds", "allow *"]
        key = self.order("auth get-or-create", entity="mgr.x", caps=caps)
        (folder / "keyring").write_text(_keyring(key))
        self._start("mgr.x", self._daemon("ceph-mgr", "x"))

    def _wait_for_quorum(self) -> None:
        deadline = time.monotonic() + QUORUM_TIMEOUT_S
        while True:
            with suppress(Unreachable):
                if len(self.order("quorum_status")["quorum"]) == len(self.spec.mon_names):
                    return
            if time.monotonic() > deadline:
                raise TimedOut(
                    f"cannot start Ceph: its monitors do not agree after {QUORUM_TIMEOUT_S:g} s;"
                    f" see {self.spec.log_folder}/ceph-mon.*.log"
                )
            time.sleep(HEALTH_PAUSE_S)

    def _add_addresses(self) -> None:
        """On the bridge itself: what runs beside the hosts has its addresses there."""
        mons = [mon for mon in self.spec.mon_names if self.spec.host_of_mon(mon) is None]
        bridge = "management" if self.spec.one_network else "storage"
        for address in (self.spec.ceph_address, *map(self.spec.mon_address, mons)):
            run("ip", "address", "replace", f"{address}/24", "dev", bridge)

    def _conf(self, fsid: str) -> str:
        spec, folder = self.spec, self.folder
        mons = ",".join(f"[v2:{spec.mon_address(mon)}:{MONITOR_PORT}]" for mon in spec.mon_names)
        # A copy on each host where OSDs live on hosts; else on each OSD.
        copies = min(3, spec.osds, spec.hosts if spec.hyperconverged and spec.hosts > 1 else 3)
        spread = spec.hyperconverged and min(spec.hosts, spec.osds) >= copies
        sections: dict[str, dict[str, object]] = {
            "global": {
                "fsid": fsid,
                "mon host": mons,
                "ms bind msgr1": "false",
                "ms bind ipv6": "false",
                "auth cluster required": "cephx",
                "auth service required": "cephx",
                "auth client required": "cephx",
                "run dir": f"{folder}/run",
                "pid file": "",
                "crash dir": f"{folder}/run",
                "log file": f"{spec.log_folder}/ceph-$name.log",
                "log to stderr": "false",
                "err to stderr": "true",
                "mon cluster log file": f"{spec.log_folder}/ceph-cluster.log",
                "keyring": f"{folder}/ceph.$name.keyring",
                "osd crush chooseleaf type": 1 if spread else 0,
                "osd pool default size": copies,
                "osd pool default min size": max(1, copies - 1),
                "osd pool default pg num": PLACEMENT_GROUPS,
                "osd pool default pg autoscale mode": "off",
            },
            "client": {"log file": "", "admin socket": ""},
            "mon": {
                "mon data": f"{folder}/$name",
                "keyring": "$mon_data/keyring",
                "mon allow pool delete": "true",
                # A monitor gathers orders for a second before it acts; here nobody else has any.
                "paxos propose interval": 0.1,
                "mon allow pool size one": "true",
                "mon warn on pool no redundancy": "false",
                "mon data avail crit": 1,
                "mon data avail warn": 1,
                "mon osd min down reporters": 1,
                # A dead OSD's data is not built anew elsewhere while somebody looks at the fault.
                "mon osd down out interval": 3600,
                "auth allow insecure global id reclaim": "false",
            },
            "mgr": {
                "mgr data": f"{folder}/$name",
                "keyring": "$mgr_data/keyring",
                "mgr initial modules": "",
            },
            "osd": {
                "osd data": f"{folder}/$name",
                "keyring": "$osd_data/keyring",
                "osd objectstore": "bluestore",
                "bluestore block size": OSD_BYTES,
                "bluestore cache autotune": "false",
                "bluestore cache size": 64 << 20,
                "osd memory target": 1 << 30,
                "osd heartbeat interval": 2,
                "osd heartbeat grace": 10,
                # Nothing that would measure the disk, or have scrubbing compete with a test.
                "osd op queue": "wpq",
                "osd scrub begin hour": 3,
                "osd scrub end hour": 4,
            },
        }
        for mon in spec.mon_names:
            sections[f"mon.{mon}"] = {"public addr": spec.mon_address(mon)}
        for osd in spec.osd_numbers:
            host = spec.host_of_osd(osd) or f"{spec.name}-storage"
            sections[f"osd.{osd}"] = {
                "public addr": spec.osd_address(osd),
                "crush location": f"root=default host={host}",
            }
        sections["mgr.x"] = {"public addr": spec.ceph_address}
        return "\n".join(
            f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items())
            for section, settings in sections.items()
        )

    # --- daemons --------------------------------------------------------------------------------

    def _daemon(self, program: str, name: str) -> list[str]:
        conf = f"--conf={self.spec.ceph_conf}"
        return [program, "--id", name, conf, "--setuser=root", "--setgroup=root"]

    def _start(self, name: str, command: Sequence[str]) -> None:
        with self._turn:
            old = self._running.get(name)
            if old is not None and old.poll() is None:
                return
            with (self.spec.log_folder / f"ceph-{name}.log").open("ab") as log:
                self._running[name] = subprocess.Popen(
                    [*command, "--foreground"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )

    def start_mon(self, mon: str) -> None:
        """The same."""
        command = self._daemon("ceph-mon", mon)
        self._start(f"mon.{mon}", self._place(self.spec.host_of_mon(mon), command))

    def start_osd(self, osd: int) -> None:
        """Where it belongs; on a host without power that is an error."""
        command = self._daemon("ceph-osd", str(osd))
        self._start(f"osd.{osd}", self._place(self.spec.host_of_osd(osd), command))

    def kill(self, name: str) -> None:
        """SIGKILL to one daemon, wherever it runs; returns when it is gone."""
        found = self._process(name)
        if found is None:
            raise NotFound(
                f"cannot kill {name}: it does not run; vorch lab heal{self.spec.option} starts it"
                if name in self.known
                else f"cannot kill {name}: this lab has {', '.join(self.known)}"
            )
        found.kill(signal.SIGKILL)
        with self._turn:
            self._running[name].wait(STOPPED_TIMEOUT_S)

    @property
    def known(self) -> tuple[str, ...]:
        mons = (f"mon.{mon}" for mon in self.spec.mon_names)
        return (*mons, "mgr.x", *(f"osd.{osd}" for osd in self.spec.osd_numbers))

    def runs(self, name: str) -> bool:
        holder = self._running.get(name)
        return holder is not None and holder.poll() is None

    def _process(self, name: str) -> Process | None:
        kind, _, number = name.partition(".")
        wanted = tuple(self._daemon(f"ceph-{kind}", number))
        for process in processes.running():
            # Started on a host, its first words are those that lead there.
            if process.argv[: len(wanted)] == wanted:
                return process
        return None

    def replace_osd(self, osd: int) -> None:
        """As after a disk's death: the old one is taken out for good, an empty one comes in."""
        with suppress(NotFound):
            self.kill(f"osd.{osd}")
        self.order("osd down", ids=[str(osd)])
        self.order("osd purge-actual", id=osd, yes_i_really_mean_it=True)
        subprocess.run(["rm", "-rf", str(self.folder / f"osd.{osd}")], check=True)
        self._add_osd(osd)

    def heal(self) -> list[str]:
        """Start every daemon that does not run; says which."""
        done = []
        for name in self.known:
            if self.runs(name):
                continue
            kind, _, number = name.partition(".")
            if kind == "mon":
                self.start_mon(number)
            elif kind == "mgr":
                self._start(name, self._daemon("ceph-mgr", number))
            else:
                self.start_osd(int(number))
            done.append(f"Ceph: {name} started")
        return done

    def empty(self, say: Say) -> None:
        """No image, no snapshot, no trash, no object, no fence: as it was made.

        Pools go as a whole: an image whose client was killed keeps its watcher for half a minute,
        and cannot be removed until then.
        """
        for pool in self.order("osd pool ls"):
            if pool != MANAGERS_OWN_POOL:
                words = {"pool2": pool, "yes_i_really_really_mean_it": True}
                self.order("osd pool delete", pool=pool, **words)
        self.order("osd blocklist clear")
        self.add_pool()
        say("Ceph: the pool is empty")

    # --- orders and looks -----------------------------------------------------------------------

    def keyring(self, who: str) -> Path:
        return self.folder / f"ceph.{who}.keyring"

    @contextmanager
    def connected(self) -> Iterator[Any]:
        """librados, as the administrator. Nothing waits for ever."""
        rados = _rados()
        limit = f"{ANSWER_TIMEOUT_S:.0f}"
        settings = {
            # Of the first connection; the argument of connect() is not what ends it.
            "client_mount_timeout": limit,
            "rados_mon_op_timeout": limit,
            "rados_osd_op_timeout": "60",
        }
        cluster = rados.Rados(conffile=str(self.spec.ceph_conf), name="client.admin", conf=settings)
        try:
            cluster.connect()
            yield cluster
        except rados.Error as exc:
            raise Unreachable(
                f"cannot ask Ceph of lab {self.spec.name!r}: {exc}; vorch lab status shows what"
                " runs, vorch lab heal starts what does not"
            ) from exc
        finally:
            cluster.shutdown()

    def order(self, prefix: str, **arguments: Any) -> Any:
        """What the monitors answer to a command."""
        return self._order_with(b"", prefix, **arguments)

    def _order_with(self, data: bytes, prefix: str, **arguments: Any) -> Any:
        command = {"prefix": prefix, "format": "json", **arguments}
        with self.connected() as cluster:
            code, answer, words = cluster.mon_command(json.dumps(command), data)
        if code:
            raise StepFailed(
                f"cannot {prefix}: Ceph says {words or os.strerror(-code)}; see"
                f" {self.spec.log_folder}"
            )
        return json.loads(answer) if answer.strip() else None

    def status(self) -> CephStatus:
        try:
            seen: Mapping[str, Any] = self.order("status")
        except (Unreachable, StepFailed):
            return CephStatus(health="silent", checks=("no monitor answers",))
        health, osds = seen["health"], seen["osdmap"]
        return CephStatus(
            health=health["status"],
            checks=tuple(one["summary"]["message"] for one in health["checks"].values()),
            mons_up=len(seen["quorum"]),
            osds_up=osds["num_up_osds"],
            osds_in=osds["num_in_osds"],
        )

    def wait_healthy(self, say: Say, timeout_s: float) -> None:
        """Returns at HEALTH_OK with every OSD up and in; says what is in the way meanwhile."""
        deadline = time.monotonic() + timeout_s
        said: tuple[str, ...] = ()
        while True:
            seen = self.status()
            if seen.health == "HEALTH_OK" and seen.osds_up == seen.osds_in == self.spec.osds:
                return
            if seen.checks and seen.checks != said:
                said = seen.checks
                say(f"Ceph: {'; '.join(said)}")
            if time.monotonic() > deadline:
                raise TimedOut(
                    f"cannot bring Ceph to HEALTH_OK: after {timeout_s:g} s it says {seen.health},"
                    f" {'; '.join(seen.checks) or 'no reason'}, {seen.osds_up} of"
                    f" {self.spec.osds} OSDs up; vorch lab heal, or vorch lab down"
                )
            time.sleep(HEALTH_PAUSE_S)


def _keyring(answer: Sequence[Mapping[str, str]]) -> str:
    return "".join(f"[{one['entity']}]\n\tkey = {one['key']}\n" for one in answer)


def _rados() -> Any:
    try:
        import rados
    except ImportError as exc:
        raise Unsupported(
            "cannot run Ceph: the Python packages rados and rbd are not installed; apt-get install"
            " python3-rados python3-rbd, and make the virtual environment from /usr/bin/python3"
            " with --system-site-packages"
        ) from exc
    return rados
