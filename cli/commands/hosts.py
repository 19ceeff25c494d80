"""Hosts, pools and volumes: what VMs run on and what they are made of."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import completion, render, sizes
from ..options import AsJson, DryRun, NodeName, Wait
from ..session import ask, ask_and_do, cluster, run, show_all, show_done
from .group import noun
from .history import node_history

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vorch import Ability, Done, HostFacts, NodeStatus


class OnOff(StrEnum):
    ON = "on"
    OFF = "off"


# What a person agrees to.
HOOK_WORDS = (
    "A Xen host's own kernel opens disks in Ceph. For that vorch puts one file there by ssh:"
    " /etc/libvirt/hooks/libxl.d/vorch, which libvirt runs as root when a guest starts and ends,"
    " and has libvirtd read its settings again; guests go on. `vorch node remove` takes it away."
)


def add_to(app: typer.Typer) -> None:
    nodes = noun(app, "node", "Hosts: add, list, show, change, check, cordon, fence, remove.")
    nodes.command("add")(node_add)
    nodes.command("list")(node_list)
    nodes.command("show")(node_show)
    nodes.command("abilities")(node_abilities)
    nodes.command("check")(node_check)
    nodes.command("change")(node_change)
    nodes.command("probe")(node_probe)
    nodes.command("cordon")(node_cordon)
    nodes.command("uncordon")(node_uncordon)
    nodes.command("maintenance")(node_maintenance)
    nodes.command("fence")(node_fence)
    nodes.command("unfence")(node_unfence)
    nodes.command("remove")(node_remove)
    nodes.command("hook")(node_hook)
    nodes.command("history")(node_history)
    pools = noun(app, "pool", "Places for volumes: add, list, remove.")
    pools.command("add")(pool_add)
    pools.command("list")(pool_list)
    pools.command("remove")(pool_remove)
    volumes = noun(app, "volume", "What disks and images are made of.")
    volumes.command("list")(volume_list)


StorageAddress = Annotated[
    str | None,
    typer.Option(
        "--storage-address",
        metavar="ADDRESS",
        help="Where its Ceph traffic comes from (default: as Ceph shows it).",
    ),
]
Bmc = Annotated[
    str | None,
    typer.Option(
        "--bmc",
        metavar="URL",
        help="What switches its power: redfish+https://USER@BMC or ipmi://USER@BMC.",
    ),
]
BmcPasswordFile = Annotated[
    Path | None,
    typer.Option(
        "--bmc-password-file",
        metavar="FILE",
        help="The BMC's password, on the first line; '-' reads it from standard input"
        " (default: the environment's VORCH_BMC_PASSWORD).",
        allow_dash=True,
    ),
]


TagOption = Annotated[
    list[str] | None,
    typer.Option(
        "--tag",
        metavar="TAG",
        help="A word that VMs can ask for, or where it stands, as in gpu or rack:r1; repeatable.",
    ),
]
CpuRatio = Annotated[
    float | None,
    typer.Option(
        "--cpu-ratio", metavar="N", help="vCPUs per processor at most (0: as is usual, 16)."
    ),
]


Ssh = Annotated[
    str | None,
    typer.Option(
        "--ssh",
        metavar="WAY",
        help="How a Xen host is reached for what libvirt does not do, as in root@host or"
        " ssh://root@host:22?keyfile=/etc/vorch/key (default: root at the host of its URI).",
    ),
]
InstallHook = Annotated[
    bool,
    typer.Option(
        "--install-hook",
        help="vorch may put its libvirt hook onto a Xen host, by which it opens disks in Ceph.",
    ),
]


def _bmc_password(file: Path | None) -> str | None:
    """From a file or the environment; never from the command line, which everybody sees."""
    if file is None:
        return os.environ.get("VORCH_BMC_PASSWORD")
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        from vorch import Invalid

        raise Invalid(
            f"cannot read the BMC's password from {str(file)!r}: {exc}; name another file"
        ) from exc
    return text.partition("\n")[0].rstrip("\r")


def node_add(
    name: Annotated[str, typer.Argument(metavar="NODE", help="Its new name.")],
    uri: Annotated[
        str,
        typer.Option(
            "--uri",
            metavar="URI",
            help="Its libvirt, as in qemu+tls://host/system or xen+tls://host/system.",
        ),
    ],
    reserve: Annotated[
        int | None,
        typer.Option(
            "--reserve",
            metavar="SIZE",
            parser=sizes.memory_mib,
            help="Memory that is never given to guests (default: node_reserve_mib of vorch.toml).",
        ),
    ] = None,
    storage_address: StorageAddress = None,
    bmc: Bmc = None,
    bmc_password_file: BmcPasswordFile = None,
    tag: TagOption = None,
    cpu_ratio: CpuRatio = None,
    ssh: Ssh = None,
    install_hook: InstallHook = False,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Take a host in.

    First it is tried out: it must answer, boot something, have the right time, open a disk in every
    shared pool by each of its monitors, and exchange a test machine with other hosts. A host that
    cannot stays out, and why is said.

    A Xen host needs a small libvirt hook for disks in Ceph. vorch asks before it puts that there.
    """
    if uri.startswith("xen") and not (install_hook or dry_run) and sys.stdin.isatty():
        ask(HOOK_WORDS, f"add host {name!r}")
        install_hook = True
    run(
        lambda found: found.node_add(
            name,
            uri,
            reserve_mib=reserve,
            storage_address=storage_address or "",
            bmc=bmc or "",
            bmc_password=(_bmc_password(bmc_password_file) or "") if bmc else "",
            tags=tag or (),
            cpu_ratio=cpu_ratio,
            ssh=ssh or "",
            install_hook=install_hook,
            dry_run=dry_run,
            wait_s=wait,
        ),
        as_json,
    )


def node_change(
    name: NodeName,
    reserve: Annotated[
        int | None,
        typer.Option(
            "--reserve",
            metavar="SIZE",
            parser=sizes.memory_mib,
            help="Memory that is never given to guests.",
        ),
    ] = None,
    storage_address: StorageAddress = None,
    bmc: Bmc = None,
    bmc_password_file: BmcPasswordFile = None,
    tag: TagOption = None,
    no_tags: Annotated[bool, typer.Option("--no-tags", help="It has no tags any more.")] = False,
    cpu_ratio: CpuRatio = None,
    ssh: Ssh = None,
    install_hook: InstallHook = False,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Change what vorch knows of a host: memory kept back, storage address, BMC, tags, CPU ratio.

    A BMC is read once before it is taken. An empty address or URL ('') takes the old one away. Tags
    that are given are all that it has then.
    """
    if tag and no_tags:
        from vorch import Invalid

        raise Invalid(
            f"cannot change host {name!r}: --no-tags takes all tags away; leave it or --tag away"
        )
    given = bmc is not None or bmc_password_file is not None
    password = _bmc_password(bmc_password_file) if given else None
    run(
        lambda found: found.node_change(
            name,
            reserve_mib=reserve,
            storage_address=storage_address,
            bmc=bmc,
            bmc_password=password,
            tags=() if no_tags else tag or None,
            cpu_ratio=cpu_ratio,
            ssh=ssh,
            install_hook=install_hook,
            dry_run=dry_run,
            wait_s=wait,
        ),
        as_json,
    )


def node_abilities(name: NodeName, as_json: AsJson = False) -> None:
    """What a host can be asked for, and why not where it cannot."""
    with cluster(as_json) as found:
        able = found.node_abilities(name)
    show_all(
        able,
        as_json,
        lambda: render.table(
            ("CAN", "WHAT", "WHY NOT"),
            [("no" if one.why_not else "yes", one.name, one.why_not) for one in able],
        ),
        f"Nobody has asked it yet: `vorch node probe {name}` does.",
    )


def node_check(name: NodeName, as_json: AsJson = False) -> None:
    """Try a host out as when it joined.

    Ends with exit code 1 if it cannot do something that hosts must do.
    """
    with cluster(as_json) as found:
        checks = found.node_check(name)
    if as_json:
        render.print_json(checks)
    else:
        render.table(
            ("LEVEL", "WHAT", "FOUND", "DO"),
            [(one.level, one.name, one.detail, one.remedy) for one in checks],
        )
    if any(one.level == "error" for one in checks):
        raise typer.Exit(1)


def node_hook(
    install: Annotated[
        bool,
        typer.Option("--install", help="Put it in its place on this machine instead (as root)."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print the libvirt hook that overlays and forwarded ports need on each host.

    It belongs into /etc/libvirt/hooks/network.d/vorch, executable. libvirtd has to be restarted
    once to see it; VMs go on meanwhile.
    """
    from vorch import install_network_hook, network_hook

    if not install:
        text = network_hook()
        if as_json:
            render.print_json({"hook": text})
        else:
            sys.stdout.write(text)
        return
    place = install_network_hook()
    if as_json:
        render.print_json({"installed": str(place)})
    else:
        render.out(f"{place} is installed; restart libvirtd once: systemctl restart libvirtd")


def node_cordon(
    name: NodeName, dry_run: DryRun = False, wait: Wait = None, as_json: AsJson = False
) -> None:
    """Start and place nothing on a host any more; what runs there goes on."""
    run(lambda found: found.node_cordon(name, dry_run=dry_run, wait_s=wait), as_json)


def node_uncordon(
    name: NodeName, dry_run: DryRun = False, wait: Wait = None, as_json: AsJson = False
) -> None:
    """Use a host again."""
    run(lambda found: found.node_uncordon(name, dry_run=dry_run, wait_s=wait), as_json)


def node_maintenance(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NODE|KEY:NAME",
            help="The host; or a failure domain, all of it, as in rack:r1.",
            autocompletion=completion.nodes_and_domains,
        ),
    ],
    state: Annotated[
        OnOff,
        typer.Argument(
            metavar="on|off", help="on: move all VMs away and cordon it; off: bring them back."
        ),
    ],
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Empty a host, or a whole rack, VM by VM, before it is switched off; then bring them back.

    Of several hosts it is one decision where all go, and what leaves one does not go to another.
    What runs moves live. What cannot move stays, and is said when all others have.
    """
    with cluster(as_json) as found:
        done = found.node_maintenance(name, state is OnOff.ON, wait_s=wait)
    if as_json:
        render.print_json(done)
        return
    for one in done:
        show_done(one, as_json)


def node_fence(
    name: NodeName,
    force: Annotated[
        bool,
        typer.Option("--force", help="Also a host that is heard of: all VMs on it end."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Cut a host off from its power or its disks, and prove it.

    For a host that is dead or out of reach, so that its VMs can start elsewhere.
    """
    with cluster(as_json) as found:

        def verb(*, dry_run: bool) -> Done:
            return found.node_fence(name, force=force, dry_run=dry_run, wait_s=wait)

        done = ask_and_do(verb, dry_run=dry_run, yes=yes)
    show_done(done, as_json)
    _say_proof(done, as_json)


def _say_proof(done: Done, as_json: bool) -> None:
    proof = done.task.result.get("proof") if done.task is not None else None
    if proof and not as_json:
        render.out(render.clean(f"proof: {proof}"))


def node_unfence(
    name: NodeName,
    force: Annotated[
        bool,
        typer.Option("--force", help="Also when vorch does not know that it is cut off."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Take back a host that was cut off.

    What it still runs is ended first: it is older than what is on its disks.
    """
    with cluster(as_json) as found:

        def verb(*, dry_run: bool) -> Done:
            return found.node_unfence(name, force=force, dry_run=dry_run, wait_s=wait)

        done = ask_and_do(verb, dry_run=dry_run, yes=yes)
    show_done(done, as_json)


def node_remove(
    name: NodeName,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Also one that is cut off, whose addresses stay so; and where VMs have no room any"
            " more when another one is lost.",
        ),
    ] = False,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Let a host go. Refused while VMs or pools belong to it."""
    run(lambda found: found.node_remove(name, force=force, dry_run=dry_run, wait_s=wait), as_json)


def node_list(as_json: AsJson = False) -> None:
    """All hosts, with what is on them now."""
    with cluster(as_json) as found:
        nodes = found.node_list()

    def table() -> None:
        render.table(
            (
                "NAME",
                "STATE",
                "VMS",
                "USED",
                "FREE",
                "CPUS",
                "ACCELERATOR",
                "VERSIONS",
                "TAGS",
                "URI",
            ),
            [
                (
                    one.name,
                    one.state,
                    "" if one.state == "silent" else one.running,
                    "" if one.state == "silent" else sizes.shown_mib(one.memory_used_mib),
                    "" if one.state == "silent" else sizes.shown_mib(one.memory_free_mib),
                    one.facts.cpus if one.facts else "",
                    one.facts.accelerator if one.facts else "",
                    _versions(one.facts) if one.facts else "",
                    " ".join([*one.node.tags, *(f"{tag} (ceph)" for tag in one.node.offered_tags)]),
                    one.uri,
                )
                for one in nodes
            ],
            right=("VMS", "USED", "FREE", "CPUS"),
        )

    show_all(nodes, as_json, table, "There is no host yet: `vorch init` takes this one.")


def node_show(name: NodeName, as_json: AsJson = False) -> None:
    """One host, and what it can."""
    with cluster(as_json) as found:
        node = found.node_show(name)
        able = found.node_abilities(name)
    if as_json:
        render.print_json(node)
    else:
        render.facts([*node_facts(node), *abilities(able)])


def node_probe(name: NodeName, as_json: AsJson = False) -> None:
    """Find out anew what a host can.

    By asking it, and by booting something tiny on it.
    """
    with cluster(as_json) as found:
        if not as_json and render.is_terminal(sys.stderr):
            sys.stderr.write("Booting something tiny, which takes a few seconds...\n")
        facts = found.node_probe(name)
        able = found.node_abilities(name)
    if as_json:
        render.print_json(facts)
    else:
        render.facts([*host_facts(facts), *abilities(able)])


def node_facts(status: NodeStatus) -> list[tuple[str, object]]:
    node = status.node
    known = host_facts(node.facts) if node.facts else [("facts", "never asked")]
    reserve = f"{sizes.shown_mib(node.reserve_mib)} of it are never given to guests"
    free = (
        f"{sizes.shown_mib(status.memory_free_mib)}, {sizes.shown_mib(status.memory_used_mib)} used"
    )
    seen: list[tuple[str, object]] = []
    if status.state != "silent":
        seen = [("VMs", status.running), ("free for guests", free)]
    return [
        ("name", node.name),
        ("URI", node.uri),
        ("state", status.state),
        *seen,
        *known,
        ("kept back", reserve),
        ("storage address", node.storage_address or "not known yet"),
        ("BMC", node.bmc or "none"),
        (
            "tags",
            ", ".join([*node.tags, *(f"{tag} (from Ceph)" for tag in node.offered_tags)]) or "none",
        ),
        (
            "vCPUs per CPU",
            "16 at most, as is usual" if node.cpu_ratio is None else f"{node.cpu_ratio:g} at most",
        ),
        *(("note", note) for note in status.notes),
    ]


def abilities(found: Iterable[Ability]) -> list[tuple[str, object]]:
    """What a host can in one line, and a line for each thing that it cannot: why."""
    found = tuple(found)
    can = ", ".join(one.name for one in found if not one.why_not)
    cannot = [("cannot", f"{one.name}: {one.why_not}") for one in found if one.why_not]
    return [("can", can), *cannot] if found else []


def _versions(facts: HostFacts) -> str:
    known = (facts.libvirt_version, facts.hypervisor_version.rpartition(" ")[2])
    return " / ".join(version for version in known if version)


def host_facts(facts: HostFacts) -> list[tuple[str, object]]:
    versions = [
        f"{name} {version}"
        for name, version in (
            ("libvirt", facts.libvirt_version),
            (facts.hypervisor, facts.hypervisor_version),
        )
        if version
    ]
    why = f" ({facts.accelerator_why})" if facts.accelerator_why else ""
    return [
        ("accelerator", f"{facts.accelerator or 'not probed yet'}{why}"),
        ("CPUs", f"{facts.cpus}, {facts.architecture} {facts.cpu_model}".rstrip()),
        ("memory", sizes.shown_mib(facts.memory_mib)),
        ("versions", ", ".join(versions)),
        ("hypervisor", facts.hypervisor),
        ("machines", _some(facts.machines)),
        ("kinds of guests", _some(facts.xen_kinds)),
        ("CPU models", _some(facts.cpu_models)),
        ("probed", render.moment(facts.probed_at)),
    ]


def _some(words: tuple[str, ...], most: int = 12) -> str:
    more = f" and {len(words) - most} more (--json lists all)" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def pool_add(
    name: Annotated[str, typer.Argument(metavar="POOL", help="Its new name, such as fast.")],
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL", help="rbd://POOL?conf=/etc/ceph/ceph.conf&id=USER, or dir:///path."
        ),
    ],
    node: Annotated[
        str | None,
        typer.Option(
            "--node",
            metavar="NODE",
            autocompletion=completion.nodes,
            help="For a folder: the host that it is on, which must be this machine.",
        ),
    ] = None,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Take a pool in, when every host can open a disk in it."""
    run(lambda found: found.pool_add(name, url, node=node, dry_run=dry_run, wait_s=wait), as_json)


def pool_remove(
    name: Annotated[
        str,
        typer.Argument(metavar="POOL", autocompletion=completion.pools, help="Name of the pool."),
    ],
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Forget a pool. What is in it stays there; refused while the cluster uses any of it."""
    run(lambda found: found.pool_remove(name, dry_run=dry_run, wait_s=wait), as_json)


def pool_list(as_json: AsJson = False) -> None:
    """All pools, with their room."""
    with cluster(as_json) as found:
        pools = found.pool_list()
    if as_json:
        render.print_json([{"pool": pool, "usage": usage} for pool, usage in pools])
        return

    def table() -> None:
        render.table(
            ("NAME", "URL", "CAPACITY", "FREE", "USED", "PROMISED"),
            [
                (
                    pool.name,
                    pool.url,
                    sizes.shown_bytes(usage.capacity_bytes),
                    sizes.shown_bytes(usage.free_bytes),
                    sizes.shown_bytes(usage.used_bytes),
                    sizes.shown_bytes(usage.provisioned_bytes),
                )
                for pool, usage in pools
            ],
            right=("CAPACITY", "FREE", "USED", "PROMISED"),
        )

    show_all(pools, as_json, table, "There is no pool yet: `vorch init` makes one.")


def volume_list(
    pool: Annotated[
        str,
        typer.Argument(metavar="POOL", autocompletion=completion.pools, help="Name of the pool."),
    ] = "local",
    as_json: AsJson = False,
) -> None:
    """Every volume of a pool, hidden and deleted ones included."""
    with cluster(as_json) as found:
        volumes = found.volume_list(pool)

    def table() -> None:
        render.table(
            ("NAME", "SIZE", "USED", "FORMAT", "BASE", "SNAPSHOTS", "TRASH"),
            [
                (
                    one.name,
                    sizes.shown_bytes(one.size_bytes),
                    sizes.shown_bytes(one.used_bytes),
                    one.format,
                    one.base or "",
                    ", ".join(one.snapshots),
                    "deleted" if one.trashed else "",
                )
                for one in volumes
            ],
            right=("SIZE", "USED"),
        )

    show_all(volumes, as_json, table, "The pool is empty.")
