"""What is around a guest: what its host is, what host and Ceph did meanwhile.

Asked of vorch where vorch knows it, of the host itself where there is a way in (a command that runs
another one there, as `ssh root@{host}`), of Ceph by its own client. What cannot be had is left out.
"""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from vorch import Invalid, Orchestrator, Pool, VorchError

if TYPE_CHECKING:
    from vorch import Node

WAY_IN_TIMEOUT_S = 120.0
# Ceph's monitors add up what OSDs tell them, and are some seconds behind.
CEPH_LAG_S = 6.0
CEPH_TIMEOUT_S = 10
# Small files that every Linux has; each with a line before it that says which one it is.
LOOK = (
    "for file in /proc/version /sys/class/dmi/id/sys_vendor /sys/class/dmi/id/product_name"
    " /proc/cpuinfo; do echo \"== $file\"; cat $file 2>/dev/null; done; echo '== nproc'; nproc"
)
FIGURES = "cat /proc/net/dev"
# Words in a machine's vendor or product that tell that it is not one of metal.
MACHINES_IN_MACHINES = ("qemu", "kvm", "xen", "virtual", "bochs", "vmware", "google", "amazon")

WayIn = Callable[[str, str], str]


def way_in(template: str) -> WayIn:
    """Runs a shell's line on a host, by a command in which {host} stands for its name."""
    if "{host}" not in template:
        raise Invalid(
            f"cannot use {template!r} as the way into a host: {{host}} is missing, where its name"
            " belongs, as in 'ssh root@{host}'"
        )

    def run(host: str, line: str) -> str:
        words = [word.replace("{host}", host) for word in shlex.split(template)]
        try:
            done = subprocess.run(
                [*words, "sh", "-c", shlex.quote(line) if words[0] == "ssh" else line],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=WAY_IN_TIMEOUT_S,
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise Invalid(
                f"cannot look into host {host!r} by {template!r}: {exc}; try that command by hand"
            ) from exc
        if done.returncode:
            raise Invalid(
                f"cannot look into host {host!r} by {template!r}: it ended with status"
                f" {done.returncode}: {done.stderr.strip()[-200:]}; try that command by hand"
            )
        return done.stdout

    return run


def host_facts(node: Node, look: WayIn | None) -> dict[str, str]:
    """What has to be the same on hosts that are compared, as far as it can be known."""
    facts = node.facts
    found: dict[str, str] = {}
    if facts is not None:
        found |= {
            "hypervisor": facts.hypervisor,
            "hypervisor version": facts.hypervisor_version,
            "libvirt": facts.libvirt_version,
            "processors": str(facts.cpus),
            "memory MiB": str(facts.memory_mib),
            "guests run": "emulated (TCG)" if facts.accelerator == "tcg" else "on the processor",
        }
        if facts.cpu_model:
            found["processor"] = facts.cpu_model
    if look is not None:
        found |= read_look(look(node.name, LOOK))
        machine = found.get("machine", "").lower()
        inside = any(word in machine for word in MACHINES_IN_MACHINES)
        if inside and found.get("guests run") == "on the processor":
            found["guests run"] = "on the processor of a virtual machine"
    return found


def read_look(text: str) -> dict[str, str]:
    """The answer to LOOK."""
    parts: dict[str, str] = {}
    for block in text.split("== ")[1:]:
        name, _, body = block.partition("\n")
        parts[name.strip()] = body.strip()
    found: dict[str, str] = {}
    version = parts.get("/proc/version", "").split()
    if len(version) > 2:
        found["host kernel"] = version[2]
    machine = " ".join(
        parts.get(f"/sys/class/dmi/id/{word}", "") for word in ("sys_vendor", "product_name")
    ).strip()
    if machine:
        found["machine"] = machine
    for line in parts.get("/proc/cpuinfo", "").splitlines():
        if line.startswith("model name"):
            found["processor"] = " ".join(line.partition(":")[2].split())
            break
    return found


def read_cards(text: str) -> dict[str, tuple[int, int]]:
    """Card → bytes received and sent, out of /proc/net/dev."""
    found = {}
    for line in text.splitlines():
        name, colon, rest = line.partition(":")
        numbers = rest.split()
        if colon and len(numbers) >= 9 and name.strip() != "lo":
            found[name.strip()] = (int(numbers[0]), int(numbers[8]))
    return found


def pool_facts(pool: Pool, networks: str) -> dict[str, str]:
    kind = "rbd" if pool.url.startswith("rbd:") else "local"
    found = {
        "kind": kind,
        "format": "RBD image" if kind == "rbd" else "qcow2 file",
        "networks": networks,
    }
    if kind == "rbd":
        with _Ceph(pool) as ceph:
            found |= ceph.facts()
    return found


class _Ceph:
    """A short visit to a pool's cluster."""

    def __init__(self, pool: Pool) -> None:
        self._place = urlsplit(pool.url)
        query = {name: values[-1] for name, values in parse_qs(self._place.query).items()}
        self._conf = query.get("conf", "/etc/ceph/ceph.conf")
        self._user = query.get("id", "admin")
        self._client: Any = None

    def __enter__(self) -> _Ceph:
        import rados

        self._client = rados.Rados(
            conffile=self._conf,
            name=f"client.{self._user}",
            conf={"client_mount_timeout": str(CEPH_TIMEOUT_S)},
        )
        self._client.connect(timeout=CEPH_TIMEOUT_S)
        return self

    def __exit__(self, *raised: object) -> None:
        self._client.shutdown()

    def facts(self) -> dict[str, str]:
        import json

        def ask(prefix: str, **more: str) -> Any:
            command = json.dumps({"prefix": prefix, "format": "json", **more})
            code, out, _ = self._client.mon_command(command, b"")
            return json.loads(out) if code == 0 and out else {}

        found = {}
        version = ask("version").get("version", "")
        if version:
            found["Ceph"] = " ".join(version.split()[:3])
        size = ask("osd pool get", pool=self._place.netloc, var="size").get("size")
        if size:
            found["copies"] = str(size)
        osds = ask("osd stat").get("num_up_osds")
        if osds is not None:
            found["OSDs"] = str(osds)
        return found

    def bytes_so_far(self) -> tuple[int, int]:
        """Read and written by all clients of the pool since it was made."""
        with self._client.open_ioctx(self._place.netloc) as ioctx:
            stats = ioctx.get_stats()
            return int(stats["num_rd_kb"]) * 1024, int(stats["num_wr_kb"]) * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """Counters of host and storage at one moment."""

    at: float
    # None: cannot be had.
    host_busy_ns: int | None
    cards: Mapping[str, tuple[int, int]]
    ceph: tuple[int, int] | None


class Around:
    """Looks at a host and a pool before and after a run."""

    def __init__(self, found: Orchestrator, host: str, pool: Pool, look: WayIn | None) -> None:
        self._found, self._host, self._pool, self._look = found, host, pool, look

    def look(self, *, after: bool = False) -> Sight:
        if after and self._pool.url.startswith("rbd:"):
            time.sleep(CEPH_LAG_S)
        busy = None
        # A cluster behind a service shows no counters of its hosts.
        world = getattr(self._found, "world", None)
        if world is not None:
            try:
                seen = world.hypervisor(self._host).host_figures(now=time.time())
                busy = int(seen.cpu_time_ns)
            except VorchError:
                busy = None
        cards = read_cards(self._look(self._host, FIGURES)) if self._look else {}
        return Sight(at=time.time(), host_busy_ns=busy, cards=cards, ceph=self._ceph())

    def _ceph(self) -> tuple[int, int] | None:
        if not self._pool.url.startswith("rbd:"):
            return None
        with _Ceph(self._pool) as ceph:
            return ceph.bytes_so_far()


def between(before: Sight, after: Sight) -> dict[str, float]:
    """What host and storage did in that time, by name and unit."""
    found: dict[str, float] = {}
    if before.host_busy_ns is not None and after.host_busy_ns is not None:
        found["host_cpu_s"] = max(0, after.host_busy_ns - before.host_busy_ns) / 1e9
    for card, (received, sent) in after.cards.items():
        if card in before.cards:
            found[f"host_{card}_received_bytes"] = max(0, received - before.cards[card][0])
            found[f"host_{card}_sent_bytes"] = max(0, sent - before.cards[card][1])
    if before.ceph is not None and after.ceph is not None:
        found["ceph_read_bytes"] = max(0, after.ceph[0] - before.ceph[0])
        found["ceph_written_bytes"] = max(0, after.ceph[1] - before.ceph[1])
    return found
