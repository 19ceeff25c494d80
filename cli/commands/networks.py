"""Networks that VMs are plugged into."""

from __future__ import annotations

from typing import Annotated, Literal, cast

import typer

from .. import render
from ..options import AsJson, DryRun, NetworkName, Wait, Yes
from ..session import ask_and_do, cluster, run, show_all, show_done
from .group import noun


def add_to(app: typer.Typer) -> None:
    group = noun(app, "network", "What VMs are plugged into: create, list, show, delete.")
    group.command("create")(create)
    group.command("list")(list_networks)
    group.command("show")(show)
    group.command("delete")(delete)


def create(
    name: Annotated[str, typer.Argument(metavar="NETWORK", help="What it is to be called.")],
    kind: Annotated[
        str,
        typer.Option(
            "--kind",
            metavar="nat|isolated|bridge",
            help="With a way out; without one; or on a bridge that the host has.",
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
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Make a network."""
    run(
        lambda found: found.network_create(
            name,
            # A word that is none of these is refused by the library, in its own words.
            kind=cast(Literal["bridge", "nat", "isolated"], kind),
            bridge=bridge,
            subnet=subnet,
            dhcp=dhcp,
            vlan=vlan,
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
        ]
    )


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
