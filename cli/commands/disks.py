"""A VM's disks as a whole: list, move, flatten, sparsify, export, limit."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import completion, files, render, sizes
from ..options import AsJson, ClassOption, DiskName, DryRun, VmName, Wait
from ..session import cluster, run, show_all, show_done

# What an export can be.
Format = Annotated[
    str, typer.Option("--format", metavar="qcow2|raw|vmdk", help="What the file is to be.")
]
NewFile = Annotated[
    str, typer.Argument(metavar="FILE", help="A new file of this machine; none is overwritten.")
]


def add_to(group: typer.Typer) -> None:
    group.command("list")(disk_list)
    group.command("move")(disk_move)
    group.command("flatten")(disk_flatten)
    group.command("sparsify")(disk_sparsify)
    group.command("export")(disk_export)
    group.command("limit")(disk_limit)


def disk_list(name: VmName, as_json: AsJson = False) -> None:
    """The disks of a VM: how large they are, and what they take up."""
    with cluster(as_json) as found:
        uses = found.disk_list(name)

    def table() -> None:
        render.table(
            ("NAME", "TARGET", "SIZE", "USED", "VOLUME", "FORMAT", "BASE", "LIMITS"),
            [
                (
                    use.disk.name,
                    use.disk.target,
                    sizes.shown_bytes(use.disk.size_bytes) if use.disk.volume else "empty",
                    "?" if use.used_bytes is None else sizes.shown_bytes(use.used_bytes),
                    str(use.disk.volume or ""),
                    use.format or use.note,
                    use.base or "",
                    str(use.disk.limits),
                )
                for use in uses
            ],
            right=("SIZE", "USED"),
        )

    show_all(uses, as_json, table, "It has no disk.")


def disk_move(
    name: VmName,
    disk: Annotated[
        str | None,
        typer.Argument(metavar="DISK", help="Which one (default: all that are the VM's own)."),
    ] = None,
    pool: Annotated[
        str | None,
        typer.Option(
            "--pool", metavar="POOL", autocompletion=completion.pools, help="Where it goes."
        ),
    ] = None,
    storage_class: ClassOption = None,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Move disks to another pool, while the VM runs or not.

    The old volumes go to the trash. A linked clone stands on nothing afterwards.
    """
    with cluster(as_json) as found:
        done = found.disk_move(
            name, disk, pool=pool, storage_class=storage_class, dry_run=dry_run, wait_s=wait
        )
    if as_json:
        render.print_json(done)
        return
    for one in done:
        show_done(one, as_json)
    if not done:
        render.out(f"disk move {render.clean(name)}: nothing to do; it has no disk of its own")


def disk_flatten(
    name: VmName,
    disk: DiskName,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Let a linked clone stand on its own, while the VM runs or not."""
    run(lambda found: found.disk_flatten(name, disk, dry_run=dry_run, wait_s=wait), as_json)


def disk_sparsify(
    name: VmName,
    disk: DiskName,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Give back to the pool what holds only zeros in a disk.

    In Ceph also while the VM runs; a disk in a folder needs it to be off.
    """
    run(lambda found: found.disk_sparsify(name, disk, dry_run=dry_run, wait_s=wait), as_json)


def disk_export(
    name: VmName,
    disk: DiskName,
    file: NewFile,
    format_: Format = "qcow2",
    snapshot: Annotated[
        str | None,
        typer.Option("--snapshot", metavar="SNAPSHOT", help="As it was then (default: now)."),
    ] = None,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Write a disk of a VM to a file.

    Of a running VM it is the disk at one moment, as after a power cut (crash-consistent), or with
    its file systems at rest when the guest's agent answers.
    """
    run(
        lambda found: found.disk_export(
            name,
            disk,
            files.whole(file),
            format=format_,
            snapshot=snapshot,
            dry_run=dry_run,
            wait_s=wait,
        ),
        as_json,
    )


def disk_limit(
    name: VmName,
    disk: DiskName,
    iops: Annotated[
        int | None, typer.Option("--iops", metavar="N", help="Operations per second; 0: no limit.")
    ] = None,
    read_iops: Annotated[
        int | None, typer.Option("--read-iops", metavar="N", help="Reads per second.")
    ] = None,
    write_iops: Annotated[
        int | None, typer.Option("--write-iops", metavar="N", help="Writes per second.")
    ] = None,
    mib_s: Annotated[
        int | None, typer.Option("--mib-s", metavar="N", help="MiB per second; 0: no limit.")
    ] = None,
    read_mib_s: Annotated[
        int | None, typer.Option("--read-mib-s", metavar="N", help="MiB per second read.")
    ] = None,
    write_mib_s: Annotated[
        int | None, typer.Option("--write-mib-s", metavar="N", help="MiB per second written.")
    ] = None,
    burst_iops: Annotated[
        int | None,
        typer.Option("--burst-iops", metavar="N", help="Operations per second in a burst."),
    ] = None,
    burst_mib_s: Annotated[
        int | None,
        typer.Option("--burst-mib-s", metavar="N", help="MiB per second in a burst."),
    ] = None,
    burst_s: Annotated[
        int | None,
        typer.Option(
            "--burst-s", metavar="SECONDS", help="How long a burst may last after a quiet time."
        ),
    ] = None,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Limit the I/O of a disk, at once where the VM runs. What is not named stays; 0 lifts it."""
    run(
        lambda found: found.disk_limit(
            name,
            disk,
            iops=iops,
            read_iops=read_iops,
            write_iops=write_iops,
            mib_s=mib_s,
            read_mib_s=read_mib_s,
            write_mib_s=write_mib_s,
            burst_iops=burst_iops,
            burst_mib_s=burst_mib_s,
            burst_s=burst_s,
            dry_run=dry_run,
            wait_s=wait,
        ),
        as_json,
    )
