"""Networks that VMs are plugged into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, cast

import typer

from .. import completion, render
from ..options import AsJson, DryRun, NetworkName, VmName, Wait, Yes
from ..session import ask_and_do, cluster, run, show_all, show_done
from .group import noun

BridgeOn = Annotated[
    list[str] | None,
    typer.Option(
        "--bridge-on",
        metavar="NODE=NAME",
        help="What the bridge is called on that host; repeatable.",
    ),
]
HostPort = Annotated[
    str, typer.Argument(metavar="PORT", help="The host's port, as in 8080 or 53/udp.")
]


def add_to(app: typer.Typer) -> None:
    group = noun(app, "network", "What VMs are plugged into: create, list, change, check, delete.")
    group.command("create")(create)
    group.command("list")(list_networks)
    group.command("show")(show)
    group.command("change")(change)
    group.command("check")(check)
    group.command("delete")(delete)
    forwards = noun(app, "forward", "Ports of hosts that lead to VMs behind NAT.")
    forwards.command("add")(forward_add)
    forwards.command("list")(forward_list)
    forwards.command("remove")(forward_remove)


def bridges_of(words: Sequence[str] | None) -> dict[str, str] | None:
    """`h2=br1`, as often as it is said."""
    from vorch import Invalid

    if not words:
        return None
    for word in words:
        if "=" not in word:
            raise Invalid(
                f"cannot use {word!r} as a host's bridge: write it as NODE=NAME, as in h2=br1"
            )
    return {node: bridge for node, _, bridge in (word.partition("=") for word in words)}


def create(
    name: Annotated[str, typer.Argument(metavar="NETWORK", help="What it is to be called.")],
    kind: Annotated[
        str,
        typer.Option(
            "--kind",
            metavar="nat|isolated|bridge|overlay",
            help="With a way out; without one; on a bridge that the hosts have; or one private"
            " network across all hosts.",
        ),
    ] = "nat",
    bridge: Annotated[
        str | None,
        typer.Option("--bridge", metavar="NAME", help="The host's bridge, for --kind bridge."),
    ] = None,
    subnet: Annotated[
        str | None,
        typer.Option(
            "--subnet", metavar="NET", help="As in 10.80.0.0/24 (default: one that is free)."
        ),
    ] = None,
    dhcp: Annotated[bool, typer.Option("--dhcp/--no-dhcp", help="Give out addresses.")] = True,
    vlan: Annotated[
        int | None, typer.Option("--vlan", metavar="TAG", help="VLAN tag, for --kind bridge.")
    ] = None,
    bridge_on: BridgeOn = None,
    vni: Annotated[
        int | None,
        typer.Option(
            "--vni", metavar="N", help="VXLAN number, for --kind overlay (default: a free one)."
        ),
    ] = None,
    mtu: Annotated[
        int | None,
        typer.Option(
            "--mtu",
            metavar="BYTES",
            help="Longest packet of guests, for --kind overlay (default: 1450; hosts need 50"
            " more between them).",
        ),
    ] = None,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Make a network."""
    run(
        lambda found: found.network_create(
            name,
            # A word that is none of these is refused by the library, in its own words.
            kind=cast(Literal["bridge", "nat", "isolated", "overlay"], kind),
            bridge=bridge,
            bridges=bridges_of(bridge_on),
            subnet=subnet,
            dhcp=dhcp,
            vlan=vlan,
            vni=vni,
            mtu=mtu,
            dry_run=dry_run,
            wait_s=wait,
        ),
        as_json,
    )


def list_networks(as_json: AsJson = False) -> None:
    """All networks."""
    with cluster(as_json) as found:
        networks = found.network_list()

    def table() -> None:
        render.table(
            ("NAME", "KIND", "BRIDGE", "SUBNET", "DHCP", "VLAN"),
            [
                (
                    one.name,
                    one.kind,
                    one.bridge,
                    one.subnet or "",
                    "" if one.kind == "bridge" else render.yes_no(one.dhcp),
                    one.vlan or "",
                )
                for one in networks
            ],
        )

    show_all(networks, as_json, table, "There is no network: `vorch network create` makes one.")


def show(name: NetworkName, as_json: AsJson = False) -> None:
    """One network with everything about it."""
    with cluster(as_json) as found:
        network = found.network_show(name)
    if as_json:
        render.print_json(network)
        return
    render.facts(
        [
            ("name", network.name),
            ("kind", network.kind),
            ("bridge", network.bridge),
            ("subnet", network.subnet),
            ("DHCP", "" if network.kind == "bridge" else render.yes_no(network.dhcp)),
            ("VLAN", network.vlan),
            *((f"bridge on {node}", name) for node, name in sorted(network.bridges.items())),
            ("VXLAN", network.vni),
            ("longest packet", network.mtu),
            ("forwarded", ", ".join(f"{one} to {one.address}" for one in network.forwards)),
        ]
    )


def change(
    name: NetworkName,
    bridge: Annotated[
        str | None, typer.Option("--bridge", metavar="NAME", help="The bridge that hosts have.")
    ] = None,
    bridge_on: BridgeOn = None,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Give a network other bridges, or tell all hosts anew what they should know of it.

    `--bridge-on NODE=` takes back that a host has one of its own. VMs that run are plugged in anew
    when they next start or move.
    """
    run(
        lambda found: found.network_change(
            name, bridge=bridge, bridges=bridges_of(bridge_on), dry_run=dry_run, wait_s=wait
        ),
        as_json,
    )


def check(name: NetworkName, as_json: AsJson = False) -> None:
    """Try out on each host whether it can have a network.

    Ends with exit code 1 if one cannot.
    """
    with cluster(as_json) as found:
        checks = found.network_check(name)
    if as_json:
        render.print_json(checks)
    else:
        render.table(
            ("LEVEL", "WHAT", "FOUND", "DO"),
            [(one.level, one.name, one.detail, one.remedy) for one in checks],
        )
    if any(one.level != "ok" for one in checks):
        raise typer.Exit(1)


def forward_add(
    name: VmName,
    port: Annotated[
        str,
        typer.Argument(
            metavar="HOST:GUEST",
            help="The two ports, as in 8080:80 or 5353:53/udp; TCP if not said.",
        ),
    ],
    nic: Annotated[
        str | None,
        typer.Option("--nic", metavar="NIC", help="Which one, if several are behind NAT."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            metavar="ADDRESS",
            help="What the NIC keeps (default: the address that it has, or a free one).",
        ),
    ] = None,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Have a port of the host that a VM runs on lead to a port of the VM.

    It goes with the VM from host to host, and is there while the VM runs.
    """
    run(
        lambda found: found.forward_add(
            name, port, nic=nic, address=address, dry_run=dry_run, wait_s=wait
        ),
        as_json,
    )


def forward_list(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="VM", autocompletion=completion.vms, help="Those of one VM (default: all)."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Which ports lead where, and on which host."""
    with cluster(as_json) as found:
        forwards = found.forward_list(name)

    def table() -> None:
        render.table(
            ("HOST", "PORT", "VM", "ADDRESS", "NETWORK"),
            [
                (
                    one.node,
                    f"{one.forward.host_port}/{one.forward.protocol}",
                    one.vm,
                    f"{one.forward.address}:{one.forward.guest_port}",
                    one.network,
                )
                for one in forwards
            ],
        )

    show_all(forwards, as_json, table, "No port is forwarded: `vorch forward add` does that.")


def forward_remove(
    name: VmName,
    port: HostPort,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Have a port lead to a VM no more."""
    run(lambda found: found.forward_remove(name, port, dry_run=dry_run, wait_s=wait), as_json)


def delete(
    name: NetworkName,
    yes: Yes = False,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Delete a network that no VM has a NIC on."""
    with cluster(as_json) as found:
        done = ask_and_do(
            lambda *, dry_run: found.network_delete(name, dry_run=dry_run, wait_s=wait),
            dry_run=dry_run,
            yes=yes,
        )
    show_done(done, as_json)
