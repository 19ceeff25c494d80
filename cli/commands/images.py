"""Where systems come from: disk images, templates, CDs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .. import files, render, sizes
from ..options import (
    AsJson,
    ClassOption,
    Description,
    DryRun,
    FirmwareOption,
    HypervisorOption,
    ImageName,
    PoolOption,
    Wait,
    XenKindOption,
    XenLoaderOption,
    Yes,
)
from ..session import ask_and_do, cluster, run, show_all, show_done
from .disks import Format, NewFile
from .group import noun
from .looks import xen_guest

if TYPE_CHECKING:
    from vorch import Image

# The library's own default, to be named in the help.
DEFAULT_MEMORY_MIB = 1024


def add_to(app: typer.Typer) -> None:
    group = noun(app, "image", "Where systems come from: disk images, templates, CDs.")
    group.command("import")(import_image)
    group.command("list")(list_images)
    group.command("show")(show)
    group.command("delete")(delete)
    group.command("export")(export)


def import_image(
    name: Annotated[str, typer.Argument(metavar="IMAGE", help="What it is to be called.")],
    location: Annotated[
        str, typer.Argument(metavar="FILE|URL", help="A raw, qcow2, vmdk, vdi or ISO file.")
    ],
    iso: Annotated[
        bool, typer.Option("--iso", help="It is a CD, to be put in drives as it is.")
    ] = False,
    sha256: Annotated[
        str,
        typer.Option("--sha256", metavar="SUM", help="Refuse it unless this is its checksum."),
    ] = "",
    firmware: FirmwareOption = None,
    hypervisor: HypervisorOption = None,
    xen_kind: XenKindOption = None,
    xen_loader: XenLoaderOption = None,
    vcpus: Annotated[
        int, typer.Option("--vcpus", metavar="N", help="What its VMs have when nobody says.")
    ] = 1,
    memory: Annotated[
        int | None,
        typer.Option(
            "--memory",
            metavar="SIZE",
            parser=sizes.memory_mib,
            help="What its VMs have when nobody says, as in 2G; a plain number is MiB (default:"
            " 1G).",
        ),
    ] = None,
    pool: PoolOption = None,
    storage_class: ClassOption = None,
    description: Description = None,
    at_once: Annotated[
        bool,
        typer.Option(
            "--at-once",
            help="VMs can be made of it while its data still come in: from http(s), raw or plain"
            " qcow2, into Ceph.",
        ),
    ] = False,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Bring a disk image or a CD into the store."""
    run(
        lambda found: found.image_import(
            name,
            files.whole(location),
            kind="iso" if iso else "disk",
            sha256=sha256,
            firmware=firmware or "bios",
            hypervisor=hypervisor,
            xen_kind=xen_kind,
            xen_loader=xen_loader,
            vcpus=vcpus,
            memory_mib=DEFAULT_MEMORY_MIB if memory is None else memory,
            pool=pool,
            storage_class=storage_class,
            description=description or "",
            at_once=at_once,
            dry_run=dry_run,
            wait_s=wait,
        ),
        as_json,
    )


def list_images(as_json: AsJson = False) -> None:
    """All images, templates and CDs."""
    with cluster(as_json) as found:
        images = found.image_list()

    def table() -> None:
        render.table(
            ("NAME", "KIND", "SIZE", "FIRMWARE", "CREATED", "DESCRIPTION"),
            [
                (
                    one.name,
                    f"{one.kind}, coming in" if one.arriving else one.kind,
                    sizes.shown_bytes(one.size_bytes),
                    "" if one.kind == "iso" else one.firmware,
                    render.moment(one.created_at),
                    one.description,
                )
                for one in images
            ],
            right=("SIZE",),
        )

    show_all(images, as_json, table, "There is no image yet: `vorch image import` brings one in.")


def show(name: ImageName, as_json: AsJson = False) -> None:
    """One image with everything about it."""
    with cluster(as_json) as found:
        image = found.image_show(name)
    if as_json:
        render.print_json(image)
    else:
        render.facts(_facts(image))


def _facts(image: Image) -> list[tuple[str, object]]:
    disks = [
        f"{one.name}: {sizes.shown_bytes(one.size_bytes)}, {one.volume}" for one in image.disks
    ]
    return [
        ("name", image.name),
        ("kind", image.kind),
        ("from", image.source),
        ("format", image.format),
        ("SHA-256", image.sha256),
        ("data", "still coming in" if image.arriving else ""),
        ("disks", "\n".join(disks)),
        ("firmware", "" if image.kind == "iso" else image.firmware),
        ("hypervisor", image.hypervisor),
        ("as a Xen guest", "" if image.kind == "iso" else xen_guest(image)),
        ("vCPUs", "" if image.kind == "iso" else image.vcpus),
        ("memory", "" if image.kind == "iso" else sizes.shown_mib(image.memory_mib)),
        ("description", image.description),
        ("created", render.moment(image.created_at)),
    ]


def export(
    name: ImageName,
    file: NewFile,
    disk: Annotated[
        str | None,
        typer.Option("--disk", metavar="DISK", help="Which one, of a template with several."),
    ] = None,
    format_: Format = "qcow2",
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Write an image to a file. A CD is exported as raw."""
    run(
        lambda found: found.image_export(
            name, files.whole(file), disk=disk, format=format_, dry_run=dry_run, wait_s=wait
        ),
        as_json,
    )


def delete(
    name: ImageName,
    yes: Yes = False,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Delete an image for good.

    VMs that were made from it keep what they need.
    """
    with cluster(as_json) as found:
        done = ask_and_do(
            lambda *, dry_run: found.image_delete(name, dry_run=dry_run, wait_s=wait),
            dry_run=dry_run,
            yes=yes,
        )
    show_done(done, as_json)
