"""Unattended installs: a VM whose system is installed by an installer that is told its answers."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import completion, files, sizes
from ..options import (
    AgainstSpare,
    AsJson,
    ClassOption,
    Cpu,
    Description,
    Disk,
    DryRun,
    FirmwareOption,
    HypervisorOption,
    Machine,
    Memory,
    Networks,
    NodeOption,
    NoNetwork,
    PoolOption,
    Tags,
    Tpm,
    Vcpus,
    Wait,
    XenKindOption,
    XenLoaderOption,
)
from ..session import run


def add_to(app: typer.Typer) -> None:
    app.command()(install)


def install(
    name: Annotated[
        str,
        typer.Argument(metavar="VM", help="Its name, and host name: 1 to 63 of a-z, 0-9 and '-'."),
    ],
    answers: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="What the installer is told: preseed, kickstart, autoinstall or autounattend"
            " ('-': stdin).",
        ),
    ],
    iso: Annotated[
        str | None,
        typer.Option(
            "--iso",
            metavar="IMAGE",
            autocompletion=completion.images,
            help="The installer's CD in the image store.",
        ),
    ] = None,
    kernel: Annotated[
        str | None,
        typer.Option("--kernel", metavar="FILE|URL", help="The installer's kernel, with --initrd."),
    ] = None,
    initrd: Annotated[
        str | None,
        typer.Option("--initrd", metavar="FILE|URL", help="The installer's initrd, with --kernel."),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--kind",
            metavar="preseed|kickstart|autoinstall|autounattend",
            help="What kind of answers they are (default: as they look).",
        ),
    ] = None,
    arguments: Annotated[
        str, typer.Option("--arguments", metavar="TEXT", help="More for the kernel's command line.")
    ] = "",
    vcpus: Vcpus = None,
    memory: Memory = None,
    disk: Disk = None,
    network: Networks = None,
    no_network: NoNetwork = False,
    firmware: FirmwareOption = None,
    hypervisor: HypervisorOption = None,
    xen_kind: XenKindOption = None,
    xen_loader: XenLoaderOption = None,
    machine: Machine = "q35",
    cpu: Cpu = "default",
    tpm: Tpm = None,
    node: NodeOption = None,
    pool: PoolOption = None,
    storage_class: ClassOption = None,
    tag: Tags = None,
    description: Description = None,
    start: Annotated[
        bool, typer.Option("--start/--no-start", help="Start it when the installer is done.")
    ] = True,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            parser=sizes.seconds,
            help="How long the installer may run (default: install_timeout_s, 7200).",
        ),
    ] = None,
    force: AgainstSpare = False,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Install a system with nobody at the keyboard.

    Waits until the installer is done. `vorch console` shows what it does meanwhile.
    """
    text = files.read_text(answers, "answers")
    run(
        lambda found: found.install(
            name,
            text,
            iso=iso,
            kernel=None if kernel is None else files.whole(kernel),
            initrd=None if initrd is None else files.whole(initrd),
            kind=kind,
            arguments=arguments,
            vcpus=vcpus,
            memory_mib=memory,
            disk_gib=disk,
            pool=pool,
            storage_class=storage_class,
            networks=() if no_network else tuple(network or ("default",)),
            firmware=firmware,
            hypervisor=hypervisor,
            xen_kind=xen_kind,
            xen_loader=xen_loader,
            machine=machine or "q35",
            cpu=cpu or "default",
            tpm=bool(tpm),
            node=node,
            tags=tag or (),
            description=description or "",
            timeout_s=timeout,
            start=start,
            force=force,
            dry_run=dry_run,
            wait_s=wait,
        ),
        as_json,
    )
