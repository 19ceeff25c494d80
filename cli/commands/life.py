"""From birth to the grave: create, start, stop, change, clone, delete."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from .. import completion, files, render, sizes
from ..options import (
    Addresses,
    AgainstRules,
    AgainstSpare,
    Agent,
    AsJson,
    ClassOption,
    Commands,
    Cpu,
    Description,
    Disk,
    DryRun,
    FirmwareOption,
    Graphics,
    Hostname,
    HugePagesOption,
    HypervisorOption,
    LimitOption,
    Machine,
    Memory,
    MemoryMax,
    Networks,
    NewVmName,
    NicModelOption,
    NodeOption,
    NodeOrNone,
    NoNetwork,
    OneNumaCell,
    Packages,
    PasswordHash,
    PoolOption,
    RequireTags,
    SecureBoot,
    SshKeys,
    Tags,
    Timeout,
    Tpm,
    User,
    UserData,
    Vcpus,
    VcpusMax,
    VmName,
    Wait,
    WatchdogOption,
    XenKindOption,
    XenLoaderOption,
    Yes,
)
from ..session import ask_and_do, cluster, run, show_done

if TYPE_CHECKING:
    from vorch import CloudInit, Task


def add_to(app: typer.Typer) -> None:
    for command in (
        create,
        start,
        stop,
        restart,
        reset,
        pause,
        resume,
        migrate,
        relocate,
        send,
        delete,
        undelete,
        rename,
        change,
        clone,
        template,
    ):
        app.command()(command)


def create(
    name: Annotated[
        str,
        typer.Argument(metavar="VM", help="Its name, and host name: 1 to 63 of a-z, 0-9 and '-'."),
    ],
    image: Annotated[
        str | None,
        typer.Option(
            "--image",
            metavar="IMAGE",
            autocompletion=completion.images,
            help="Image or template that its disk starts from (`vorch image list`).",
        ),
    ] = None,
    iso: Annotated[
        str | None,
        typer.Option(
            "--iso",
            metavar="IMAGE",
            autocompletion=completion.images,
            help="CD in its drive, booted from when the disk is empty.",
        ),
    ] = None,
    vcpus: Vcpus = None,
    memory: Memory = None,
    disk: Disk = None,
    network: Networks = None,
    no_network: NoNetwork = False,
    mac: Annotated[
        list[str] | None,
        typer.Option("--mac", metavar="MAC", help="Of one NIC after the other; repeatable."),
    ] = None,
    start: Annotated[
        bool | None,
        typer.Option(
            "--start/--no-start",
            help="Start it at once (default: yes, where an image or a CD gives it something to boot"
            " from).",
        ),
    ] = None,
    user: User = "",
    ssh_key: SshKeys = None,
    password_hash: PasswordHash = "",
    hostname: Hostname = "",
    address: Addresses = None,
    package: Packages = None,
    run_command: Commands = None,
    user_data: UserData = None,
    vcpus_max: VcpusMax = None,
    memory_max: MemoryMax = None,
    firmware: FirmwareOption = None,
    secure_boot: SecureBoot = None,
    tpm: Tpm = None,
    hypervisor: HypervisorOption = None,
    xen_kind: XenKindOption = None,
    xen_loader: XenLoaderOption = None,
    machine: Machine = "q35",
    cpu: Cpu = "default",
    graphics: Graphics = True,
    agent: Agent = True,
    watchdog: WatchdogOption = "none",
    tag: Tags = None,
    require_tag: RequireTags = None,
    huge_pages: HugePagesOption = None,
    one_numa_cell: OneNumaCell = None,
    nic_model: NicModelOption = "virtio",
    disk_bus: Annotated[
        str | None,
        typer.Option("--disk-bus", metavar="virtio|scsi|sata|ide", help="How it sees its disk."),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Copy the image instead of building upon it.")
    ] = False,
    node: NodeOption = None,
    pool: PoolOption = None,
    storage_class: ClassOption = None,
    limit: LimitOption = "",
    description: Description = None,
    force: AgainstSpare = False,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Make a VM from an image, a CD or nothing, and start it."""
    from vorch import Invalid

    if no_network and (network or mac):
        raise Invalid(
            f"cannot create VM {name!r}: --no-network goes with neither --network nor --mac; leave"
            " one of them away"
        )
    cloud_init = _cloud_init(
        user, ssh_key, password_hash, hostname, address, package, run_command, user_data
    )
    bootable = image is not None or iso is not None
    run(
        lambda found: found.create(
            name,
            image=image,
            iso=iso,
            vcpus=vcpus,
            vcpus_max=vcpus_max,
            memory_mib=memory,
            memory_max_mib=memory_max,
            disk_gib=disk,
            pool=pool,
            storage_class=storage_class,
            limits=sizes.io_limits(limit),
            networks=() if no_network else tuple(network or ("default",)),
            macs=tuple(mac or ()),
            nic_model=nic_model,
            disk_bus=disk_bus,
            firmware=firmware,
            secure_boot=bool(secure_boot),
            tpm=bool(tpm),
            hypervisor=hypervisor,
            xen_kind=xen_kind,
            xen_loader=xen_loader,
            machine=machine or "q35",
            cpu=cpu or "default",
            graphics=graphics is not False,
            agent=agent is not False,
            watchdog=watchdog or "none",
            tags=tag or (),
            require_tags=require_tag or (),
            huge_pages=huge_pages or "",
            one_numa_cell=bool(one_numa_cell),
            linked=not full,
            node=node,
            cloud_init=cloud_init,
            description=description or "",
            start=bootable if start is None else start,
            force=force,
            dry_run=dry_run,
            wait_s=wait,
        ),
        as_json,
    )


def start(
    name: VmName,
    force: AgainstRules = False,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Start a VM.

    One that was looked after before it was stopped is so again.
    """
    run(lambda found: found.start(name, force=force, dry_run=dry_run, wait_s=wait), as_json)


def stop(
    name: VmName,
    timeout: Timeout = None,
    force: Annotated[
        bool, typer.Option("--force", help="Cut its power at once; the guest is not asked.")
    ] = False,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Ask the guest of a VM to shut down, and wait until it has.

    One that is looked after stays off until somebody starts it.
    """
    run(
        lambda found: found.stop(
            name, timeout_s=timeout, force=force, dry_run=dry_run, wait_s=wait
        ),
        as_json,
    )


def restart(
    name: VmName,
    timeout: Timeout = None,
    force: Annotated[
        bool, typer.Option("--force", help="Cut its power instead of asking the guest.")
    ] = False,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Stop a VM and start it anew, with all changes."""
    run(
        lambda found: found.restart(
            name, timeout_s=timeout, force=force, dry_run=dry_run, wait_s=wait
        ),
        as_json,
    )


def reset(
    name: VmName, dry_run: DryRun = False, wait: Wait = None, as_json: AsJson = False
) -> None:
    """Press the reset button of a VM.

    It boots again without having been asked.
    """
    run(lambda found: found.reset(name, dry_run=dry_run, wait_s=wait), as_json)


def pause(
    name: VmName, dry_run: DryRun = False, wait: Wait = None, as_json: AsJson = False
) -> None:
    """Let a VM stand still where it is, in memory."""
    run(lambda found: found.pause(name, dry_run=dry_run, wait_s=wait), as_json)


def resume(
    name: VmName, dry_run: DryRun = False, wait: Wait = None, as_json: AsJson = False
) -> None:
    """Let a paused VM go on."""
    run(lambda found: found.resume(name, dry_run=dry_run, wait_s=wait), as_json)


def migrate(
    name: VmName,
    node: NodeOrNone = None,
    pool: Annotated[
        str | None,
        typer.Option(
            "--pool",
            metavar="POOL",
            autocompletion=completion.pools,
            help="Copy disks that the other host does not reach along, into this pool.",
        ),
    ] = None,
    postcopy: Annotated[
        bool | None,
        typer.Option(
            "--postcopy/--no-postcopy",
            help="Whether it may go over before all of its memory has, when it does not converge"
            " (default: migration_postcopy of vorch.toml).",
        ),
    ] = None,
    pause_limit: Annotated[
        int | None,
        typer.Option(
            "--pause-limit",
            metavar="MS",
            min=1,
            help="How many milliseconds it may stand still at the end (default:"
            " migration_pause_limit_ms of vorch.toml).",
        ),
    ] = None,
    still: Annotated[
        bool,
        typer.Option(
            "--still",
            help="It stands still while its memory is sent, as most PV guests of Xen have to.",
        ),
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Also when it would have to be slowed down to a crawl, or a rule keeps it from"
            " there.",
        ),
    ] = False,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Move a VM to another host while it runs.

    Without NODE it goes to the host with the most free memory. Its disks stay where every host
    reaches them; others are copied along with --pool. A dry run measures how fast the guest changes
    its memory, and says how long the move will take.
    """
    with cluster(as_json) as found:
        done = found.migrate(
            name,
            node,
            pool=pool,
            postcopy=postcopy,
            pause_limit_ms=pause_limit,
            still=still,
            force=force,
            dry_run=dry_run,
            wait_s=wait,
        )
    show_done(done, as_json)
    if done.task is not None and not as_json:
        render.out(render.clean(_came_to(done.task)))


def _came_to(task: Task) -> str:
    """The figures of a migration, in a line."""
    told = task.result
    parts = []
    if "pause_ms" in told:
        parts.append(f"the guest stood still for {told['pause_ms']} ms")
    if "sent_mib" in told:
        parts.append(f"{told['sent_mib']} MiB were sent for {told.get('memory_mib', '?')} MiB")
    if told.get("copied_mib"):
        parts.append(f"{told['copied_mib']} MiB of disks were copied along")
    if told.get("slowed_percent"):
        parts.append(f"it was slowed down by {told['slowed_percent']} %")
    if told.get("postcopy"):
        parts.append("it went over first and drew the rest of its memory after it")
    return "; ".join(parts) or "the hosts told no figures of it"


def relocate(
    name: VmName,
    node: Annotated[
        str | None,
        typer.Argument(
            metavar="NODE", autocompletion=completion.nodes, help="The host; or give it as --to."
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="NODE",
            autocompletion=completion.nodes,
            help="The host that it goes to.",
        ),
    ] = None,
    start: Annotated[
        bool,
        typer.Option("--start/--no-start", help="Between KVM and Xen: see that it comes up there."),
    ] = True,
    expect: Annotated[
        str,
        typer.Option(
            "--expect",
            metavar="TEXT",
            help="What its console shows when it is up (default: a login prompt, or its agent or a"
            " new address is seen).",
        ),
    ] = "",
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            parser=sizes.seconds,
            help="How long it may take to come up there (default: guest_up_s, 300).",
        ),
    ] = None,
    unchecked: Annotated[
        bool,
        typer.Option("--unchecked", help="Also when its disk says that it would not start there."),
    ] = False,
    unread: Annotated[
        bool, typer.Option("--unread", help="Also when its disk could not be looked into.")
    ] = False,
    rollback: Annotated[
        bool,
        typer.Option(
            "--rollback", help="When it goes back, set its disks back too: what it wrote is lost."
        ),
    ] = False,
    force: AgainstRules = False,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Let a VM that is off start on another host from now on.

    Between KVM and Xen its disk is looked into first, a snapshot is taken, and it is started there:
    if its guest does not come up, it goes back by itself.
    """
    from vorch import Invalid

    target = node or to
    if target is None or (node and to and node != to):
        raise Invalid(f"cannot relocate VM {name!r}: name one host that it is to go to")
    run(
        lambda found: found.relocate(
            name,
            target,
            start=start,
            expect=expect,
            timeout_s=timeout,
            unchecked=unchecked,
            unread=unread,
            rollback=rollback,
            force=force,
            dry_run=dry_run,
            wait_s=wait,
        ),
        as_json,
    )


def send(
    name: VmName,
    other: Annotated[
        str,
        typer.Argument(
            metavar="OTHER", help="The other cluster, as in sqlite:///path or rados://POOL."
        ),
    ],
    node: Annotated[
        str | None, typer.Option("--node", metavar="NODE", help="The host there that it goes to.")
    ] = None,
    pool: Annotated[
        str | None,
        typer.Option("--pool", metavar="POOL", help="The pool there that its disks go into."),
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(
            "--network", metavar="HERE=THERE", help="What a network is called there; repeat it."
        ),
    ] = None,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Move a VM that is off, with its disks, to another cluster.

    Nothing of it starts there before it is seen to be off here and nobody has its disks open. Its
    disks are copied in full; the old ones stay in the trash here for a while.
    """
    with cluster(as_json) as found:
        done = found.send(
            name,
            other,
            node=node,
            pool=pool,
            networks=_called_there(network or ()),
            dry_run=dry_run,
            wait_s=wait,
        )
    show_done(done, as_json)


def _called_there(words: Sequence[str]) -> dict[str, str]:
    """`lan=office`, as often as it is said."""
    from vorch import Invalid

    networks = {}
    for word in words:
        here, _, there = word.partition("=")
        if not (here and there):
            raise Invalid(
                f"cannot use {word!r} as a network's name there: write it as HERE=THERE, as in"
                " lan=office"
            )
        networks[here] = there
    return networks


def delete(
    name: VmName,
    force: Annotated[bool, typer.Option("--force", help="Even while it runs.")] = False,
    purge: Annotated[
        bool, typer.Option("--purge", help="For good: its disks cannot be had back.")
    ] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Delete a VM; for a day `vorch undelete` brings it back."""
    with cluster(as_json) as found:
        done = ask_and_do(
            lambda *, dry_run: found.delete(
                name, force=force, purge=purge, dry_run=dry_run, wait_s=wait
            ),
            dry_run=dry_run,
            yes=yes,
        )
    show_done(done, as_json)


def undelete(
    name: Annotated[
        str,
        typer.Argument(
            metavar="VM", autocompletion=completion.trash, help="Its name, or key in the trash."
        ),
    ],
    new_name: Annotated[
        str | None, typer.Option("--as", metavar="NEW", help="Bring it back under another name.")
    ] = None,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Bring a deleted VM back."""
    run(
        lambda found: found.undelete(name, new_name=new_name, dry_run=dry_run, wait_s=wait),
        as_json,
    )


def rename(
    name: VmName,
    new_name: NewVmName,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Give a VM another name."""
    run(lambda found: found.rename(name, new_name, dry_run=dry_run, wait_s=wait), as_json)


def change(
    name: VmName,
    vcpus: Vcpus = None,
    memory: Memory = None,
    vcpus_max: VcpusMax = None,
    memory_max: MemoryMax = None,
    firmware: FirmwareOption = None,
    secure_boot: SecureBoot = None,
    tpm: Tpm = None,
    hypervisor: HypervisorOption = None,
    xen_kind: XenKindOption = None,
    xen_loader: XenLoaderOption = None,
    machine: Machine = None,
    cpu: Cpu = None,
    graphics: Graphics = None,
    agent: Agent = None,
    watchdog: WatchdogOption = None,
    tag: Tags = None,
    require_tag: RequireTags = None,
    no_tags: Annotated[bool, typer.Option("--no-tags", help="It has no tags any more.")] = False,
    no_require_tags: Annotated[
        bool, typer.Option("--no-require-tags", help="It asks for no tags any more.")
    ] = False,
    huge_pages: HugePagesOption = None,
    one_numa_cell: OneNumaCell = None,
    description: Description = None,
    force: AgainstSpare = False,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Change what a VM is made of.

    vCPUs and memory change at once where host and guest can, the rest at the next start.
    """
    run(
        lambda found: found.change(
            name,
            vcpus=vcpus,
            vcpus_max=vcpus_max,
            memory_mib=memory,
            memory_max_mib=memory_max,
            cpu=cpu,
            hypervisor=hypervisor,
            xen_kind=xen_kind,
            xen_loader=xen_loader,
            machine=machine,
            firmware=firmware,
            secure_boot=secure_boot,
            tpm=tpm,
            graphics=graphics,
            agent=agent,
            watchdog=watchdog,
            tags=() if no_tags else tag or None,
            require_tags=() if no_require_tags else require_tag or None,
            huge_pages=huge_pages,
            one_numa_cell=one_numa_cell,
            description=description,
            force=force,
            dry_run=dry_run,
            wait_s=wait,
        ),
        as_json,
    )


def clone(
    name: VmName,
    new_name: NewVmName,
    linked: Annotated[
        bool,
        typer.Option("--linked", help="Share what the disks hold now; the VM must be off."),
    ] = False,
    start: Annotated[
        bool, typer.Option("--start/--no-start", help="Start the clone at once.")
    ] = False,
    user: User = "",
    ssh_key: SshKeys = None,
    password_hash: PasswordHash = "",
    hostname: Hostname = "",
    address: Addresses = None,
    package: Packages = None,
    run_command: Commands = None,
    user_data: UserData = None,
    pool: PoolOption = None,
    storage_class: ClassOption = None,
    hypervisor: HypervisorOption = None,
    xen_kind: XenKindOption = None,
    xen_loader: XenLoaderOption = None,
    force: AgainstSpare = False,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Make a second VM like the first, which may run.

    The new one has an identity of its own: another id, other MAC addresses.
    """
    cloud_init = _cloud_init(
        user, ssh_key, password_hash, hostname, address, package, run_command, user_data
    )
    run(
        lambda found: found.clone(
            name,
            new_name,
            linked=linked,
            cloud_init=cloud_init,
            pool=pool,
            storage_class=storage_class,
            hypervisor=hypervisor,
            xen_kind=xen_kind,
            xen_loader=xen_loader,
            start=start,
            force=force,
            dry_run=dry_run,
            wait_s=wait,
        ),
        as_json,
    )


def template(
    name: VmName,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="Name of the image to be made.")],
    pool: PoolOption = None,
    storage_class: ClassOption = None,
    description: Description = None,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Make an image of a VM, for others to be made from.

    The VM stays.
    """
    run(
        lambda found: found.template(
            name,
            image,
            pool=pool,
            storage_class=storage_class,
            description=description or "",
            dry_run=dry_run,
            wait_s=wait,
        ),
        as_json,
    )


# ---------------------------------------------------------------------------------------------
# cloud-init, as the options say it


def _cloud_init(
    user: str,
    ssh_keys: list[str] | None,
    password_hash: str,
    hostname: str,
    addresses: list[str] | None,
    packages: list[str] | None,
    commands: list[str] | None,
    user_data: str | None,
) -> CloudInit | None:
    """None when none of the options was given: the guest is told nothing."""
    from vorch import CloudInit

    given = CloudInit(
        hostname=hostname,
        user=user,
        ssh_keys=tuple(key for text in ssh_keys or () for key in _public_keys(text)),
        password_hash=password_hash,
        addresses=tuple(sizes.address(text) for text in addresses or ()),
        packages=tuple(packages or ()),
        commands=tuple(commands or ()),
        user_data="" if user_data is None else files.read_text(user_data, "user-data"),
    )
    return None if given == CloudInit() else given


def _public_keys(given: str) -> list[str]:
    """The key that was typed, or those in the file that was named."""
    from vorch import Invalid

    text = given.strip()
    if " " not in text or not text.startswith(("ssh-", "ecdsa-", "sk-")):
        text = files.read_text(given, "SSH key")
        if "PRIVATE KEY" in text:
            raise Invalid(
                f"cannot use {given!r} as an SSH key: that is the private one, yours alone;"
                " name the file that ends in .pub"
            )
    lines = [line.strip() for line in text.splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise Invalid(f"cannot use {given!r} as an SSH key: the file is empty; name another")
    return keys
