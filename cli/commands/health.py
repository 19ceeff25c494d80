"""How the cluster is as a whole: its health, its storage, what its hosts have to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from .. import render, sizes
from ..options import AsJson
from ..session import cluster, show_all
from .group import noun

if TYPE_CHECKING:
    from vorch import StorageHealth, StoragePlace


def add_to(app: typer.Typer) -> None:
    app.command()(health)
    app.command()(loads)
    group = noun(app, "storage", "The Ceph that pools are in.")
    group.command("status")(storage_status)


def health(as_json: AsJson = False) -> None:
    """Whether all is well, in one line; and each thing that is not, with what to do about it."""
    with cluster(as_json) as found:
        said = found.health()
    if as_json:
        render.print_json(said)
        return
    render.facts(
        [
            ("health", f"{said.status}: {said.line}"),
            ("hosts", f"{said.hosts_online} of {said.hosts} answer"),
            ("VMs", f"{said.vms_running} of {said.vms} run"),
            ("tasks", f"{said.tasks_running} under way"),
        ]
    )
    if said.concerns:
        render.out("")
        render.table(
            ("LEVEL", "WHAT", "WHAT TO DO"),
            [(one.level, one.text, one.remedy) for one in said.concerns],
        )


def loads(as_json: AsJson = False) -> None:
    """What each host does, as the service on this machine has measured it last."""
    with cluster(as_json, recover=False) as found:
        told = found.loads()

    def table() -> None:
        render.table(
            ("HOST", "AT", *render.RATES),
            [(one.node, render.moment(one.at), *render.rates(one.rates)) for one in told],
            right=render.RATES,
        )

    show_all(told, as_json, table, "No host was measured in the last minute.")


def storage_status(as_json: AsJson = False) -> None:
    """How the Ceph that pools are in says that it is, and the tree of its OSDs."""
    with cluster(as_json) as found:
        told = found.storage_status()

    def tables() -> None:
        for one in told:
            render.facts(_facts(one.health))
            render.out("")
            render.table(
                ("ID", "NAME", "TYPE", "STATE", "CLASS", "WEIGHT", "SIZE", "USED"),
                [_row(place) for place in one.places],
                right=("WEIGHT", "SIZE", "USED"),
            )

    show_all(told, as_json, tables, "No pool of this cluster is in Ceph.")


def _facts(said: StorageHealth) -> list[tuple[str, object]]:
    return [
        ("Ceph", said.cluster),
        ("health", said.status),
        *((code, text) for code, text in sorted(said.checks.items())),
        ("monitors", f"{said.monitors_in_quorum} of {said.monitors} in quorum"),
        ("OSDs", f"{said.osds_up} of {said.osds} up, {said.osds_in} in"),
        (
            "room",
            f"{sizes.shown_bytes(said.free_bytes)} of {sizes.shown_bytes(said.capacity_bytes)}"
            " free",
        ),
    ]


def _row(place: StoragePlace) -> tuple[object, ...]:
    state = ""
    if place.up is not None:
        state = ("up" if place.up else "down") + ("" if place.inside else ", out")
    return (
        place.id,
        "  " * place.depth + place.name,
        place.type,
        state,
        place.device_class,
        f"{place.weight:g}" if place.up is not None else "",
        "" if place.size_bytes is None else sizes.shown_bytes(place.size_bytes),
        "" if place.used_bytes is None else sizes.shown_bytes(place.used_bytes),
    )
