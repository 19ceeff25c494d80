"""Looking at VMs: list, show, figures, console, display."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from .. import render, sizes
from ..options import AsJson, VmName
from ..session import cluster, show_all

if TYPE_CHECKING:
    from vorch import Figures, Image, Orchestrator, Picture, Vm, VmStatus

EVERY_S = 2.0

Limit = Annotated[
    float | None,
    typer.Option(
        "--for",
        metavar="SECONDS",
        parser=sizes.seconds,
        help="Leave after that time; for scripts.",
    ),
]


def add_to(app: typer.Typer) -> None:
    app.command("list")(list_vms)
    for command in (show, figures, console, display):
        app.command()(command)


def list_vms(
    watch: Annotated[
        bool,
        typer.Option("--watch", "-w", help="Go on, and show every change, until Ctrl-C."),
    ] = False,
    count: Annotated[
        int | None,
        typer.Option("--count", metavar="N", min=1, help="End after so many, with --watch."),
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="TAG", help="Only those with this tag; repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """All VMs, with what they do now.

    With --watch anew at each change, as the hosts and the store tell of it; JSON: a line each.
    """
    with cluster(as_json) as found:
        if watch:
            # Ctrl-C is how one leaves it, and no failure.
            with contextlib.suppress(KeyboardInterrupt), found.picture() as picture:
                _watch(picture, count, as_json, set(tag or ()))
            return
        vms = found.list(tags=tag or ())
    _show_list(vms, as_json)


def _watch(picture: Picture, count: int | None, as_json: bool, tags: set[str]) -> None:
    shown = 0
    before: object = None
    while True:
        known = picture.changes
        vms = tuple(one for one in picture.list() if tags <= set(one.vm.tags))
        # Processors run on without that anything has happened.
        now = [(one.vm, one.power, one.notes, one.silent_since) for one in vms]
        if now != before:
            if as_json:
                render.print_json(vms, one_line=True)
            else:
                render.page(lambda vms=vms: _show_list(vms, as_json))  # type: ignore[misc]
            before = now
            shown += 1
        if count is not None and shown >= count:
            return
        picture.wait(known, EVERY_S)


def _show_list(vms: tuple[VmStatus, ...], as_json: bool) -> None:
    def table() -> None:
        render.table(
            ("NAME", "STATE", "NODE", "VCPUS", "MEMORY", "DISKS", "NOTES"),
            [
                (
                    one.name,
                    one.power,
                    one.vm.node,
                    one.vm.vcpus,
                    sizes.shown_mib(one.vm.memory_mib),
                    sizes.shown_bytes(sum(disk.size_bytes for disk in one.vm.data_disks)),
                    "; ".join(_notes(one)),
                )
                for one in vms
            ],
            right=("VCPUS", "MEMORY", "DISKS"),
        )

    show_all(vms, as_json, table, "There is no VM yet: `vorch create` makes one.")


def _notes(status: VmStatus) -> tuple[str, ...]:
    if status.silent_since is None:
        return status.notes
    return (f"not known since {render.moment(status.silent_since)}", *status.notes)


def show(name: VmName, as_json: AsJson = False) -> None:
    """One VM with everything about it.

    Its guest's addresses are among that, as far as lease, agent or ARP table know them.
    """
    with cluster(as_json) as found:
        status = found.show(name)
    if as_json:
        render.print_json(status)
    else:
        render.facts(_facts(status))


def xen_guest(one: Vm | Image) -> str:
    """What it is where Xen runs it; the loader where it is not the usual one."""
    own_grub = one.xen_kind != "hvm" and one.xen_loader == "pvgrub"
    return f"{one.xen_kind}, by {one.xen_loader}" if own_grub else one.xen_kind


def _facts(status: VmStatus) -> list[tuple[str, object]]:
    vm, domain = status.vm, status.domain
    cpus = f"{vm.vcpus} (up to {vm.vcpus_max} while it runs), model {vm.cpu!r}"
    memory = sizes.shown_mib(vm.memory_mib)
    if vm.memory_max_mib != vm.memory_mib:
        memory += f" (up to {sizes.shown_mib(vm.memory_max_mib)} while it runs)"
    options = [
        word
        for word, given in (
            ("secure boot", vm.secure_boot),
            ("TPM", vm.tpm),
            ("screen", vm.graphics),
            ("guest agent", vm.agent),
            (f"watchdog ({vm.watchdog})", vm.watchdog != "none"),
            (f"huge pages of {vm.huge_pages}", bool(vm.huge_pages)),
            ("one NUMA cell", vm.one_numa_cell),
        )
        if given
    ]
    disks = [
        f"{disk.name}: {disk.target}, "
        + ("CD drive, " if disk.device == "cdrom" else f"{sizes.shown_bytes(disk.size_bytes)}, ")
        + (str(disk.volume) if disk.volume else "empty")
        + (f"; at most {disk.limits}" if not disk.limits.none else "")
        for disk in vm.disks
    ]
    nics = [
        f"{nic.name}: {nic.mac} on {nic.network}"
        + "".join(f", {one.ip} ({one.source})" for one in status.addresses if one.mac == nic.mac)
        for nic in vm.nics
    ]
    snapshots = [
        f"{one.name}: {render.moment(one.taken_at)}, {one.consistency}" for one in vm.snapshots
    ]
    state = str(status.power) + (f" ({domain.reason})" if domain and domain.reason else "")
    return [
        ("name", vm.name),
        ("state", state),
        ("wanted", "" if vm.wanted == status.power else vm.wanted),
        ("note", "\n".join(_notes(status))),
        ("node", vm.node),
        ("vCPUs", cpus),
        ("memory", memory),
        ("firmware", f"{vm.firmware}, machine {vm.machine}"),
        ("hypervisor", f"{vm.hypervisor}, as a Xen guest {xen_guest(vm)}"),
        ("has", ", ".join(options)),
        ("tags", ", ".join(vm.tags)),
        ("asks for", ", ".join(vm.require_tags)),
        ("disks", "\n".join(disks)),
        ("NICs", "\n".join(nics)),
        ("snapshots", "\n".join(snapshots)),
        ("description", vm.description),
        ("created", render.moment(vm.created_at)),
        ("id", vm.id),
    ]


Force = Annotated[
    bool, typer.Option("--force", help="Send away whoever has it open; it is one's at a time.")
]


def display(
    name: VmName,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            metavar="PORT",
            min=0,
            max=65535,
            help="A port of 127.0.0.1 instead, which all users of this machine can come to;"
            " 0: any that is free.",
        ),
    ] = None,
    limit: Limit = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """A VM's screen, for a VNC viewer on this machine, until Ctrl-C.

    Says where the viewer is to go: a socket in a folder that is this user's alone (`vncviewer
    PATH`). The way to the VM is vorch's own, so no host has a port open for it.
    """
    from ..display import Listener

    with cluster(as_json) as found:
        # That there is none is said before anybody waits for a viewer.
        found.display(name, force=force).close()
        with Listener(lambda: found.display(name, force=force), port) as listener:
            if as_json:
                render.print_json({"kind": "vnc", "address": listener.address}, one_line=True)
            else:
                render.out(render.clean(listener.address))
            sys.stdout.flush()
            with contextlib.suppress(KeyboardInterrupt):
                listener.serve(limit_s=limit)


def console(
    name: VmName,
    limit: Limit = None,
    force: Force = False,
) -> None:
    """The serial console of a VM in this terminal; ^] leaves it.

    Where stdin is no terminal, it is sent to the guest, and what the guest says is printed until
    the console ends, Ctrl-C or --for.
    """
    from ..console import attach

    with cluster() as found:
        stream = found.console(name, force=force)
        try:
            attach(stream, name, limit_s=limit)
        finally:
            stream.close()


# ---------------------------------------------------------------------------------------------
# Figures


def figures(
    name: VmName,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on, with rates, until Ctrl-C.")
    ] = False,
    every: Annotated[
        float | None,
        typer.Option(
            "--every",
            metavar="SECONDS",
            parser=sizes.seconds,
            help="How often, with --follow (default: 2).",
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option("--count", metavar="N", min=1, help="End after so many, with --follow."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Processor, memory, disks and NICs of a running VM.

    As counters; with --follow as rates, until Ctrl-C.
    """
    with cluster(as_json) as found:
        if follow:
            # Ctrl-C is how one leaves it, and no failure.
            try:
                _follow(found, name, EVERY_S if every is None else max(every, 0.1), count, as_json)
            except KeyboardInterrupt:
                return
        elif as_json:
            render.print_json(found.figures(name))
        else:
            render.facts(_counters(found.figures(name)))


def _counters(now: Figures) -> list[tuple[str, object]]:
    disks = [
        f"{one.name}: read {sizes.shown_bytes(one.read_bytes)} in {one.reads},"
        f" written {sizes.shown_bytes(one.written_bytes)} in {one.writes}"
        for one in now.disks
    ]
    nics = [
        f"{one.name}: received {sizes.shown_bytes(one.received_bytes)}"
        f" in {one.received_packets}, sent {sizes.shown_bytes(one.sent_bytes)}"
        f" in {one.sent_packets}"
        for one in now.nics
    ]
    vcpus = f"{now.vcpus} vCPU" + ("" if now.vcpus == 1 else "s")
    return [
        ("state", now.power),
        ("processor", f"{sizes.shown_span(now.cpu_time_ns / 1e9)} on {vcpus}"),
        ("memory", _memory(now)),
        ("disks", "\n".join(disks)),
        ("NICs", "\n".join(nics)),
    ]


def _memory(now: Figures) -> str:
    whole = sizes.shown_mib(now.memory_mib)
    if now.memory_used_mib is None:
        return whole
    return f"{sizes.shown_mib(now.memory_used_mib)} of {whole}"


# 80 characters with the gaps between them. NET-IN and NET-OUT are the guest's point of view.
COLUMNS = {
    "TIME": 8,
    "STATE": 8,
    "CPU": 5,
    "MEMORY": 9,
    "READ/S": 9,
    "WRITTEN/S": 9,
    "NET-IN/S": 9,
    "NET-OUT/S": 9,
}


def rates(before: Figures, now: Figures) -> tuple[str, ...]:
    """One line out of two samples. A counter that began anew (a restart) counts from nothing."""
    span_s = now.at - before.at

    def rate(old: float, new: float) -> float:
        return (new - old if new >= old else new) / span_s if span_s > 0 else 0.0

    def per_second(old: int, new: int) -> str:
        return sizes.shown_bytes(rate(old, new))

    busy = rate(before.cpu_time_ns, now.cpu_time_ns) / 1e9
    return (
        time.strftime("%H:%M:%S", time.localtime(now.at)),
        str(now.power),
        f"{100 * busy:.0f}%",
        # What it uses, where the guest tells; the whole is what `vorch list` says.
        sizes.shown_mib(now.memory_mib if now.memory_used_mib is None else now.memory_used_mib),
        per_second(_sum(before.disks, "read_bytes"), _sum(now.disks, "read_bytes")),
        per_second(_sum(before.disks, "written_bytes"), _sum(now.disks, "written_bytes")),
        per_second(_sum(before.nics, "received_bytes"), _sum(now.nics, "received_bytes")),
        per_second(_sum(before.nics, "sent_bytes"), _sum(now.nics, "sent_bytes")),
    )


def _sum(parts: tuple[object, ...], name: str) -> int:
    return sum(int(getattr(part, name)) for part in parts)


def _follow(
    found: Orchestrator, name: str, every_s: float, count: int | None, as_json: bool
) -> None:
    """JSON: one sample per line. Else one line of rates per two samples."""
    before = found.figures(name)
    if as_json:
        render.print_json(before, one_line=True)
    else:
        render.out(_line(tuple(COLUMNS)))
    shown = 1 if as_json else 0
    while count is None or shown < count:
        time.sleep(every_s)
        now = found.figures(name)
        if as_json:
            render.print_json(now, one_line=True)
        else:
            render.out(_line(rates(before, now)))
        before = now
        shown += 1


def _line(cells: tuple[str, ...]) -> str:
    texts = [render.clean(cell) for cell in cells]
    words = [
        text.ljust(width) if index < 2 else text.rjust(width)
        for index, (text, width) in enumerate(zip(texts, COLUMNS.values(), strict=True))
    ]
    return "  ".join(words).rstrip()
