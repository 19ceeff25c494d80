"""What VMs and hosts did of late."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .. import render, sizes
from ..options import AsJson, NodeName, VmName
from ..session import cluster

if TYPE_CHECKING:
    from vorch import History

HOUR_S = 3600.0

For = Annotated[
    float | None,
    typer.Option(
        "--for",
        metavar="TIME",
        parser=sizes.span,
        help="How far to look back, as in 10min or 24h (default: 1h). Beyond an hour it shows"
        " means of 5 minutes.",
    ),
]


def add_to(app: typer.Typer) -> None:
    app.command()(history)


def history(name: VmName, for_s: For = None, as_json: AsJson = False) -> None:
    """What a VM did of late, as the service on this machine has measured it."""
    with cluster(as_json, recover=False) as found:
        told = found.history(name, for_s=HOUR_S if for_s is None else for_s)
    _show(told, as_json)


def node_history(name: NodeName, for_s: For = None, as_json: AsJson = False) -> None:
    """What a host did of late, as the service on this machine has measured it."""
    with cluster(as_json, recover=False) as found:
        told = found.node_history(name, for_s=HOUR_S if for_s is None else for_s)
    _show(told, as_json)


def _show(told: History, as_json: bool) -> None:
    if as_json:
        render.print_json(told)
        return

    render.table(
        ("AT", *render.RATES),
        [(render.moment(one.at), *render.rates(one.rates)) for one in told.points],
        right=render.RATES,
    )
