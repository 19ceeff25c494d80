"""The machine that a Xen host of the lab is: its QEMU, the orders to that, the way into its dom0.

Xen wants the whole of a processor, so it cannot live in namespaces: it gets an emulated one. What
stands on the command line here decides whether a saved state can be resumed; its text is part of
that state's name.
"""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vorch.errors import StepFailed

MEMORY_MIB = 2048
DOM0_MIB = 640
# What QEMU's emulated processor must have and must not have for Xen 4.17, Linux as its dom0 and
# libvirt's tables of processors: docs/adr/0025 says why for each.
PROCESSOR = (
    "EPYC,-smap,-smep,-monitor,-rdtscp,+vme,x-force-features=on,-rdseed,-sha-ni,-fxsr-opt,"
    "-misalignsse,-3dnowprefetch,-osvw,-topoext,-nrip-save,-xsavec"
)
XEN_WORDS = (
    f"console=com1 com1=115200,8n1 dom0_mem={DOM0_MIB}M,max:{DOM0_MIB}M loglvl=warning"
    " guest_loglvl=warning sched=credit spec-ctrl=no,eager-fpu xpti=no pv-l1tf=no tsc=unstable"
)
DOM0_WORDS = "console=hvc0 net.ifnames=0 mitigations=off quiet cryptomgr.notests"
# Where the dom0 listens for the lab, behind QEMU's own small network; and outside of it.
SSH_PORT = 2222
MONITOR_TIMEOUT_S = 60.0
# Cards that a saved state knows; each host changes them for its own when it is resumed.
CARDS = ("02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03")


@dataclass(frozen=True, slots=True)
class Place:
    """Where one machine has its files."""

    image: Path
    folder: Path
    console: Path
    # What the dom0 sees of this machine's files.
    shared: Path

    @property
    def disk(self) -> Path:
        return self.folder / "dom0.qcow2"

    @property
    def monitor(self) -> Path:
        return self.folder / "monitor"


def hardware() -> list[str]:
    """What a saved state depends on."""
    return [
        *("-machine", "pc-i440fx-7.2", "-accel", "tcg,thread=multi,tb-size=256"),
        *("-cpu", PROCESSOR, "-smp", "2", "-m", str(MEMORY_MIB)),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-device", "virtio-blk-pci,drive=disk"),
        *(
            word
            for number, card in enumerate(CARDS)
            for word in ("-device", f"virtio-net-pci,id=eth{number},netdev=n{number},mac={card}")
        ),
        *("-device", "virtio-9p-pci,fsdev=images,mount_tag=images"),
    ]


def command_line(place: Place, taps: Sequence[str], resume: Path | None) -> list[str]:
    """QEMU with cards on these taps; without taps, for the build of a state, on nothing."""
    plugs = [
        f"tap,id=n{number},ifname={taps[number]},script=no,downscript=no"
        if taps
        else f"user,id=n{number},restrict=on"
        for number in range(2)
    ]
    own = f"user,id=n2,restrict=on,hostfwd=tcp:127.0.0.1:{SSH_PORT}-10.0.2.15:22"
    image = place.image
    return [
        "qemu-system-x86_64",
        *hardware(),
        *("-kernel", str(image / "xen"), "-append", XEN_WORDS),
        *("-initrd", f"{image / 'vmlinux'} {DOM0_WORDS},{image / 'initrd.gz'}"),
        # The disk is thrown away when the power is cut: nothing needs to reach this machine's.
        *("-drive", f"id=disk,if=none,file={place.disk},format=qcow2,cache=unsafe"),
        *(word for plug in (*plugs, own) for word in ("-netdev", plug)),
        *("-fsdev", f"local,id=images,path={place.shared},security_model=none"),
        *("-chardev", f"file,id=console,path={place.console},append=on"),
        *("-serial", "chardev:console"),
        *("-qmp", f"unix:{place.monitor},server=on,wait=off"),
        *(("-incoming", f"exec:cat {resume}") if resume else ()),
    ]


def orders(monitor: Path, *commands: tuple[str, dict[str, Any]]) -> list[Any]:
    """What QEMU answers to each of these, in one connection."""
    answers = []
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(MONITOR_TIMEOUT_S)
            link.connect(str(monitor))
            lines = link.makefile("r", encoding="utf-8")
            # Its greeting.
            lines.readline()
            for name, arguments in (("qmp_capabilities", {}), *commands):
                request = json.dumps({"execute": name, "arguments": arguments})
                link.sendall(request.encode() + b"\n")
                answers.append(_answer(lines, name))
    except OSError as exc:
        raise StepFailed(
            f"cannot order the machine of a Xen host to do something: {exc}; see whether its QEMU"
            " runs, and its console's log"
        ) from exc
    return answers[1:]


def _answer(lines: Any, name: str) -> Any:
    for line in lines:
        said = json.loads(line)
        if "error" in said:
            raise StepFailed(
                f"cannot have QEMU {name}: it says {said['error'].get('desc')!r}; see the console's"
                " log of that Xen host"
            )
        if "return" in said:
            return said["return"]
    raise StepFailed(f"cannot have QEMU {name}: it ended; see the console's log of that Xen host")


def way_in(key: Path, folder: Path, *, terminal: bool = False) -> list[str]:
    """ssh into the dom0, from the network that QEMU is in; one connection serves all calls."""
    options = {
        "IdentityFile": str(key),
        "IdentitiesOnly": "yes",
        "Port": str(SSH_PORT),
        "BatchMode": "yes",
        "ConnectTimeout": "60",
        "StrictHostKeyChecking": "no",
        "UserKnownHostsFile": "/dev/null",
        "GlobalKnownHostsFile": "/dev/null",
        "LogLevel": "ERROR",
        "ControlMaster": "auto",
        "ControlPath": str(folder / "ssh"),
        "ControlPersist": "yes",
        "RequestTTY": "yes" if terminal else "no",
    }
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    return ["ssh", "-F", "none", *words, "root@127.0.0.1"]


def fresh_disk(place: Place, below: Path) -> None:
    """An overlay, so that the image is shared by all and stays as it is."""
    place.folder.mkdir(parents=True, exist_ok=True)
    place.shared.mkdir(parents=True, exist_ok=True)
    for left in (place.disk, place.monitor, place.folder / "ssh"):
        left.unlink(missing_ok=True)
    done = subprocess.run(
        [
            *("qemu-img", "create", "-q", "-f", "qcow2"),
            *("-b", str(below), "-F", "raw" if below.suffix == ".raw" else "qcow2"),
            str(place.disk),
        ],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise StepFailed(
            f"cannot make a disk for a Xen host: {done.stderr.strip()}; see whether there is room"
        )


def is_ready(console: Path, since: int) -> bool:
    """Its start script has said so, behind what the log held before."""
    with suppress(OSError), console.open("rb") as log:
        log.seek(since)
        return b"vorch-lab: ready" in log.read()
    return False
