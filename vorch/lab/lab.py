"""A lab as its user holds it: made, found again, broken, healed, taken down."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vorch.errors import Conflict, Denied, NotFound, StepFailed, Unsupported
from vorch.lab import control, guest, processes, ranges, xen_image
from vorch.lab import xen_live as live_image
from vorch.lab.ceph import CephStatus
from vorch.lab.control import Say
from vorch.lab.host import HostStatus
from vorch.lab.processes import MARK
from vorch.lab.spec import DEFAULT_NAME, DEFAULT_RANGE, HOME, LabSpec
from vorch.lab.xen_host import way_in

# Every program that a lab runs, and the Debian package that brings it.
PROGRAMS = {
    "ip": "iproute2",
    "tc": "iproute2",
    "ethtool": "ethtool",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "mount": "mount",
    "libvirtd": "libvirt-daemon-system",
    "virsh": "libvirt-clients",
    "dnsmasq": "dnsmasq-base",
    "qemu-system-x86_64": "qemu-system-x86",
}
PROGRAMS_FOR_CEPH = {
    "ceph-mon": "ceph-mon",
    "ceph-mgr": "ceph-mgr",
    "ceph-osd": "ceph-osd",
    "ceph-authtool": "ceph-common",
    "monmaptool": "ceph-common",
}
DAEMON_TIMEOUT_S = 30.0
GONE_TIMEOUT_S = 20.0
LOGS_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class HostRow(HostStatus):
    """What `status` says of a host: what can be seen of it, and its BMC."""

    # "ok", "dead", or what is wrong with it.
    bmc: str


@dataclass(frozen=True, slots=True)
class LabStatus:
    """What can be seen of a lab."""

    name: str
    # What guests can run under: "kvm", or "tcg" where KVM does not really work.
    accelerator: str = ""
    hosts: tuple[HostRow, ...] = ()
    ceph: CephStatus | None = None
    # Each Ceph daemon: does it run?
    daemons: tuple[tuple[str, bool], ...] = ()


class Lab:
    """A handle on a lab that stands; it holds nothing open, so any number may be about."""

    def __init__(self, spec: LabSpec) -> None:
        self.spec = spec

    @staticmethod
    def find(name: str = DEFAULT_NAME, *, home: Path = HOME) -> Lab:
        return Lab(LabSpec.load(name, home))

    # --- power and faults -----------------------------------------------------------------------

    def power_off(self, host: str) -> None:
        """Cut the power: libvirtd, every QEMU and every OSD on the host are gone at once."""
        self._call("power_off", host=host)

    def power_on(self, host: str) -> None:
        self._call("power_on", host=host)

    def reboot(self, host: str) -> None:
        """Power off and on again: whatever ran is gone."""
        self._call("reboot", host=host)

    def cut(self, host: str, network: str = "both") -> None:
        """Pull the host's cable to `management`, `storage` or `both`."""
        self._call("cut", host=host, network=network)

    def slow(
        self, host: str, network: str = "both", *, delay_ms: float = 200, loss_percent: float = 0
    ) -> None:
        self._call("slow", host=host, network=network, delay_ms=delay_ms, loss_percent=loss_percent)

    def hang(self, host: str) -> None:
        """libvirtd stops answering; its VMs go on."""
        self._call("hang", host=host)

    def freeze(self, host: str) -> None:
        """Everything on the host stands still; its kernel still answers a knock."""
        self._call("freeze", host=host)

    def kill_qemu(self, host: str, vm: str | None = None) -> tuple[str, ...]:
        """Kill the QEMU of a VM, or of all VMs there; whose it was."""
        return tuple(self._call("kill_qemu", host=host, vm=vm))

    def osd_kill(self, osd: int) -> None:
        self._call("osd_kill", osd=osd)

    def osd_replace(self, osd: int) -> None:
        """Take an OSD out for good and put an empty one in its place."""
        self._call("osd_replace", osd=osd)

    def mon_kill(self, mon: str = "a") -> None:
        self._call("mon_kill", mon=mon)

    def bmc_break(self, host: str, how: str = "silent") -> None:
        """`silent` answers nothing, `refuse` fails every order, `stuck` obeys and does nothing."""
        self._call("bmc_break", host=host, how=how)

    def heal(self, *, timeout_s: float = 120, say: Say | None = None) -> None:
        """Undo every fault; returns when Ceph is healthy and every libvirt answers."""
        self._call("heal", say=say, timeout_s=timeout_s)

    def reset(self, *, say: Say | None = None) -> None:
        """Heal, and remove all VMs, disks and fences: as after `up`, in a few seconds."""
        self._call("reset", say=say)

    # --- looks ----------------------------------------------------------------------------------

    def status(self) -> LabStatus:
        seen = self._call("status")
        return LabStatus(
            name=self.spec.name,
            accelerator=seen["accelerator"],
            hosts=tuple(
                HostRow(**{**row, "vms": tuple(row["vms"]), "osds": tuple(row["osds"])})
                for row in seen["hosts"]
            ),
            ceph=CephStatus(**{**seen["ceph"], "checks": tuple(seen["ceph"]["checks"])})
            if seen["ceph"]
            else None,
            daemons=tuple(seen["daemons"].items()),
        )

    def command(self, host: str, command: Sequence[str], *, terminal: bool = False) -> list[str]:
        """The command line that runs a program on a host, for subprocess.

        `terminal`: it talks to somebody at one, which a Xen host's has to be made for.
        """
        self.spec.known_host(host)
        init = processes.init_of(self.spec.name, host)
        if init is None:
            raise Conflict(
                f"cannot run anything on {host}: its power is off; vorch lab power-on"
                f" {host}{self.spec.option}"
            )
        if host in self.spec.xen_names:
            return way_in(self.spec, host, init.pid, command, terminal=terminal)
        return processes.inside(init.pid, command)

    def log_files(self, part: str) -> tuple[Path, ...]:
        """The logs of a host, of a Ceph daemon such as osd.0, or of the lab itself."""
        spec = self.spec
        if part in spec.host_names:
            files = [spec.log_folder / f"{kind}-{part}.log" for kind in ("console", "bmc")]
            # Those of a Xen host are in its own disk (`own_logs`).
            files += sorted((spec.host_folder(part) / "disk/var/log/libvirt").rglob("*.log"))
        elif part == "lab":
            files = [spec.log_folder / "daemon.log", spec.log_folder / "dhcp.log"]
        else:
            files = [spec.log_folder / f"ceph-{part}.log"]
        found = tuple(file for file in files if file.exists())
        if not found:
            raise NotFound(
                f"cannot show logs of {part!r}: lab {spec.name!r} has no such part; use a host"
                f" ({', '.join(spec.host_names)}), a daemon such as osd.0, mon.a or mgr.x, or lab"
            )
        return found

    def own_logs(self, host: str, lines: int) -> str:
        """The last lines of what a Xen host logs in its own disk; "" while it does not answer."""
        if host not in self.spec.xen_names:
            return ""
        places = "/var/log/libvirt /var/log/xen"
        line = f"find {places} -name '*.log' -size +0 -exec tail -v -n {lines} {{}} +"
        try:
            done = subprocess.run(
                self.command(host, ["sh", "-c", line]), capture_output=True, timeout=LOGS_TIMEOUT_S
            )
        except (Conflict, subprocess.TimeoutExpired):
            return ""
        return done.stdout.decode(errors="replace")

    def _call(self, verb: str, *, say: Say | None = None, **arguments: Any) -> Any:
        return control.call(self.spec.control, verb, say=say, **arguments)


# --- up ---------------------------------------------------------------------------------------


def up(
    name: str = DEFAULT_NAME,
    *,
    hosts: int = 3,
    xen: int = 0,
    xen_live: bool = False,
    osds: int = 3,
    mons: int = 1,
    hyperconverged: bool = False,
    one_network: bool = False,
    address_range: str = DEFAULT_RANGE,
    home: Path = HOME,
    say: Say | None = None,
) -> Lab:
    """Make a lab; returns when every host answers and Ceph is healthy. `osds=0`: without Ceph.

    `one_network` puts Ceph on the management network. `xen` hosts come beside the others; the
    first of them ever is built, which takes minutes. With `xen_live` they have a hypervisor of
    their own, built of Debian's source, which moves PV guests while they run.
    What fails or is interrupted leaves nothing behind.
    """
    tell = say or (lambda _: None)
    wanted = LabSpec(
        name=name,
        hosts=hosts,
        xen=xen,
        xen_live=xen_live,
        osds=osds,
        mons=mons,
        hyperconverged=hyperconverged,
        one_network=one_network,
        home=str(home),
    )
    _check_machine(wanted)
    if wanted.xen:
        wanted = replace(wanted, xen_image=_build_xen(wanted, tell))
    with _only_one(name):
        if wanted.folder.exists() or processes.holders(name):
            raise Conflict(
                f"cannot make lab {name!r}: there is one already, or what a crash has left of one;"
                f" use it, take it down with vorch lab down --name {name}, or choose another --name"
            )
        try:
            return _up(wanted, address_range, tell)
        except BaseException as exc:
            _keep_logs(wanted, exc, tell)
            _clear(name, home)
            raise


def _up(wanted: LabSpec, address_range: str, say: Say) -> Lab:
    # Two labs that begin in one moment must not choose the same networks.
    with _only_one("/ranges"):
        management, storage = ranges.choose(address_range, ranges.taken_here())
        spec = replace(wanted, management=management, storage=storage)
        spec.log_folder.mkdir(parents=True)
        # Keys lie in it.
        spec.folder.chmod(0o700)
        spec.save()
        _start_daemon(spec)
    control.call(spec.control, "build", say=say)
    return Lab(spec)


def _build_xen(spec: LabSpec, say: Say) -> str:
    """Before anything of the lab is there: it may take minutes, and needs the way to archives."""
    try:
        build = live_image.build if spec.xen_live else xen_image.build
        return str(build(report=say).folder)
    except guest.GuestBuildError as exc:
        raise Unsupported(str(exc)) from exc


def _start_daemon(spec: LabSpec) -> None:
    python = os.path.realpath(sys.executable)
    init = Path(__file__).with_name("init.py")
    with (spec.log_folder / "daemon.log").open("ab") as log:
        holder = subprocess.Popen(
            [
                *("unshare", "--mount", "--net", "--ipc", "--pid", "--fork", "--kill-child"),
                *("--mount-proc", python, "-I", "-S", str(init), MARK, spec.name, "lab"),
                *("--", sys.executable, "-m", "vorch.lab.daemon", str(spec.folder)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env={**os.environ, "PATH": _path(), "LC_ALL": "C.UTF-8", "PYTHONUNBUFFERED": "1"},
            # Ctrl-C at the terminal is for `up`, which then clears away in order.
            start_new_session=True,
        )
    init_pid = processes.child_of(holder.pid)
    addresses = (spec.own_management, spec.own_storage)
    for link, address in zip(spec.own_links, addresses, strict=True):
        other = f"own-{link[-1]}"
        _ip("link", "add", link, "type", "veth", "peer", "name", other, "netns", str(init_pid))
        _ip("address", "add", f"{address}/24", "dev", link)
        _ip("link", "set", link, "up")
    listens = processes.wait_for(
        lambda: spec.control.exists() or holder.poll() is not None, timeout_s=DAEMON_TIMEOUT_S
    )
    if not listens or holder.poll() is not None:
        words = (spec.log_folder / "daemon.log").read_text().strip().splitlines()
        raise StepFailed(
            f"cannot make lab {spec.name!r}: its daemon does not start:"
            f" {' / '.join(words[-3:]) or 'it says nothing'}; mend that and try again"
        )


def _check_machine(spec: LabSpec) -> None:
    if sys.platform != "linux":
        raise Unsupported("cannot make a lab: it is made of Linux namespaces; use a Linux machine")
    if os.geteuid() != 0:
        raise Denied(
            "cannot make a lab: namespaces, bridges and mounts need root; run it again with sudo"
        )
    missing = missing_programs(ceph=spec.ceph)
    if missing:
        raise Unsupported(
            f"cannot make a lab: {', '.join(missing)} not found; apt-get install"
            f" {' '.join(sorted(set(missing.values())))}"
            + ("" if set(missing) <= set(PROGRAMS) else ", or add --no-ceph")
        )
    trial = subprocess.run(
        ["unshare", "--mount", "--net", "--ipc", "--uts", "--pid", "--fork", "true"],
        capture_output=True,
        text=True,
    )
    if trial.returncode:
        raise Unsupported(
            f"cannot make a lab: this machine lets nobody make namespaces ({trial.stderr.strip()});"
            " a container needs --privileged, or use a virtual machine"
        )


def missing_programs(*, ceph: bool) -> dict[str, str]:
    """The programs that a lab needs and this machine lacks, each with its Debian package."""
    wanted = {**PROGRAMS, **(PROGRAMS_FOR_CEPH if ceph else {})}
    return {
        program: package
        for program, package in wanted.items()
        if shutil.which(program, path=_path()) is None
    }


def _path() -> str:
    # The daemons stand in sbin, which is not in every root's PATH.
    return f"{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/local/sbin:/usr/sbin:/sbin"


# --- down -------------------------------------------------------------------------------------


def down(name: str = DEFAULT_NAME, *, home: Path = HOME) -> None:
    """Take a lab down, or what a crash has left of one. Nothing of it remains."""
    if os.geteuid() != 0:
        raise Denied("cannot take a lab down: its processes belong to root; run it with sudo")
    LabSpec(name=name)
    there = (home / name).exists() or processes.holders(name) or _own_links_of(name)
    if not there:
        LabSpec.load(name, home)
    _clear(name, home)


def names(*, home: Path = HOME) -> tuple[str, ...]:
    """Every lab of this machine, those that crashed among them."""
    found = {one.lab for one in processes.holders()}
    with suppress(FileNotFoundError):
        found.update(entry.name for entry in home.iterdir() if entry.is_dir())
    return tuple(sorted(found))


def _clear(name: str, home: Path) -> None:
    def hold() -> list[processes.Holder]:
        left = processes.holders(name)
        for one in left:
            one.process.kill()
        return left

    # Those that were just being started may have children still to come.
    if not processes.wait_for(lambda: not hold(), timeout_s=GONE_TIMEOUT_S):
        raise StepFailed(
            f"cannot take lab {name!r} down: process"
            f" {', '.join(str(one.process.pid) for one in hold())} does not die; see what it waits"
            " for in /proc/PID/stack, and run it again"
        )
    # The kernel clears the namespaces, and with them these links, a little later.
    if not processes.wait_for(lambda: not _own_links_of(name), timeout_s=2):
        for link in _own_links_of(name):
            with suppress(StepFailed):
                _ip("link", "del", link)
    folder = home / name
    if folder.exists():
        shutil.rmtree(folder)
    # Not ours alone: another lab may stand in it.
    for empty in (home, home.parent):
        with suppress(OSError):
            empty.rmdir()


def _own_links_of(name: str) -> list[str]:
    wanted = LabSpec(name=name).own_links
    return [link for link in wanted if Path("/sys/class/net", link).exists()]


def _keep_logs(spec: LabSpec, exc: BaseException, say: Say) -> None:
    """The reason of a failure must outlive the folder it stands in."""
    if not isinstance(exc, Exception) or not spec.log_folder.exists():
        return
    with (
        suppress(OSError),
        tempfile.NamedTemporaryFile(
            "w", prefix=f"vorch-lab-{spec.name}-", suffix=".log", delete=False
        ) as out,
    ):
        for file in sorted(spec.log_folder.glob("*.log")):
            out.write(f"==> {file.name}\n{file.read_text(errors='replace')[-20000:]}\n")
        say(f"the lab's logs were kept in {out.name}")


@contextmanager
def _only_one(name: str) -> Iterator[None]:
    """One at a time for that name: an abstract socket leaves no file and dies with its process."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as lock:
        deadline = time.monotonic() + DAEMON_TIMEOUT_S
        while True:
            try:
                lock.bind(f"\0vorch-lab/{name}")
            except OSError:
                if time.monotonic() > deadline or not name.startswith("/"):
                    raise Conflict(
                        f"cannot make lab {name!r}: another process is at it; wait for that one"
                    ) from None
                time.sleep(0.1)
            else:
                break
        yield


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise StepFailed(
            f"cannot run ip {' '.join(words)}: {done.stderr.strip()}; vorch lab down clears away"
            " what is there"
        )
