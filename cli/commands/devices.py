"""What can be plugged into a VM and out of it: disks, NICs, CDs."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import completion, sizes
from ..options import (
    AsJson,
    ClassOption,
    DiskName,
    DryRun,
    ImageName,
    LimitOption,
    NicModelOption,
    VmName,
    Wait,
    Yes,
)
from ..session import ask_and_do, cluster, run, show_done
from . import disks as disk_verbs
from .group import noun

Drive = Annotated[
    str | None, typer.Option("--drive", metavar="DISK", help="Which one, if it has several.")
]


def add_to(app: typer.Typer) -> None:
    disks = noun(app, "disk", "Disks of a VM: attach, detach, grow, move and more.")
    disks.command("attach")(disk_attach)
    disks.command("detach")(disk_detach)
    disks.command("grow")(disk_grow)
    disk_verbs.add_to(disks)
    nics = noun(app, "nic", "NICs of a VM: attach, detach.")
    nics.command("attach")(nic_attach)
    nics.command("detach")(nic_detach)
    cds = noun(app, "cd", "CDs in a VM's drives: insert, eject.")
    cds.command("insert")(cd_insert)
    cds.command("eject")(cd_eject)


def disk_attach(
    name: VmName,
    size: Annotated[
        int | None,
        typer.Option(
            "--size",
            metavar="SIZE",
            parser=sizes.disk_gib,
            help="Of a new, empty disk, as in 20G; a plain number is GiB.",
        ),
    ] = None,
    volume: Annotated[
        str | None,
        typer.Option("--volume", metavar="POOL/NAME", help="A volume that belongs to no VM."),
    ] = None,
    disk: Annotated[
        str | None, typer.Option("--name", metavar="DISK", help="Its name (default: the next).")
    ] = None,
    bus: Annotated[
        str, typer.Option("--bus", metavar="virtio|scsi|sata|ide", help="How the guest sees it.")
    ] = "virtio",
    pool: Annotated[
        str | None,
        typer.Option(
            "--pool", metavar="POOL", autocompletion=completion.pools, help="Where a new one goes."
        ),
    ] = None,
    storage_class: ClassOption = None,
    limit: LimitOption = "",
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Give a VM another disk, while it runs or not."""
    run(
        lambda found: found.disk_attach(
            name,
            disk=disk,
            size_gib=size,
            volume=volume,
            pool=pool,
            storage_class=storage_class,
            bus=bus,
            limits=sizes.io_limits(limit),
            dry_run=dry_run,
            wait_s=wait,
        ),
        as_json,
    )


def disk_detach(
    name: VmName,
    disk: DiskName,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the volume in the pool, for another VM.")
    ] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Take a disk from a VM; its volume goes to the trash."""
    with cluster(as_json) as found:
        done = ask_and_do(
            lambda *, dry_run: found.disk_detach(
                name, disk, keep=keep, dry_run=dry_run, wait_s=wait
            ),
            dry_run=dry_run,
            # Nothing is lost that way.
            yes=yes or keep,
        )
    show_done(done, as_json)


def disk_grow(
    name: VmName,
    disk: DiskName,
    size: Annotated[
        int,
        typer.Argument(
            metavar="SIZE",
            parser=sizes.disk_gib,
            help="Its new size, as in 40G; a plain number is GiB.",
        ),
    ],
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Make a disk larger; a running guest sees it at once."""
    run(
        lambda found: found.disk_grow(name, disk, size, dry_run=dry_run, wait_s=wait),
        as_json,
    )


def nic_attach(
    name: VmName,
    network: Annotated[
        str,
        typer.Option(
            "--network",
            metavar="NETWORK",
            autocompletion=completion.networks,
            help="What it is plugged into.",
        ),
    ] = "default",
    mac: Annotated[
        str | None, typer.Option("--mac", metavar="MAC", help="Its address (default: a new one).")
    ] = None,
    model: NicModelOption = "virtio",
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Give a VM another NIC, while it runs or not."""
    run(
        lambda found: found.nic_attach(
            name, network=network, mac=mac, model=model, dry_run=dry_run, wait_s=wait
        ),
        as_json,
    )


def nic_detach(
    name: VmName,
    nic: Annotated[str, typer.Argument(metavar="NIC", help="Its name or MAC address.")],
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Take a NIC from a VM."""
    run(lambda found: found.nic_detach(name, nic, dry_run=dry_run, wait_s=wait), as_json)


def cd_insert(
    name: VmName,
    image: ImageName,
    drive: Drive = None,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Put a CD from the image store into a VM's drive."""
    run(
        lambda found: found.cd_insert(name, image, drive=drive, dry_run=dry_run, wait_s=wait),
        as_json,
    )


def cd_eject(
    name: VmName,
    drive: Drive = None,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Take the CD out of a VM's drive."""
    run(
        lambda found: found.cd_eject(name, drive=drive, dry_run=dry_run, wait_s=wait),
        as_json,
    )
