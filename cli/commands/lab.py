"""A real cluster on this machine, to learn, to test and to break: up, faults, heal, down."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import render, session, sizes
from ..options import AsJson
from .group import noun

if TYPE_CHECKING:
    from vorch.lab import Lab, LabStatus, Verdict

# The library's own default; asked for here, it would load the library for --help.
DEFAULT_NAME = "lab"
DEFAULT_RANGE = "10.77.0.0/16"

LabName = Annotated[
    str, typer.Option("--name", metavar="NAME", help="Which lab, where there are several.")
]
HostName = Annotated[str, typer.Argument(metavar="HOST", help="Name of a host of the lab: h1, h2.")]
Cables = Annotated[
    str, typer.Option("--network", metavar="NETWORK", help="management, storage or both.")
]
Osd = Annotated[int, typer.Argument(metavar="OSD", min=0, help="Number of an OSD.")]


def add_to(app: typer.Typer) -> None:
    group = noun(app, "lab", "A real cluster on this machine, to learn, to test and to break.")
    group.command("up")(up)
    group.command("cluster")(cluster)
    group.command("status")(status)
    group.command("shell", context_settings={"ignore_unknown_options": True})(shell)
    group.command("logs")(logs)
    group.command("power-off")(power_off)
    group.command("power-on")(power_on)
    group.command("reboot")(reboot)
    group.command("cut")(cut)
    group.command("slow")(slow)
    group.command("hang")(hang)
    group.command("freeze")(freeze)
    group.command("kill-qemu")(kill_qemu)
    group.command("osd-kill")(osd_kill)
    group.command("osd-replace")(osd_replace)
    group.command("mon-kill")(mon_kill)
    group.command("bmc-break")(bmc_break)
    group.command("heal")(heal)
    group.command("reset")(reset)
    group.command("verify-disk")(verify_disk)
    group.command("down")(down)


def _say() -> Callable[[str], None]:
    """Lines on stderr, each with the seconds since the command began."""
    began = time.monotonic()

    def say(text: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - began:5.1f} s] {render.clean(text)}\n")
        sys.stderr.flush()

    return say


def _find(name: str) -> Lab:
    from vorch.lab import Lab

    return Lab.find(name)


# --- up, down, looks --------------------------------------------------------------------------


def up(
    hosts: Annotated[int, typer.Option("--hosts", metavar="N", help="How many hosts.")] = 3,
    xen: Annotated[
        int, typer.Option("--xen", metavar="N", help="How many hosts with Xen beside them.")
    ] = 0,
    xen_live: Annotated[
        bool,
        typer.Option(
            "--xen-live",
            help="Their hypervisor is built anew, once, so that PV guests move while they run.",
        ),
    ] = False,
    osds: Annotated[int, typer.Option("--osds", metavar="N", help="How many OSDs of Ceph.")] = 3,
    mons: Annotated[int, typer.Option("--mons", metavar="N", help="Monitors of Ceph: 1 or 3.")] = 1,
    no_ceph: Annotated[bool, typer.Option("--no-ceph", help="Hosts only.")] = False,
    hyperconverged: Annotated[
        bool,
        typer.Option(
            "--hyperconverged",
            help="OSDs live on the hosts, and of three monitors one on each host.",
        ),
    ] = False,
    one_network: Annotated[
        bool,
        typer.Option(
            "--one-network",
            help="Ceph is on the management network, as where hosts have one network only.",
        ),
    ] = False,
    address_range: Annotated[
        str,
        typer.Option(
            "--range", metavar="SUBNET", help="Private range to take two free /24 networks from."
        ),
    ] = DEFAULT_RANGE,
    name: LabName = DEFAULT_NAME,
) -> None:
    """Make a lab: hosts with their own libvirt and QEMU (or Xen), and a real small Ceph.

    Needs root. Ends when every host answers and Ceph is healthy; what fails leaves nothing behind.
    """
    from vorch import lab

    began = time.monotonic()
    session.current.goes_on = "nothing of the lab is left"
    made = lab.up(
        name,
        hosts=hosts,
        xen=xen,
        xen_live=xen_live,
        osds=0 if no_ceph else osds,
        mons=mons,
        hyperconverged=hyperconverged,
        one_network=one_network,
        address_range=address_range,
        say=_say(),
    )
    spec, option = made.spec, _option(name)
    lines = [
        f"Lab {name!r} is up in {sizes.shown_span(time.monotonic() - began)}."
        f" Hosts: {', '.join(spec.host_names)}."
        + (f" Ceph: {spec.osds} OSDs, HEALTH_OK." if spec.ceph else ""),
        "Try next:",
        *([f"  vorch lab cluster{option}"] if spec.ceph else []),
        f"  vorch lab status{option}",
        f"  vorch lab shell h1{option}",
        f"  virsh -c '{spec.uri('h1')}' list",
    ]
    if spec.ceph:
        lines.append(f"  ceph --conf {spec.ceph_conf} status")
    lines.append(f"  vorch lab down{option}")
    render.out("\n".join(lines))


def cluster(
    no_image: Annotated[
        bool, typer.Option("--no-image", help="Without an image to make VMs of.")
    ] = False,
    name: LabName = DEFAULT_NAME,
) -> None:
    """Make its hosts one cluster of vorch: state and disks in its Ceph, BMCs for the fence.

    What is there already stays as it is. The image, a Linux that boots in seconds, is built from
    packages of the distribution, which takes a minute the first time.
    """
    from vorch import lab as labs

    began = time.monotonic()
    lab = _find(name)
    made = labs.cluster(lab, image=not no_image, say=_say())
    took = sizes.shown_span(time.monotonic() - began)
    lines = [
        f"Lab {name!r} is one cluster, after {took}. Hosts: {', '.join(lab.spec.host_names)}."
        f" Pool: {made.pool}. Network: {made.network}."
        + ("" if made.image is None else f" Image: {made.image.kind}."),
        "Try next:",
        f"  export VORCH_URI={shlex.quote(made.uri)}",
    ]
    if made.image is not None:
        lines += [
            f"  vorch create web --image {made.image.kind}",
            f"  vorch console web              # {made.image.login}, {made.image.password}",
        ]
    lines += [
        "  vorch serve &                  # a page, and whoever watches over what is looked after",
        "  vorch ha set web",
        f"  vorch lab power-off h1{_option(name)}",
    ]
    render.out("\n".join(lines))


def down(
    name: LabName = DEFAULT_NAME,
    everything: Annotated[bool, typer.Option("--all", help="Every lab of this machine.")] = False,
) -> None:
    """Take a lab down, or what a crash has left of one. Nothing of it remains."""
    from vorch import lab

    for one in lab.names() if everything else (name,):
        lab.down(one)
        render.out(f"Lab {one!r} is down.")


def status(name: LabName = DEFAULT_NAME, as_json: AsJson = False) -> None:
    """What is on, what is cut, what runs, and how Ceph is."""
    seen = _find(name).status()
    if as_json:
        render.print_json(seen)
    else:
        _show_status(seen)


def _show_status(seen: LabStatus) -> None:
    render.table(
        ("HOST", "POWER", "MANAGEMENT", "STORAGE", "LIBVIRT", "BMC", "OSDS", "VMS"),
        [
            (
                host.name,
                "on" if host.power else "off",
                host.management,
                host.storage,
                host.libvirt,
                host.bmc,
                " ".join(map(str, host.osds)),
                " ".join(host.vms),
            )
            for host in seen.hosts
        ],
    )
    if seen.ceph is None:
        return
    dead = [daemon for daemon, runs in seen.daemons if not runs]
    lines = [f"Ceph: {seen.ceph.health}"]
    if seen.ceph.mons_up:
        lines[0] += (
            f", {seen.ceph.mons_up} monitor(s) agree, {seen.ceph.osds_up} OSDs up and"
            f" {seen.ceph.osds_in} in"
        )
    lines += [f"  {check}" for check in seen.ceph.checks]
    if dead:
        lines.append(f"  not running: {', '.join(dead)}")
    render.out("\n".join(lines))


def shell(
    host: HostName,
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="COMMAND", help="What to run there instead of a shell."),
    ] = None,
    name: LabName = DEFAULT_NAME,
) -> None:
    """A shell on a host, or one command; it ends when the host's power does."""
    found = _find(name)
    words = list(command or [])
    if not words:
        words = ["env", f"PS1={host}:\\w\\$ ", "bash", "--norc", "-i"]
    done = subprocess.run(found.command(host, words, terminal=sys.stdin.isatty()), cwd="/")
    if done.returncode:
        raise typer.Exit(done.returncode if done.returncode > 0 else 128 - done.returncode)


def logs(
    part: Annotated[
        str,
        typer.Argument(
            metavar="PART", help="A host, a daemon of Ceph (osd.0, mon.a, mgr.x), or lab."
        ),
    ],
    lines: Annotated[
        int, typer.Option("--lines", metavar="N", min=1, help="How many of each file's last lines.")
    ] = 50,
    name: LabName = DEFAULT_NAME,
) -> None:
    """The last lines of the logs of a host, of a Ceph daemon or of the lab itself."""
    lab = _find(name)
    for file in lab.log_files(part):
        with file.open(errors="replace") as text:
            last = text.readlines()[-lines:]
        render.out(render.clean(f"==> {file}\n{''.join(last)}"))
    own = lab.own_logs(part, lines)
    if own:
        render.out(render.clean(own))


# --- faults -----------------------------------------------------------------------------------


def _did(text: str, name: str) -> None:
    render.out(f"{text}; `vorch lab heal{_option(name)}` undoes it")


def _option(name: str) -> str:
    return "" if name == DEFAULT_NAME else f" --name {name}"


def power_off(host: HostName, name: LabName = DEFAULT_NAME) -> None:
    """Cut a host's power: libvirtd, its VMs and its OSDs are gone at once."""
    _find(name).power_off(host)
    _did(f"{host}: power is off", name)


def power_on(host: HostName, name: LabName = DEFAULT_NAME) -> None:
    """Switch a host on; returns when its libvirt answers."""
    _find(name).power_on(host)
    render.out(f"{host}: power is on")


def reboot(host: HostName, name: LabName = DEFAULT_NAME) -> None:
    """Power off and on again; what ran there is gone."""
    _find(name).reboot(host)
    render.out(f"{host}: rebooted")


def cut(host: HostName, network: Cables = "both", name: LabName = DEFAULT_NAME) -> None:
    """Pull a host's network cables."""
    _find(name).cut(host, network)
    _did(f"{host}: network cut: {network}", name)


def slow(
    host: HostName,
    network: Cables = "both",
    delay: Annotated[
        float, typer.Option("--delay", metavar="MS", min=0, help="Milliseconds for each packet.")
    ] = 200,
    loss: Annotated[
        float,
        typer.Option("--loss", metavar="PERCENT", min=0, max=100, help="Packets that are lost."),
    ] = 0,
    name: LabName = DEFAULT_NAME,
) -> None:
    """Make a host's network slow and lossy, where the kernel has netem."""
    _find(name).slow(host, network, delay_ms=delay, loss_percent=loss)
    _did(f"{host}: {network} delays {delay:g} ms and loses {loss:g} %", name)


def hang(host: HostName, name: LabName = DEFAULT_NAME) -> None:
    """libvirtd of a host stops answering; its VMs go on."""
    _find(name).hang(host)
    _did(f"{host}: libvirtd hangs", name)


def freeze(host: HostName, name: LabName = DEFAULT_NAME) -> None:
    """Everything on a host stands still; its kernel still answers."""
    _find(name).freeze(host)
    _did(f"{host}: everything on it stands still", name)


def kill_qemu(
    host: HostName,
    vm: Annotated[
        str | None, typer.Argument(metavar="VM", help="Whose; without it, all that run there.")
    ] = None,
    name: LabName = DEFAULT_NAME,
) -> None:
    """Kill the QEMU process of a VM, or of all VMs of a host."""
    killed = _find(name).kill_qemu(host, vm)
    render.out(f"{host}: killed {', '.join(killed)}" if killed else f"{host}: no VM runs there")


def osd_kill(osd: Osd, name: LabName = DEFAULT_NAME) -> None:
    """Kill one OSD of Ceph."""
    _find(name).osd_kill(osd)
    _did(f"osd.{osd}: killed", name)


def osd_replace(osd: Osd, name: LabName = DEFAULT_NAME) -> None:
    """Take an OSD out for good, data and all, and put an empty one in its place."""
    _find(name).osd_replace(osd)
    render.out(f"osd.{osd}: replaced; `vorch lab heal` waits until its data is back")


def mon_kill(
    mon: Annotated[str, typer.Argument(metavar="MON", help="Name of a monitor: a, b or c.")] = "a",
    name: LabName = DEFAULT_NAME,
) -> None:
    """Kill one monitor of Ceph. With the only one gone, nothing can be opened any more."""
    _find(name).mon_kill(mon)
    _did(f"mon.{mon}: killed", name)


def bmc_break(
    host: HostName,
    how: Annotated[
        str,
        typer.Option(
            "--how",
            metavar="HOW",
            help="silent: answers nothing; refuse: fails every order; stuck: obeys and does"
            " nothing.",
        ),
    ] = "silent",
    name: LabName = DEFAULT_NAME,
) -> None:
    """Break a host's BMC."""
    _find(name).bmc_break(host, how)
    _did(f"{host}: BMC is broken ({how})", name)


def heal(
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout", metavar="SECONDS", parser=sizes.seconds, help="How long Ceph may take."
        ),
    ] = 120,
    name: LabName = DEFAULT_NAME,
) -> None:
    """Undo every fault; ends when every host answers and Ceph is healthy."""
    _find(name).heal(timeout_s=timeout, say=_say())
    render.out(f"Lab {name!r} is healthy.")


def reset(name: LabName = DEFAULT_NAME) -> None:
    """Heal, and remove all VMs, disks and fences: as after `up`, in seconds."""
    _find(name).reset(say=_say())
    render.out(f"Lab {name!r} is as new.")


# --- the checker ------------------------------------------------------------------------------


def verify_disk(
    disk: Annotated[
        str,
        typer.Argument(
            metavar="DISK", help="A raw or qcow2 file, or rbd:POOL/IMAGE[@SNAPSHOT] of the lab."
        ),
    ],
    console: Annotated[
        list[Path] | None,
        typer.Option(
            "--acks",
            metavar="FILE",
            help="Text with the writer's confirmed writes: its console, or what came by UDP."
            " May be given several times.",
        ),
    ] = None,
    name: LabName = DEFAULT_NAME,
    as_json: AsJson = False,
) -> None:
    """Prove from a test guest's disk that it had one writer and lost nothing that was confirmed.

    The disk must stand still meanwhile. Ends with exit code 1 if anything is wrong, or if there is
    nothing on it to prove anything with.
    """
    from vorch import lab

    acks = lab.acks_in(console or [])
    if disk.startswith("rbd:"):
        conf = lab.Lab.find(name).spec.ceph_conf
        seen = lab.verify_disk(disk, acks=acks, conf=conf, user=lab.CEPH_USER)
    else:
        seen = lab.verify_disk(disk, acks=acks)
    if as_json:
        render.print_json(seen)
    else:
        _show_verdict(seen)
    if not seen.ok or not seen.records:
        raise typer.Exit(1)


def _show_verdict(seen: Verdict) -> None:
    render.table(
        ("EPOCH", "BOOT", "HOST", "FIRST", "LAST", "RECORDS"),
        [(one.epoch, one.boot, one.host, one.first, one.last, one.count) for one in seen.epochs],
    )
    lines = [f"{one.kind}: {one.message}" for one in seen.findings]
    if not seen.records:
        judgement = "nothing is proven"
    elif seen.ok:
        judgement = "nothing lost, one writer at a time"
    elif seen.two_writers:
        judgement = "TWO WRITERS"
    else:
        judgement = "something is lost or damaged"
    lines.append(f"{seen.records} records, {seen.acks} writes known as confirmed: {judgement}")
    render.out("\n".join(lines))
