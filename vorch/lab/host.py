"""One host of the lab: its power, its cables, its libvirtd. Lives in the lab's daemon."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from vorch.drivers.network_hook import install_network_hook
from vorch.errors import Conflict, NotFound, StepFailed, Unsupported
from vorch.lab import processes
from vorch.lab.processes import Process
from vorch.lab.spec import LabSpec

Cable = Literal["management", "storage"]
CABLES: tuple[Cable, ...] = ("management", "storage")
TLS_PORT = 16514
# Generous: both cores may be busy with somebody else's cluster.
START_TIMEOUT_S = 60.0
LOOKS_AT_QEMU = 3
# How long the kernel may take to clear away the namespaces of the dead.
CLEARED_TIMEOUT_S = 10.0
# In a host's own mount namespace.
OWN_TMP = "/tmp"  # noqa: S108 - nobody else can reach it
# The bridge that a host's guests are plugged into; the host's own management address is on it, too.
GUEST_BRIDGE = "br0"


def run(*command: str) -> str:
    """What a program prints; its own words as the reason when it fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        words = done.stderr.strip() or done.stdout.strip() or f"status {done.returncode}"
        raise StepFailed(f"cannot run {' '.join(command)}: {words}; see the lab's daemon.log")
    return done.stdout


@dataclass(frozen=True, slots=True)
class HostStatus:
    """What can be seen of a host from outside it."""

    name: str
    power: bool
    # Each cable: "up", "cut", "slow", or "off" where there is no power.
    management: str
    storage: str
    # "running", "hung", "dead", "off".
    libvirt: str
    vms: tuple[str, ...]
    # The OSDs that run on it, where the lab is hyperconverged.
    osds: tuple[int, ...]


class LabHost:
    """`power_on` makes the namespaces, `power_off` kills their first process: nothing survives."""

    def __init__(self, spec: LabSpec, name: str) -> None:
        self.spec = spec
        self.name = name
        self.folder = spec.host_folder(name)
        self._holder: subprocess.Popen[bytes] | None = None
        self._init = 0
        self._slow: set[Cable] = set()
        self._cut: set[Cable] = set()
        self._turn = threading.RLock()

    # --- power ----------------------------------------------------------------------------------

    @property
    def is_on(self) -> bool:
        return self._holder is not None and self._holder.poll() is None

    @property
    def _console_log(self) -> Path:
        return self.spec.log_folder / f"console-{self.name}.log"

    def power_on(self) -> None:
        """Returns when its libvirtd listens. A cable that is cut stays so."""
        with self._turn:
            if self.is_on:
                return
            self.write_settings()
            script = files("vorch.lab").joinpath("host_start.sh")
            words = [processes.MARK, self.spec.name, self.name, str(self.folder), _base_python()]
            with self._console_log.open("ab") as log:
                self._holder = subprocess.Popen(
                    [
                        *("unshare", "--mount", "--uts", "--ipc", "--pid", "--net", "--fork"),
                        *("--kill-child", "--mount-proc", "sh", str(script), *words),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            self._init = processes.child_of(self._holder.pid)
            try:
                self._wait_for_init()
                self._plug_in()
                self.start_libvirt()
            except BaseException:
                self.power_off()
                raise

    def power_off(self) -> None:
        """The cut: every process of the host is gone at once, and nothing answers any more."""
        with self._turn:
            holder = self._holder
            if holder is None:
                return
            if self._init:
                with suppress(ProcessLookupError):
                    os.kill(self._init, signal.SIGKILL)
            else:
                holder.kill()
            holder.wait()
            self._holder, self._init = None, 0
            self._slow.clear()
            # The links go when the kernel has cleared the network namespace away; until then their
            # names are taken and a knock may still be answered.
            left = processes.wait_for(
                lambda: not [link for link in self._links() if _link_exists(link)],
                timeout_s=CLEARED_TIMEOUT_S,
            )
            if not left:
                for link in self._links():
                    subprocess.run(["ip", "link", "del", link], capture_output=True, check=False)

    def _wait_for_init(self) -> None:
        """Until the start script has become init: before that, its mounts are not all there."""

        def begun() -> bool:
            process = processes.seen(self._init)
            return not self.is_on or (process is not None and process.program.startswith("python"))

        processes.wait_for(begun, timeout_s=START_TIMEOUT_S)
        if not self.is_on or not begun():
            words = self._console_log.read_text().strip().splitlines()
            raise StepFailed(
                f"cannot start {self.name}: its namespaces were not made:"
                f" {' / '.join(words[-3:]) or 'no reason was given'}"
            )

    def wipe(self) -> None:
        """Forget everything: VMs, definitions, networks, files. Only its part of Ceph goes on."""
        with self._turn:
            if not self.is_on:
                shutil.rmtree(self.folder / "disk", ignore_errors=True)
                self.power_on()
                return
            doomed = [
                one
                for one in self.processes()
                if one.pid != self._init and one.program not in ("ceph-osd", "ceph-mon")
            ]
            for process in doomed:
                process.kill()
            processes.wait_for(
                lambda: all(one.state in ("", "Z") for one in doomed), timeout_s=CLEARED_TIMEOUT_S
            )
            for link in json.loads(self._inside("ip", "-json", "link")):
                if link["ifname"] not in ("lo", "eth0", "eth1", GUEST_BRIDGE):
                    # A guest's goes with its QEMU, which may be just now.
                    with suppress(StepFailed):
                        self._inside("ip", "link", "del", link["ifname"])
            # What is forwarded and let in; libvirt writes its own part anew.
            with suppress(StepFailed):
                self._inside("nft", "flush", "ruleset")
            self._inside("rm", "-rf", "/run/vorch")
            # The folders themselves stay: they are mounted.
            places = [str(one) for one in self._kept_folders()]
            self._inside("find", "/run/libvirt", OWN_TMP, *places, "-mindepth", "1", "-delete")
            self.write_settings()
            self.start_libvirt()

    def _kept_folders(self) -> list[Path]:
        disk = self.folder / "disk"
        return [
            folder
            for name in ("etc/libvirt", "var/lib/libvirt", "var/cache/libvirt", "var/log/libvirt")
            if (folder := disk / name).is_dir()
        ]

    def _plug_in(self) -> None:
        addresses = {
            "management": (self.spec.management_address(self.name), GUEST_BRIDGE),
            "storage": (self.spec.storage_address(self.name), "eth1"),
        }
        # The bridge stands where a small company's hosts have it: guests share the LAN with them.
        card = self.spec.mac_address(self.name, "management")
        bridge = ("ip", "link", "add", GUEST_BRIDGE, "address", card, "type", "bridge")
        self._inside(*bridge, "forward_delay", "0")
        for number, cable in enumerate(CABLES):
            link, port = self._link(cable), f"eth{number}"
            address, holder = addresses[cable]
            run(
                *("ip", "link", "add", link, "type", "veth"),
                *("peer", "name", port, "address", self.spec.mac_address(self.name, cable)),
                *("netns", str(self._init)),
            )
            run("ip", "link", "set", link, "master", cable)
            if holder != port:
                self._inside("ip", "link", "set", port, "master", holder)
            self._inside("ip", "link", "set", port, "up")
            self._inside("ip", "link", "set", holder, "up")
            self._inside("ip", "address", "add", f"{address}/24", "dev", holder)
            if cable not in self._cut:
                run("ip", "link", "set", link, "up")

    def _inside(self, *command: str) -> str:
        return run(*self.command(command))

    def command(self, command: Sequence[str]) -> list[str]:
        """The command line that runs a program on this host. It runs as long as the host does."""
        if not self.is_on:
            raise Conflict(
                f"cannot run {command[0]} on {self.name}: its power is off; vorch lab power-on"
                f" {self.name}{self.spec.option}"
            )
        return processes.inside(self._init, command)

    # --- cables ---------------------------------------------------------------------------------

    def cut(self, cable: Cable) -> None:
        """Pull the cable: no carrier on either end."""
        with self._turn:
            self._cut.add(cable)
            if self.is_on:
                run("ip", "link", "set", self._link(cable), "down")

    def slow(self, cable: Cable, delay_ms: float, loss_percent: float) -> None:
        """Every packet waits that long, and some are lost, in both directions."""
        rule = ["root", "netem", "delay", f"{delay_ms}ms", "loss", f"{loss_percent}%"]
        port = f"eth{CABLES.index(cable)}"
        with self._turn:
            outside = ["tc", "qdisc", "replace", "dev", self._link(cable), *rule]
            inside = self.command(["tc", "qdisc", "replace", "dev", port, *rule])
            for command in (outside, inside):
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    raise Unsupported(
                        f"cannot slow {self.name} down: this kernel has no network emulator"
                        f" ({done.stderr.strip().splitlines()[0]}); load or build the module"
                        " sch_netem"
                    )
            self._slow.add(cable)

    def mend_cables(self) -> list[str]:
        """Plug in what was cut, speed up what was slow; says what it did."""
        with self._turn:
            done = [f"{self.name}: {cable} plugged in" for cable in sorted(self._cut)]
            for cable in self._cut if self.is_on else ():
                run("ip", "link", "set", self._link(cable), "up")
            self._cut.clear()
            for cable in sorted(self._slow) if self.is_on else ():
                run("tc", "qdisc", "del", "dev", self._link(cable), "root")
                self._inside("tc", "qdisc", "del", "dev", f"eth{CABLES.index(cable)}", "root")
                done.append(f"{self.name}: {cable} at full speed")
            self._slow.clear()
            return done

    def _link(self, cable: Cable) -> str:
        """The switch's end of a cable."""
        return f"{self.name}-{cable[0]}"

    def _links(self) -> list[str]:
        return [self._link(cable) for cable in CABLES]

    def _state_of(self, cable: Cable) -> str:
        if not self.is_on:
            return "off"
        if cable in self._cut:
            return "cut"
        return "slow" if cable in self._slow else "up"

    # --- libvirt --------------------------------------------------------------------------------

    def start_libvirt(self) -> None:
        """Returns when it has answered and listens for TLS. Nothing to do where it runs."""
        if self.libvirtd() is None:
            self._inside("libvirtd", "--daemon", "--listen", "--pid-file", "/run/libvirtd.pid")
        if not processes.wait_for(self._listens, timeout_s=START_TIMEOUT_S, pause_s=0.05):
            raise StepFailed(
                f"cannot start {self.name}: its libvirtd does not listen after"
                f" {START_TIMEOUT_S:g} s; vorch lab logs {self.name}{self.spec.option}"
            )
        # The first question after a start has libvirt look at every QEMU there is. Where one of
        # them is too late with an answer it finds none, and looks again when it is asked again.
        for more in reversed(range(LOOKS_AT_QEMU)):
            try:
                self._inside("virsh", "--quiet", "--connect", "qemu:///system", "version")
                return
            except StepFailed:
                if not more:
                    raise

    def _listens(self) -> bool:
        # Asked inside the host: its cable may be cut. In hexadecimal, state 0A is LISTEN.
        with suppress(OSError):
            table = Path(f"/proc/{self._init}/net/tcp").read_text().splitlines()[1:]
            return any(
                line.split()[1].endswith(f":{TLS_PORT:04X}") and line.split()[3] == "0A"
                for line in table
            )
        return False

    def libvirtd(self) -> Process | None:
        return next((one for one in self.processes() if one.program == "libvirtd"), None)

    def hang(self) -> None:
        """libvirtd stops where it is; its VMs go on."""
        daemon = self.libvirtd()
        if daemon is None:
            raise Conflict(
                f"cannot hang libvirtd of {self.name}: it does not run; vorch lab"
                f" heal{self.spec.option}"
            )
        daemon.kill(signal.SIGSTOP)

    def freeze(self) -> None:
        """Everything stops where it is but the kernel, which goes on answering for it."""
        for process in self.processes():
            if process.pid != self._init:
                process.kill(signal.SIGSTOP)

    def wake(self) -> list[str]:
        """Undo `freeze`; says what it did."""
        stopped = [one for one in self.processes() if one.state == "T"]
        for process in stopped:
            process.kill(signal.SIGCONT)
        return [f"{self.name}: {len(stopped)} processes go on"] if stopped else []

    def wake_libvirt(self) -> list[str]:
        """Undo `hang`, or a libvirtd that died; says what it did."""
        daemon = self.libvirtd()
        if daemon is None:
            self.start_libvirt()
            return [f"{self.name}: libvirtd started"]
        if daemon.state == "T":
            daemon.kill(signal.SIGCONT)
            return [f"{self.name}: libvirtd goes on"]
        return []

    def vms(self) -> dict[str, Process]:
        """The QEMU processes of its VMs, by the VM's name."""
        return {
            guest_name(one): one
            for one in self.processes()
            if one.program.startswith("qemu-system-") and guest_name(one)
        }

    def osds(self) -> list[int]:
        """The numbers of the OSDs that run here."""
        found = [one.argv for one in self.processes() if one.program == "ceph-osd"]
        return [int(argv[argv.index("--id") + 1]) for argv in found]

    def kill_qemu(self, vm: str | None) -> tuple[str, ...]:
        """SIGKILL to one VM's QEMU, or to all of them; says whose."""
        found = self.vms()
        if vm is not None and vm not in found:
            raise NotFound(
                f"cannot kill QEMU of {vm!r}: {self.name} runs"
                f" {', '.join(sorted(found)) or 'no VMs'}"
            )
        wanted = {vm: found[vm]} if vm is not None else found
        for process in wanted.values():
            process.kill()
        for process in wanted.values():
            processes.wait_for(
                lambda process=process: process.state in ("", "Z"),  # type: ignore[misc]
                timeout_s=CLEARED_TIMEOUT_S,
            )
        return tuple(sorted(wanted))

    def processes(self) -> Iterator[Process]:
        """Everything that runs on this host."""
        if not self.is_on:
            return
        own = Process(self._init, ()).namespace
        for process in processes.running():
            if own and process.namespace == own:
                yield process

    # --- settings -------------------------------------------------------------------------------

    @property
    def log_folder(self) -> Path:
        return self.folder / "disk/var/log/libvirt"

    def write_settings(self) -> None:
        """What makes this host itself: names, addresses, how its libvirtd listens."""
        spec, etc, disk = self.spec, self.folder / "etc", self.folder / "disk"
        address = spec.management_address(self.name)
        hosts = ["127.0.0.1 localhost"]
        hosts += [f"{spec.management_address(host)} {host}" for host in spec.host_names]
        hosts += [f"{spec.storage_address(host)} {host}-storage" for host in spec.host_names]
        settings = {
            etc / "hostname": self.name,
            etc / "hosts": "\n".join(hosts),
            etc / "resolv.conf": "",
            etc / "nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files",
            etc / "machine-id": spec.host_uuid(self.name).replace("-", ""),
            disk / "etc/libvirt/libvirtd.conf": "\n".join(
                [
                    "listen_tls = 1",
                    "listen_tcp = 0",
                    f'listen_addr = "{address}"',
                    f'tls_port = "{TLS_PORT}"',
                    # No password beside the certificate, which has to be one of the lab's CA.
                    'auth_tls = "none"',
                    f'host_uuid = "{spec.host_uuid(self.name)}"',
                    'log_outputs = "3:file:/var/log/libvirt/libvirtd.log"',
                ]
            ),
            disk / "etc/libvirt/qemu.conf": "\n".join(
                [
                    'user = "root"',
                    'group = "root"',
                    'security_driver = "none"',
                    "cgroup_controllers = []",
                    "namespaces = []",
                    'stdio_handler = "file"',
                    f'migration_host = "{address}"',
                    f'migration_address = "{address}"',
                    'default_tls_x509_cert_dir = "/etc/pki/qemu"',
                    "migrate_tls_x509_verify = 1",
                ]
            ),
        }
        # Outside of a lab `vorch node hook --install`, or a package, does it.
        install_network_hook(disk / "etc/libvirt/hooks/network.d/vorch")
        # What libvirt's packages bring along, and libvirtd takes for granted.
        for name in ("var/log/libvirt/qemu", "var/lib/libvirt/images"):
            (disk / name).mkdir(parents=True, exist_ok=True)
        for path, text in settings.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n" if text else "")

    # --- looks ----------------------------------------------------------------------------------

    def status(self) -> HostStatus:
        daemon = self.libvirtd()
        if not self.is_on:
            libvirt = "off"
        elif daemon is None:
            libvirt = "dead"
        else:
            libvirt = "hung" if daemon.state == "T" else "running"
        return self._status(libvirt, self.vms())

    def _status(self, libvirt: str, vms: Iterable[str]) -> HostStatus:
        return HostStatus(
            name=self.name,
            power=self.is_on,
            management=self._state_of("management"),
            storage=self._state_of("storage"),
            libvirt=libvirt,
            vms=tuple(sorted(vms)),
            osds=tuple(sorted(self.osds())),
        )


def guest_name(process: Process) -> str:
    """The VM that a QEMU of libvirt's runs: `-name guest=web,debug-threads=on`."""
    for word, following in zip(process.argv, process.argv[1:], strict=False):
        if word == "-name":
            for part in following.split(","):
                if part.startswith("guest="):
                    return part.removeprefix("guest=")
    return ""


def _link_exists(name: str) -> bool:
    return Path("/sys/class/net", name).exists()


def _base_python() -> str:
    """The interpreter itself, not a virtual environment's link to it."""
    return os.path.realpath("/proc/self/exe")
