"""Play hosts, failures and what vorch makes of them through, in no time and without any host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .. import render
from ..options import AsJson
from .group import noun

if TYPE_CHECKING:
    from vorch.simulate import Played

Scenario = Annotated[
    str, typer.Argument(metavar="FILE", help="A scenario in JSON, of the format ha-scenario/1.")
]


def add_to(app: typer.Typer) -> None:
    group = noun(app, "simulate", "Play failures through without any host, in no time.")
    group.command("ha")(simulate_ha)


def simulate_ha(file: Scenario, as_json: AsJson = False) -> None:
    """Play a scenario of lost hosts and failing VMs, and print what each one comes to.

    It is the loop of `vorch serve` with its decisions, on hosts and a Ceph in memory, under a clock
    that is moved by hand. It ends with an error when something happens that never may: a VM runs
    twice, or starts elsewhere before its old host is cut off for certain.
    """
    from vorch import simulate

    played = simulate.play(simulate.read_scenario(file))
    if as_json:
        render.print_json(played.result)
        return
    _tell(played)


def _tell(played: Played) -> None:
    for second, line in played.log:
        typer.echo(f"{second:8.1f}  {line}")
    rows = [
        [service, one["state"], one["node"], one["running_on"] or "-"]
        for service, one in sorted(played.result["services"].items())
    ]
    render.table(["service", "state", "host", "runs on"], rows)
    fenced = ", ".join(played.result["fenced"]) or "none"
    typer.echo(f"fenced: {fenced}")
