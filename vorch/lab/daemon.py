"""The lab's daemon: holds the switches, the hosts and Ceph, and does to them what it is told.

It runs in namespaces of the lab's own, as the child of their first process. Every other process of
the lab is below that one, so the kernel takes all of them when the daemon ends, however it ends.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from vorch.drivers.kvm import KvmHost
from vorch.errors import Invalid, Unreachable, Unsupported
from vorch.lab import certificates, control
from vorch.lab.ceph import LabCeph
from vorch.lab.control import Say
from vorch.lab.host import CABLES, Cable, LabHost, run
from vorch.lab.spec import BMC_PASSWORD, BMC_USER, LabSpec
from vorch.lab.xen_host import LabXenHost
from vorch.lab.xen_image import XenImage
from vorch.model import Node
from vorch.ports import no_progress

BmcFault = Literal["silent", "refuse", "stuck"]
BMC_FAULTS: tuple[BmcFault, ...] = ("silent", "refuse", "stuck")
HEALTHY_TIMEOUT_S = 120.0
REDFISH_PORT, IPMI_PORT = 443, 623


@dataclass(slots=True)
class BmcState:
    """One host's BMC: its process, and what is wrong with it."""

    process: subprocess.Popen[bytes] | None = None
    fault: BmcFault | None = None


class LabDaemon:
    """One method per verb of the control socket."""

    def __init__(self, spec: LabSpec) -> None:
        self.spec = spec
        self.hosts = {name: LabHost(spec, name) for name in spec.kvm_names}
        if spec.xen:
            folder = Path(spec.xen_image)
            image = XenImage(folder, saved=(folder / "state").exists())
            self.hosts |= {name: LabXenHost(spec, name, image) for name in spec.xen_names}
        self.ceph = LabCeph(spec, self._place) if spec.ceph else None
        self.bmcs = {name: BmcState() for name in spec.host_names}
        # What guests run under: "kvm", or "tcg" where KVM does not really work.
        self.accelerator = ""
        # Faults and their cure come one after the other.
        self._turn = threading.RLock()

    def handle(self, verb: str, arguments: dict[str, Any], say: Say) -> Any:
        act: Callable[..., Any] | None = getattr(self, f"do_{verb}", None)
        if act is None:
            raise Invalid(f"cannot {verb}: the lab's daemon knows no such verb; make the lab anew")
        return act(say, **arguments)

    # --- making ---------------------------------------------------------------------------------

    def do_build(self, say: Say) -> None:
        """Everything, from bare namespaces to HEALTH_OK."""
        certificates.write(self.spec)
        self._make_switches()
        say(f"networks {self.spec.management} (management) and {self.spec.storage} (storage)")
        with ThreadPoolExecutor(len(self.hosts) + 1) as pool:
            hosts = [pool.submit(self._first_power_on, name, say) for name in self.hosts]
            ceph = pool.submit(self._build_ceph, say, hosts) if self.ceph else None
            for one in hosts:
                one.result()
            probe = pool.submit(self._probe, say)
            if ceph is not None:
                ceph.result()
            probe.result()
        if self.ceph:
            # Those that live on hosts had to wait for them.
            self.ceph.add_osds(say)
            self.ceph.add_pool()
            self.ceph.wait_healthy(say, HEALTHY_TIMEOUT_S)
            say("Ceph: HEALTH_OK")

    def _build_ceph(self, say: Say, hosts: Sequence[Future[None]]) -> None:
        assert self.ceph is not None
        self.ceph.make(say, hosts_are_on=lambda: [one.result() for one in hosts])

    def _first_power_on(self, name: str, say: Say) -> None:
        self._start_bmc(name)
        self.hosts[name].power_on()
        say(f"{name}: libvirt answers at {self.spec.management_address(name)}")

    def _probe(self, say: Say) -> None:
        """Whether KVM really runs guests here. All hosts are on the same machine: one tells."""
        first = self.spec.host_names[0]
        host = KvmHost(Node(name=first, uri=self.spec.uri(first)))
        try:
            facts = host.probe(no_progress)
        finally:
            host.close()
        self.accelerator, why = facts.accelerator, facts.accelerator_why
        say("guests run under KVM" if self.accelerator == "kvm" else f"guests are emulated: {why}")

    def _make_switches(self) -> None:
        # What /sys shows of networks belongs to the namespace it was mounted in.
        run("mount", "-t", "sysfs", "sysfs", "/sys")
        run("ip", "link", "set", "lo", "up")
        for cable in CABLES:
            # Left to itself, a bridge takes on the address of one port or another as they come and
            # go, and everybody's ARP table is wrong for a while.
            card = self.spec.mac_address("switch", cable)
            bridge = ("ip", "link", "add", cable, "address", card, "type", "bridge")
            run(*bridge, "forward_delay", "0")
            run("ip", "link", "set", cable, "up")
            # The other end of the link that `up` has put in here.
            run("ip", "link", "set", f"own-{cable[0]}", "master", cable)
            run("ip", "link", "set", f"own-{cable[0]}", "up")
        for name in self.hosts:
            address = self.spec.bmc_address(name)
            run("ip", "address", "add", f"{address}/24", "dev", "management")
        self._start_dhcp()

    def _start_dhcp(self) -> None:
        """For guests on the management network, as an office's router has it."""
        first, last = self.spec.guest_range
        folder = self.spec.folder / "dhcp"
        folder.mkdir()
        run("ip", "address", "add", f"{self.spec.dhcp_address}/24", "dev", "management")
        # What never leaves a machine needs no checksum, thinks the kernel; a guest's DHCP client,
        # which looks at raw packets, thinks otherwise.
        run("ethtool", "--offload", "management", "tx", "off")
        with (self.spec.log_folder / "dhcp.log").open("ab") as log:
            subprocess.Popen(
                [
                    *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0"),
                    # Asking around first whether an address is free takes three seconds, and no
                    # guest of a test waits that long.
                    *("--interface=management", "--bind-interfaces", "--no-ping"),
                    *(f"--dhcp-range={first},{last},1h", "--dhcp-authoritative", "--user=root"),
                    *(f"--dhcp-option=option:router,{self.spec.own_management}",),
                    *(f"--dhcp-leasefile={folder}/leases", "--log-facility=-"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _place(self, host: str | None, command: Sequence[str]) -> Sequence[str]:
        return self.hosts[host].command(command) if host else command

    # --- power ----------------------------------------------------------------------------------

    def do_power_off(self, say: Say, host: str) -> None:
        self._power_off(self._host(host))
        say(f"{host}: power is off")

    def do_power_on(self, say: Say, host: str) -> None:
        self._power_on(self._host(host))
        say(f"{host}: power is on, libvirt answers")

    def do_reboot(self, say: Say, host: str) -> None:
        found = self._host(host)
        self._power_off(found)
        self._power_on(found)
        say(f"{host}: rebooted")

    def _power_off(self, host: LabHost) -> None:
        with self._turn:
            host.power_off()

    def _power_on(self, host: LabHost) -> None:
        with self._turn:
            host.power_on()
            if self.ceph:
                for mon in self.spec.mons_of(host.name):
                    self.ceph.start_mon(mon)
                for osd in self.spec.osds_of(host.name):
                    self.ceph.start_osd(osd)

    # --- faults ---------------------------------------------------------------------------------

    def do_cut(self, say: Say, host: str, network: str) -> None:
        for cable in _cables(network):
            self._host(host).cut(cable)
            say(f"{host}: {cable} network is cut")

    def do_slow(
        self, say: Say, host: str, network: str, delay_ms: float, loss_percent: float
    ) -> None:
        for cable in _cables(network):
            self._host(host).slow(cable, delay_ms, loss_percent)
            say(f"{host}: {cable} network delays {delay_ms:g} ms and loses {loss_percent:g} %")

    def do_hang(self, say: Say, host: str) -> None:
        self._host(host).hang()
        say(f"{host}: libvirtd hangs")

    def do_freeze(self, say: Say, host: str) -> None:
        self._host(host).freeze()
        say(f"{host}: everything on it stands still")

    def do_kill_qemu(self, say: Say, host: str, vm: str | None) -> list[str]:
        killed = self._host(host).kill_qemu(vm)
        say(f"{host}: killed the QEMU of {', '.join(killed) or 'nobody: no VM runs'}")
        return list(killed)

    def do_osd_kill(self, say: Say, osd: int) -> None:
        self._ceph().kill(f"osd.{osd}")
        say(f"Ceph: osd.{osd} killed")

    def do_osd_replace(self, say: Say, osd: int) -> None:
        with self._turn:
            self._ceph().replace_osd(osd)
        say(f"Ceph: osd.{osd} replaced by an empty one")

    def do_mon_kill(self, say: Say, mon: str) -> None:
        self._ceph().kill(f"mon.{mon}")
        say(f"Ceph: mon.{mon} killed")

    def do_bmc_break(self, say: Say, host: str, how: str) -> None:
        self._host(host)
        if how not in BMC_FAULTS:
            raise Invalid(f"cannot break a BMC {how!r}: use one of {', '.join(BMC_FAULTS)}")
        state = self.bmcs[host]
        state.fault = how
        if how == "silent" and state.process is not None:
            state.process.send_signal(signal.SIGSTOP)
        say(f"{host}: BMC is broken ({how})")

    def do_heal(self, say: Say, timeout_s: float = HEALTHY_TIMEOUT_S) -> None:
        """Undo every fault, and see to it that all is well again."""
        with self._turn:
            for name, state in self.bmcs.items():
                if state.fault is not None:
                    state.fault = None
                    say(f"{name}: BMC mended")
                if state.process is not None:
                    state.process.send_signal(signal.SIGCONT)
            for host in self.hosts.values():
                for line in host.mend_cables():
                    say(line)
            off = [host for host in self.hosts.values() if not host.is_on]
            with ThreadPoolExecutor(max(1, len(off))) as pool:
                for host, _ in zip(off, pool.map(lambda one: one.power_on(), off), strict=True):
                    say(f"{host.name}: power is on, libvirt answers")
            for host in self.hosts.values():
                libvirtd = host.wake_libvirt()
                for line in (*libvirtd, *host.wake()):
                    say(line)
            if self.ceph:
                for line in self.ceph.heal():
                    say(line)
                self.ceph.wait_healthy(say, timeout_s)
                say("Ceph: HEALTH_OK")

    def do_reset(self, say: Say) -> None:
        """Heal, and take away what guests and tests have left: VMs, disks, clients' fences."""
        with self._turn:
            with ThreadPoolExecutor(len(self.hosts)) as pool:
                list(pool.map(lambda host: host.wipe(), self.hosts.values()))
            if self.ceph:
                for line in self.ceph.heal():
                    say(line)
                self.ceph.empty(say)
            self.do_heal(say)

    # --- BMCs -----------------------------------------------------------------------------------

    def _start_bmc(self, name: str) -> None:
        folder = self.spec.folder / "bmc"
        folder.mkdir(exist_ok=True)
        settings = folder / f"{name}.json"
        settings.touch(mode=0o600)
        settings.write_text(
            json.dumps(
                {
                    "host": name,
                    "address": self.spec.bmc_address(name),
                    "redfish_port": REDFISH_PORT,
                    "ipmi_port": IPMI_PORT,
                    "user": BMC_USER,
                    "password": BMC_PASSWORD,
                    "certificate": str(self.spec.pki / "bmc" / f"{name}.pem"),
                    "key": str(self.spec.pki / "bmc" / f"{name}.key"),
                    "control": str(self.spec.control),
                }
            )
        )
        with (self.spec.log_folder / f"bmc-{name}.log").open("ab") as log:
            self.bmcs[name].process = subprocess.Popen(
                [sys.executable, "-m", "vorch.lab.bmc", str(settings)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    # What a BMC's process asks for; a broken one gets the answers of a broken one.

    def do_power_state(self, say: Say, host: str) -> bool:
        self._bmc_answers(host)
        return self._host(host).is_on

    def do_bmc_power_on(self, say: Say, host: str) -> None:
        if self._bmc_answers(host):
            self._power_on(self._host(host))

    def do_bmc_power_off(self, say: Say, host: str) -> None:
        if self._bmc_answers(host):
            self._power_off(self._host(host))

    def do_bmc_power_reset(self, say: Say, host: str) -> None:
        if self._bmc_answers(host):
            self.do_reboot(say, host)

    def _bmc_answers(self, host: str) -> bool:
        """False where it takes orders and does nothing."""
        fault = self.bmcs[host].fault
        if fault == "refuse":
            raise Unreachable(
                f"cannot reach the power of {host}: its BMC is broken; vorch lab heal"
            )
        return fault is None

    # --- looks ----------------------------------------------------------------------------------

    def do_status(self, say: Say) -> dict[str, Any]:
        with ThreadPoolExecutor(2) as pool:
            ceph = pool.submit(self.ceph.status) if self.ceph else None
            hosts = [asdict(host.status()) for host in self.hosts.values()]
            for row in hosts:
                row["bmc"] = self._bmc_state(row["name"])
            return {
                "accelerator": self.accelerator,
                "hosts": hosts,
                "ceph": asdict(ceph.result()) if ceph else None,
                "daemons": {name: self.ceph.runs(name) for name in self.ceph.known}
                if self.ceph
                else {},
            }

    def _bmc_state(self, name: str) -> str:
        state = self.bmcs[name]
        if state.process is None or state.process.poll() is not None:
            return "dead"
        return state.fault or "ok"

    # --- the parts ------------------------------------------------------------------------------

    def _host(self, name: str) -> LabHost:
        return self.hosts[self.spec.known_host(name)]

    def _ceph(self) -> LabCeph:
        if self.ceph is None:
            raise Unsupported(
                f"cannot do that to Ceph: lab {self.spec.name!r} was made without one; make"
                " another lab without --no-ceph"
            )
        return self.ceph


def _cables(network: str) -> tuple[Cable, ...]:
    wanted = tuple(cable for cable in CABLES if network in (cable, "both"))
    if not wanted:
        raise Invalid(f"cannot find network {network!r}: use {', '.join(CABLES)} or both")
    return wanted


def main(arguments: Sequence[str]) -> int:
    """usage: python -m vorch.lab.daemon FOLDER"""
    folder = Path(arguments[0])
    spec = LabSpec.load(folder.name, folder.parent)
    server = control.Server(spec.control, LabDaemon(spec).handle)
    server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
