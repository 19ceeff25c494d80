"""Balance: VMs that move from hosts with much to do to hosts with little, now or by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .. import render, sizes
from ..options import AsJson, DryRun, Wait
from ..session import cluster, run

if TYPE_CHECKING:
    from vorch import Balanced

MovesMax = Annotated[
    int | None, typer.Option("--moves-max", metavar="N", min=0, help="So many moves at most.")
]
MemoryMax = Annotated[
    float | None,
    typer.Option(
        "--memory-max-gib", metavar="N", min=0, help="So many GiB of memory to copy at most."
    ),
]


def add_to(app: typer.Typer) -> None:
    app.command()(balance)


def balance(
    moves_max: MovesMax = None,
    memory_max_gib: MemoryMax = None,
    time_max_s: Annotated[
        float | None,
        typer.Option(
            "--time-max-s",
            metavar="SECONDS",
            parser=sizes.seconds,
            help="So long at most, as far as that can be told before.",
        ),
    ] = None,
    metric: Annotated[
        str,
        typer.Option(
            "--metric",
            metavar="vorch|norm|htools",
            help="What is even: by vorch's judgement, by the spread of shares alone, or by Ganeti's"
            " score.",
        ),
    ] = "vorch",
    measure_s: Annotated[
        float,
        typer.Option(
            "--measure-s",
            metavar="SECONDS",
            parser=sizes.seconds,
            help="How long processors are watched first, where no `vorch serve` has measured them.",
        ),
    ] = 5.0,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Even out what hosts have to do, by few moves of VMs that run.

    What breaks rules or is overfull is put right first. A move is made only where it is worth its
    price, so a second run straight after moves nothing. Each is looked at again when it is its
    turn, and left out where it is not right any more. Ctrl-C ends those under way and begins no
    more.
    """
    with cluster(as_json) as found:
        came = found.balance(
            moves_max=moves_max,
            memory_max_mib=None if memory_max_gib is None else int(memory_max_gib * 1024),
            time_max_s=time_max_s,
            metric=metric,
            measure_s=measure_s,
            dry_run=dry_run,
            wait_s=wait,
        )
    if as_json:
        render.print_json(came)
    else:
        _show(came, dry_run=dry_run)


def _show(came: Balanced, *, dry_run: bool) -> None:
    plan = came.plan
    if plan.moves:
        render.table(
            ("ROUND", "VM", "FROM", "TO", "GAIN", "MEMORY", "TIME", "WHY"),
            [
                (
                    number,
                    one.guest,
                    one.source,
                    one.target,
                    f"{one.gain:.3f}",
                    sizes.shown_mib(one.memory_mib),
                    sizes.shown_span(one.seconds),
                    one.why,
                )
                for number, moves in enumerate(plan.rounds, 1)
                for one in moves
            ],
            right=("ROUND", "GAIN", "MEMORY", "TIME"),
        )
        render.out("")
    before, after = plan.before, plan.after
    highest = dict(after.highest)
    then = dict(after.spreads)
    figures: list[tuple[str, object]] = [
        (f"{what} in use", _from_to(share, highest[what], spread, then[what]))
        for (what, share), (_, spread) in zip(before.highest, before.spreads, strict=True)
    ]
    if before.broken or before.overfull:
        figures += [
            ("broken rules", f"{before.broken}, then {after.broken}"),
            ("overfull hosts", f"{before.overfull}, then {after.overfull}"),
        ]
    total = f"about {sizes.shown_span(plan.seconds)}, {sizes.shown_mib(plan.memory_mib)} to copy"
    render.facts(
        [
            ("plan", f"{len(plan.moves)} moves in {len(plan.rounds)} rounds, {total}"),
            ("gain", f"{plan.gain:.3f}"),
            *figures,
            ("loads", came.measured),
            *(("note", note) for note in plan.notes),
        ]
        if plan.moves
        else [("plan", plan.why), *figures, ("loads", came.measured)]
    )
    if plan.moves and not dry_run:
        render.out("")
        render.out(render.clean(f"balance: {len(came.done)} of {len(plan.moves)} moves were made"))
        for name, why in came.skipped.items():
            render.out(render.clean(f"{name} was left where it is: {why}"))


def _from_to(share: float, share_then: float, spread: float, spread_then: float) -> str:
    if round(1000 * share) == round(1000 * share_then) and round(1000 * spread) == round(
        1000 * spread_then
    ):
        return f"{share:.1%} on the fullest host, spread {spread:.1%}"
    return (
        f"{share:.1%} on the fullest host, then {share_then:.1%}; spread {spread:.1%}, then"
        f" {spread_then:.1%}"
    )


# ---------------------------------------------------------------------------------------------
# By itself: `vorch ha balance`


def ha_balance(
    auto: Annotated[
        bool | None,
        typer.Option("--auto/--no-auto", help="Whether whoever watches balances by itself."),
    ] = None,
    every: Annotated[
        float | None,
        typer.Option(
            "--every", metavar="TIME", parser=sizes.span, help="How often, as in 15min or 2h."
        ),
    ] = None,
    least_gain: Annotated[
        float | None,
        typer.Option(
            "--least-gain",
            metavar="N",
            help="What it has to gain at least, in shares of a host, as in 0.05; broken rules and"
            " overfull hosts are put right in any case.",
        ),
    ] = None,
    moves_max: Annotated[
        int | None,
        typer.Option(
            "--moves-max", metavar="N", min=0, help="So many moves at one time; 0: no limit."
        ),
    ] = None,
    memory_max_gib: Annotated[
        float | None,
        typer.Option(
            "--memory-max-gib",
            metavar="N",
            min=0,
            help="So many GiB of memory to copy at one time; 0: no limit.",
        ),
    ] = None,
    quiet: Annotated[
        str | None,
        typer.Option(
            "--quiet",
            metavar="HH:MM-HH:MM,...",
            help="Times of the day at which nothing is begun; '' takes them away.",
        ),
    ] = None,
    zone: Annotated[
        str | None,
        typer.Option(
            "--zone", metavar="ZONE", help="By whose clocks, as in Europe/Vienna (at first: UTC)."
        ),
    ] = None,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Whether and how hosts are evened out by whoever watches; with no option, say how it is.

    It is off until it is switched on. Where it is on, and all hosts are well, `vorch serve` does
    from time to time what `vorch balance` does.
    """
    run(
        lambda found: found.ha_balance(
            auto=auto,
            every_s=every,
            least_gain=least_gain,
            moves_max=moves_max,
            memory_max_mib=None if memory_max_gib is None else int(memory_max_gib * 1024),
            quiet=None
            if quiet is None
            else [part.strip() for part in quiet.split(",") if part.strip()],
            zone=zone,
            dry_run=dry_run,
            wait_s=wait,
        ),
        as_json,
    )
