"""The machines in groups, for people and for Ansible."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .. import completion, render, sizes
from ..options import AsJson
from ..session import cluster

if TYPE_CHECKING:
    from vorch import Inventory


def add_to(app: typer.Typer) -> None:
    app.command()(inventory)


def inventory(
    ansible: Annotated[
        bool,
        typer.Option("--ansible", help="As Ansible's inventory scripts print it."),
    ] = False,
    list_all: Annotated[
        bool, typer.Option("--list", help="All machines; what Ansible calls a script with.")
    ] = False,
    host: Annotated[
        str | None,
        typer.Option(
            "--host",
            metavar="VM",
            autocompletion=completion.vms,
            help="The variables of one machine alone, as Ansible asks for them.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """All VMs as machines to be reached, in groups by host, network and state.

    For Ansible, `ansible-inventory -i FILE` takes a script of two lines: `#!/bin/sh` and
    `exec vorch inventory --ansible "$@"`.
    """
    from vorch import Invalid, NotFound, ansible_host, ansible_inventory

    if (list_all or host is not None) and not ansible:
        raise Invalid("cannot use --list or --host without --ansible; add it, or use --json")
    if list_all and host is not None:
        raise Invalid("cannot use --list and --host at once; leave one")
    with cluster(as_json or ansible, recover=False) as found:
        known = found.inventory()
    if not ansible:
        _show(known, as_json)
    elif host is None:
        render.print_json(ansible_inventory(known))
    else:
        named = [one for one in known.hosts if one.name == host]
        if not named:
            raise NotFound(
                f"cannot show the variables of {host!r}: there is no VM of that name; `vorch list`"
                " shows all",
                vm=host,
            )
        render.print_json(ansible_host(named[0]))


def _show(known: Inventory, as_json: bool) -> None:
    if as_json:
        render.print_json(known)
        return
    render.table(
        ("NAME", "STATE", "NODE", "ADDRESS", "VCPUS", "MEMORY", "NETWORKS"),
        [
            (
                one.name,
                one.state,
                one.node,
                one.address,
                one.vcpus,
                sizes.shown_mib(one.memory_mib),
                ", ".join(one.networks),
            )
            for one in known.hosts
        ],
        right=("VCPUS", "MEMORY"),
    )
