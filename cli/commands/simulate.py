"""Play hosts, failures and what vorch makes of them through, in no time and without any host."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from .. import render
from ..options import AsJson
from . import simulate_room
from .group import noun

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vorch.simulate import Failure, Played

# How often the line is written anew that says how far it is.
SHOWN_EVERY_S = 0.2

Scenario = Annotated[
    str, typer.Argument(metavar="FILE", help="A scenario in JSON, of the format ha-scenario/1.")
]


def add_to(app: typer.Typer) -> None:
    group = noun(app, "simulate", "Play things through without any host, in no time.")
    group.command("ha")(simulate_ha)
    group.command("faults")(simulate_faults)
    simulate_room.add_to(group)


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


def simulate_faults(
    seeds: Annotated[
        int, typer.Option("--seeds", metavar="N", min=1, help="How many schedules to play.")
    ] = 100,
    first: Annotated[
        int, typer.Option("--first", metavar="K", min=0, help="The number of the first one.")
    ] = 0,
    hosts: Annotated[
        int, typer.Option("--hosts", metavar="H", min=1, max=64, help="Hosts in each.")
    ] = 5,
    vms: Annotated[
        int, typer.Option("--vms", metavar="V", min=1, max=999, help="VMs in each.")
    ] = 20,
    jobs: Annotated[
        int,
        typer.Option("--jobs", metavar="J", min=1, help="Processes that play them side by side."),
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Play random schedules of faults, an hour of trouble each, and see that nothing is lost.

    After every event: no disk has two writers, nothing starts without proof, no host is fenced that
    is well. In the end, when all is mended: every VM is as it was asked for. The first schedule
    that fails ends it, cut down to what is needed, as a file for `vorch simulate ha`. Ctrl-C ends
    it as well, and says how many were played until then.
    """
    from vorch import simulate

    numbers = range(first, first + seeds)
    count = _Count(seeds)
    try:
        with count.heard():
            failure = simulate.play_seeds(numbers, hosts=hosts, vms=vms, jobs=jobs, told=count)
    except KeyboardInterrupt:
        count.clear()
        _tell_broken_off(count.played, seeds, first, as_json=as_json)
        raise
    count.clear()
    if failure is not None:
        _tell_failure(failure, as_json=as_json)
        raise typer.Exit(1)
    if as_json:
        render.print_json({"seeds": seeds, "first": first, "failures": []})
        return
    typer.echo(f"{seeds} schedule(s) from {first} on, {hosts} hosts, {vms} VMs: nothing was lost")


class _Count:
    """How many schedules were played, on stderr where somebody looks."""

    def __init__(self, seeds: int) -> None:
        self.played = 0
        self._seeds = seeds
        self._shows = render.is_terminal(sys.stderr)
        self._shown_at = 0.0
        self._broken_off = False

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """A Ctrl-C counts, wherever it comes.

        What is played has processes that die and calls that fail, and is made to go on after that:
        an exception that comes out of nowhere may be taken for one of those.
        """

        def note(*_: object) -> None:
            self._broken_off = True
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def __call__(self, played: int) -> None:
        if self._broken_off:
            raise KeyboardInterrupt
        self.played = played
        now = time.monotonic()
        if self._shows and now - self._shown_at >= SHOWN_EVERY_S:
            self._shown_at = now
            self._write(f"{played} of {self._seeds} schedules: nothing was lost so far")

    def clear(self) -> None:
        if self._shows and self._shown_at:
            self._write("")

    def _write(self, line: str) -> None:
        # Whoever closed stderr does not want to know.
        with contextlib.suppress(OSError):
            sys.stderr.write(f"\r{line}\x1b[K")
            sys.stderr.flush()


def _tell_broken_off(played: int, seeds: int, first: int, *, as_json: bool) -> None:
    if as_json:
        told = {"seeds": played, "first": first, "failures": [], "broken_off": True}
        render.print_json(told)
        return
    typer.echo(
        f"broken off: {played} of {seeds} schedule(s) from {first} on were played, and nothing was"
        f" lost in them; `--first {first + played}` goes on"
    )


def _tell_failure(failure: Failure, *, as_json: bool) -> None:
    told = {"seed": failure.seed, "what": failure.what, "script": failure.script}
    if as_json:
        render.print_json({"failures": [told]})
        return
    typer.echo(f"seed {failure.seed}: {failure.what}; this schedule plays it again:", err=True)
    render.print_json(failure.script)


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
