"""A Xen host of the lab: an emulated machine, with its cables in namespaces as every host has them.

Around the machine is the same shell as around a KVM host, so power, cables and their faults are the
same code. Inside is a dom0 with a kernel of its own; it is reached by ssh, over a network that is
this host's alone, and goes on from a saved state where there is one.
"""

from __future__ import annotations

import io
import shlex
import shutil
import subprocess
import tarfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from vorch.errors import Conflict, NotFound, StepFailed
from vorch.lab import processes, xen_machine
from vorch.lab.host import CABLES, Cable, HostStatus, LabHost, run
from vorch.lab.processes import Process
from vorch.lab.spec import LabSpec
from vorch.lab.xen_image import XenImage

# Emulated, on a machine that is busy with other things.
BOOT_TIMEOUT_S = 240.0
RESUME_TIMEOUT_S = 60.0
ANSWER_TIMEOUT_S = 60.0
LOOK_TIMEOUT_S = 15.0
CLOCK_TRIES, CLOCK_WITHIN_S = 3, 0.3
QEMU = "qemu-system-x86_64"
# Xen, libxl and libvirt in the dom0 have limits of their own, in seconds; whatever else is emulated
# here can wait. This is what `nice` takes.
AHEAD = -10
# What the dom0 knows of its guests; libvirt may be hung. All of them, or it fails: an answer that
# breaks off would look like fewer guests. One that is just ending has no name any more.
LIST_GUESTS = (
    "ids=$(xenstore-list /local/domain) || exit; for id in $ids; do"
    ' [ "$id" = 0 ] || xenstore-read "/local/domain/$id/name" 2>/dev/null || [ $? = 1 ] || exit;'
    " done"
)
# The kernel's letter for libvirtd; nothing where it does not run.
LOOK_AT_LIBVIRT = "ps -o stat= -C libvirtd | head -n 1"
# What a time server is elsewhere: Xen loses seconds where its machine gets no processor for a
# while. A file in the images' folder is as old as this machine says; what took long tells nothing.
KEEP_CLOCK = """cat >/run/keep-clock <<'END'
file=/var/lib/libvirt/images/.clock-$$
while sleep 3; do
    before=$(date +%s%3N)
    : >"$file"
    there=$(stat -c %.3Y "$file")
    after=$(date +%s%3N)
    rm -f "$file"
    off=$((${there%.*}${there#*.} - (before + after) / 2)) sign=+
    [ "$off" -ge 0 ] || { off=$((-off)) sign=-; }
    if [ $((after - before)) -lt 400 ] && [ "$off" -gt 250 ]; then
        date --set "$sign$((off / 1000)).$(printf %03d $((off % 1000))) seconds" >/dev/null
    fi
done
END
setsid sh /run/keep-clock </dev/null >/dev/null 2>&1 &
"""
# What outlives a power cut, as it does on a disk: guests' files, libvirt's hooks and secrets. And
# a way in by ssh that is like a real host's, by the management network. A libvirtd that has died is
# started again, as systemd would: 9.0 was seen to die of clients that went as it wrote to them.
SETTLE = """set -e
mkdir -p /lab/kept
mount --move /var/lib/libvirt/images /lab/kept
for place in var/lib/libvirt/images etc/libvirt/hooks etc/libvirt/secrets; do
    mkdir -p "/lab/kept/$place" "/$place"
    mount --bind "/lab/kept/$place" "/$place"
done
chmod 700 /etc/libvirt/secrets
pkill -HUP -x libvirtd
(
    while sleep 5; do
        pidof libvirtd || libvirtd --daemon --listen --pid-file /run/libvirtd.pid
    done
) </dev/null >/dev/null 2>&1 &
/usr/sbin/sshd -o ListenAddress={address} -o PidFile=none
cat /etc/ssh/ssh_host_ed25519_key.pub
"""


class LabXenHost(LabHost):
    """`power_on` resumes or boots it; `power_off` kills the shell, and the machine with it."""

    def __init__(self, spec: LabSpec, name: str, image: XenImage) -> None:
        super().__init__(spec, name)
        self.image = image
        self._place = xen_machine.Place(
            image=image.folder,
            folder=self.folder / "machine",
            console=spec.log_folder / f"console-{name}.log",
            shared=self.folder / "disk",
        )

    # --- cables ---------------------------------------------------------------------------------

    def _plug_in(self) -> None:
        """Each cable ends on a bridge in the shell, and the machine's card is on it, too."""
        for number, cable in enumerate(CABLES):
            link, port = self._link(cable), f"eth{number}"
            bridge, tap = f"in-{cable[0]}", self._tap(cable)
            run(
                *("ip", "link", "add", link, "type", "veth"),
                *("peer", "name", port, "netns", str(self._init)),
            )
            run("ip", "link", "set", link, "master", cable)
            self._inside("ip", "link", "add", bridge, "type", "bridge", "forward_delay", "0")
            self._inside("ip", "tuntap", "add", "dev", tap, "mode", "tap")
            for one in (port, tap):
                self._inside("ip", "link", "set", one, "master", bridge)
                self._inside("ip", "link", "set", one, "up")
            self._inside("ip", "link", "set", bridge, "up")
            if cable not in self._cut:
                run("ip", "link", "set", link, "up")

    @staticmethod
    def _tap(cable: Cable) -> str:
        return f"tap-{cable[0]}"

    def cut(self, cable: Cable) -> None:
        with self._turn:
            super().cut(cable)
            self._set_carrier(cable, up=False)

    def mend_cables(self) -> list[str]:
        with self._turn:
            cut = list(self._cut)
            done = super().mend_cables()
            for cable in cut:
                self._set_carrier(cable, up=True)
            return done

    def _set_carrier(self, cable: Cable, *, up: bool) -> None:
        """What the machine's own card sees of its cable."""
        if self.machine() is not None:
            name = f"eth{CABLES.index(cable)}"
            xen_machine.orders(self._place.monitor, ("set_link", {"name": name, "up": up}))

    # --- the machine ----------------------------------------------------------------------------

    def machine(self) -> Process | None:
        """Its QEMU; None where there is none, or no power."""
        return next((one for one in self.processes() if one.program == QEMU), None)

    def start_libvirt(self) -> None:
        """The whole machine, until its libvirt answers."""
        if self.machine() is None:
            self._switch_on(self.image.state)
            self._adopt()
        elif not self._libvirt_letter():
            self._in_dom0("libvirtd --daemon --listen --pid-file /run/libvirtd.pid", b"")
        if not processes.wait_for(self._answers, timeout_s=ANSWER_TIMEOUT_S, pause_s=0.2):
            raise StepFailed(
                f"cannot start {self.name}: its libvirt does not answer after"
                f" {ANSWER_TIMEOUT_S:g} s; vorch lab logs {self.name}{self.spec.option}"
            )

    def _switch_on(self, state: Path | None) -> None:
        xen_machine.fresh_disk(self._place, self.image.disk)
        (self.folder / "disk/var/lib/libvirt/images").mkdir(parents=True, exist_ok=True)
        # Of its own, so that a lab goes on when the cache is cleared; ssh wants it closed.
        key = self.spec.ssh_key(self.name)
        key.unlink(missing_ok=True)
        key.touch(mode=0o600)
        key.write_bytes(self.image.key.read_bytes())
        log = self._place.console
        before = log.stat().st_size if log.exists() else 0
        taps = [self._tap(cable) for cable in CABLES]
        line = xen_machine.command_line(self._place, taps, state)
        with log.open("ab") as words:
            shell = subprocess.Popen(
                ["nice", "-n", str(AHEAD), *self._beside(line)],
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                start_new_session=True,
            )
        # Where Linux shares its processors out by sessions first, `nice` counts within one only.
        with suppress(OSError):
            Path(f"/proc/{shell.pid}/autogroup").write_text(str(AHEAD))
        if state is None:
            begun = processes.wait_for(
                lambda: xen_machine.is_ready(log, before), timeout_s=BOOT_TIMEOUT_S, pause_s=0.2
            )
        else:
            begun = processes.wait_for(self._resumed, timeout_s=RESUME_TIMEOUT_S, pause_s=0.1)
        if not begun:
            raise StepFailed(
                f"cannot start {self.name}: its machine did not come up; vorch lab logs"
                f" {self.name}{self.spec.option}"
            )
        # A saved state had all its cables plugged in.
        for cable in CABLES:
            self._set_carrier(cable, up=cable not in self._cut)

    def _resumed(self) -> bool:
        # Of one that was saved while it stood still, QEMU lets it stand.
        with suppress(StepFailed):
            (seen,) = xen_machine.orders(self._place.monitor, ("query-status", {}))
            if seen["status"] in ("paused", "prelaunch"):
                xen_machine.orders(self._place.monitor, ("cont", {}))
            return bool(seen["status"] == "running")
        return False

    def _adopt(self) -> None:
        """The machine becomes this host: its names, addresses, certificates, the time of day."""
        spec = self.spec
        pack = io.BytesIO()
        with tarfile.open(fileobj=pack, mode="w") as archive:
            for part in ("hosts", "hostname", "machine-id", "pki"):
                archive.add(self.folder / "etc" / part, arcname=f"etc/{part}", filter=_of_root)
        words = (
            *(self.name, f"{time.time():.0f}"),
            *(spec.management_address(self.name), spec.mac_address(self.name, "management")),
            *(spec.storage_address(self.name), spec.mac_address(self.name, "storage")),
        )
        self._in_dom0(f"/lab/adopt {' '.join(words)}", pack.getvalue())
        shared = shlex.quote(str(self._place.shared))
        # What pygrub reads a disk with a format by; no udev loads it here. And the folder of
        # images by the path that it has on this machine: so it can be a pool of files.
        self._in_dom0(
            f"modprobe xen-blkfront; mkdir -p {shared}; mountpoint -q {shared} ||"
            f" mount --bind /var/lib/libvirt/images {shared}",
            b"",
        )
        address = spec.management_address(self.name)
        key = self._in_dom0(SETTLE.format(address=address), b"").split()
        spec.known_hosts(self.name).write_text(f"{address} {key[0]} {key[1]}\n")
        self._set_clock()
        self._in_dom0(KEEP_CLOCK, b"")

    def _set_clock(self) -> None:
        """As a time server would; the first setting was late by as long as the way takes."""
        for _ in range(CLOCK_TRIES):
            before = time.time()
            said = float(self._in_dom0("date +%s.%N", b""))
            ahead_s = said - (before + time.time()) / 2
            if abs(ahead_s) < CLOCK_WITHIN_S:
                return
            self._in_dom0(f"date --set '{-ahead_s:+.3f} seconds'", b"")

    def _answers(self) -> bool:
        with suppress(StepFailed):
            self._in_dom0("virsh --quiet --connect xen:///system version", b"")
            return True
        return False

    def _beside(self, line: Sequence[str]) -> list[str]:
        """In the shell, but with the lab's own view of files: the image may lie anywhere."""
        if not self._init:
            raise Conflict(f"cannot reach {self.name}: its power is off")
        return ["nsenter", f"--target={self._init}", "--net", "--pid", "--ipc", *line]

    def command(self, command: Sequence[str]) -> list[str]:
        if not self.is_on:
            return super().command(command)
        return way_in(self.spec, self.name, self._init, command)

    def _inside(self, *command: str) -> str:
        # In the shell: LabHost's code means the namespaces, not the dom0.
        return run(*processes.inside(self._init, command))

    def _in_dom0(self, line: str, data: bytes, *, timeout_s: float = ANSWER_TIMEOUT_S) -> str:
        command = way_in(self.spec, self.name, self._init, ["sh", "-c", line])
        try:
            done = subprocess.run(command, input=data, capture_output=True, timeout=timeout_s)
        except subprocess.TimeoutExpired as exc:
            raise StepFailed(
                f"cannot run a command on {self.name}: its dom0 does not answer in"
                f" {timeout_s:g} s; vorch lab heal{self.spec.option}"
            ) from exc
        if done.returncode:
            words = (done.stderr.strip() or done.stdout.strip()).decode(errors="replace")
            raise StepFailed(
                f"cannot run a command on {self.name}: {words or f'status {done.returncode}'};"
                f" vorch lab logs {self.name}{self.spec.option}"
            )
        return done.stdout.decode(errors="replace")

    # --- libvirt --------------------------------------------------------------------------------

    def _libvirt_letter(self) -> str:
        """As `ps` writes it: T for stopped; "" where it does not run."""
        return self._in_dom0(LOOK_AT_LIBVIRT, b"", timeout_s=LOOK_TIMEOUT_S).strip()[:1]

    def libvirtd(self) -> Process | None:
        """In a kernel of its own: no process of this machine's."""
        return None

    def hang(self) -> None:
        if self.machine() is None or not self._libvirt_letter():
            raise Conflict(
                f"cannot hang libvirtd of {self.name}: it does not run; vorch lab"
                f" heal{self.spec.option}"
            )
        self._in_dom0("pkill -STOP -x libvirtd", b"")

    def freeze(self) -> None:
        """The machine as a whole: unlike a KVM host's kernel, this one answers no knock, either.

        By an order to QEMU, not by a signal: who entered a namespace waits outside of it for its
        child, stops when that is stopped, and would never see it end.
        """
        if self.machine() is not None:
            xen_machine.orders(self._place.monitor, ("stop", {}))

    def wake(self) -> list[str]:
        if self.machine() is None or not self._stands_still():
            return []
        xen_machine.orders(self._place.monitor, ("cont", {}))
        return [f"{self.name}: its machine goes on"]

    def _stands_still(self) -> bool:
        (seen,) = xen_machine.orders(self._place.monitor, ("query-status", {}))
        return bool(seen["status"] == "paused")

    def wake_libvirt(self) -> list[str]:
        if self.machine() is None:
            self.start_libvirt()
            return [f"{self.name}: its machine started"]
        # What stands still has to go on before it can be asked.
        done = self.wake()
        letter = self._libvirt_letter()
        if not letter:
            self.start_libvirt()
            return [*done, f"{self.name}: libvirtd started"]
        if letter == "T":
            self._in_dom0("pkill -CONT -x libvirtd", b"")
            return [*done, f"{self.name}: libvirtd goes on"]
        return done

    def wipe(self) -> None:
        """A machine that was never used is a resume away."""
        with self._turn:
            self.power_off()
            shutil.rmtree(self.folder / "disk", ignore_errors=True)
            self.power_on()

    def guests(self) -> tuple[str, ...]:
        """The names of the VMs that run here, whatever libvirt is doing."""
        if self.machine() is None:
            return ()
        return tuple(sorted(self._in_dom0(LIST_GUESTS, b"", timeout_s=LOOK_TIMEOUT_S).split()))

    def osds(self) -> list[int]:
        return []

    def kill_qemu(self, vm: str | None) -> tuple[str, ...]:
        """A PV guest has no QEMU: Xen destroys it, and libvirt hears of it afterwards."""
        found = self.guests()
        if vm is not None and vm not in found:
            raise NotFound(
                f"cannot destroy {vm!r}: {self.name} runs {', '.join(found) or 'no VMs'}"
            )
        for name in found if vm is None else (vm,):
            self._in_dom0(f"xl destroy {shlex.quote(name)}", b"")
        return found if vm is None else (vm,)

    # --- looks ----------------------------------------------------------------------------------

    def status(self) -> HostStatus:
        libvirt = "dead" if self.is_on else "off"
        vms: tuple[str, ...] = ()
        if self.machine() is not None:
            libvirt = "hung"
            with suppress(StepFailed):
                # Stopped as a whole, it answers nothing.
                if not self._stands_still():
                    letter, vms = self._libvirt_letter(), self.guests()
                    libvirt = {"": "dead", "T": "hung"}.get(letter, "running")
        return self._status(libvirt, vms)


def way_in(
    spec: LabSpec, host: str, init: int, command: Sequence[str], *, terminal: bool = False
) -> list[str]:
    """The command line that runs a program in a Xen host's dom0."""
    folder = spec.host_folder(host) / "machine"
    ssh = xen_machine.way_in(folder / "key", folder, terminal=terminal)
    # What ssh is told it passes to a shell as one line.
    words = shlex.join(command)
    return ["nsenter", f"--target={init}", "--net", "--pid", *ssh, "--", words]


def _of_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member
