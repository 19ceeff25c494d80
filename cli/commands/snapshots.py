"""Snapshots of all disks of a VM at one point."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import render, sizes
from ..options import AsJson, Description, DryRun, VmName, Wait, Yes
from ..session import ask_and_do, cluster, show_all, show_done
from .group import noun

SnapshotName = Annotated[str, typer.Argument(metavar="SNAPSHOT", help="Name of the snapshot.")]

# What a snapshot is worth, in words.
MEANS = {
    "frozen": "the guest held all writes meanwhile",
    "crash-consistent": "as after a power cut",
    "stopped": "the VM was off",
}


def add_to(app: typer.Typer) -> None:
    group = noun(app, "snapshot", "All disks of a VM at one point: take, list, go back, delete.")
    group.command("create")(create)
    group.command("list")(list_snapshots)
    group.command("rollback")(rollback)
    group.command("delete")(delete)


def create(
    name: VmName,
    snapshot: SnapshotName,
    freeze: Annotated[
        bool,
        typer.Option(
            "--freeze/--no-freeze", help="Ask the guest's agent to hold its writes meanwhile."
        ),
    ] = True,
    description: Description = None,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Take a snapshot of all disks of a VM at one point."""
    with cluster(as_json) as found:
        done = found.snapshot_create(
            name,
            snapshot,
            freeze=freeze,
            description=description or "",
            dry_run=dry_run,
            wait_s=wait,
        )
        taken = [one for one in found.snapshot_list(name) if one.name == snapshot]
    show_done(done, as_json)
    if done.task is not None and not as_json:
        # Whether the guest really was frozen is known only now.
        for one in taken:
            worth = f"{one.consistency}, {MEANS[one.consistency]}"
            render.out(f"snapshot {render.clean(one.name)}: {worth}")


def list_snapshots(name: VmName, as_json: AsJson = False) -> None:
    """The snapshots of a VM, with what they are worth."""
    with cluster(as_json) as found:
        snapshots = found.snapshot_list(name)

    def table() -> None:
        render.table(
            ("SNAPSHOT", "TAKEN", "CONSISTENCY", "DISKS", "DESCRIPTION"),
            [
                (
                    one.name,
                    render.moment(one.taken_at),
                    one.consistency,
                    ", ".join(
                        f"{disk} {sizes.shown_bytes(size)}" for disk, size in one.disks.items()
                    ),
                    one.description,
                )
                for one in snapshots
            ],
        )

    show_all(snapshots, as_json, table, "It has no snapshot: `vorch snapshot create` takes one.")


def rollback(
    name: VmName,
    snapshot: SnapshotName,
    yes: Yes = False,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Set the disks of a VM back to a snapshot.

    The VM must be off, and what was written since is lost.
    """
    with cluster(as_json) as found:
        done = ask_and_do(
            lambda *, dry_run: found.snapshot_rollback(
                name, snapshot, dry_run=dry_run, wait_s=wait
            ),
            dry_run=dry_run,
            yes=yes,
        )
    show_done(done, as_json)


def delete(
    name: VmName,
    snapshot: SnapshotName,
    yes: Yes = False,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Delete a snapshot; the disks stay as they are."""
    with cluster(as_json) as found:
        done = ask_and_do(
            lambda *, dry_run: found.snapshot_delete(name, snapshot, dry_run=dry_run, wait_s=wait),
            dry_run=dry_run,
            yes=yes,
        )
    show_done(done, as_json)
