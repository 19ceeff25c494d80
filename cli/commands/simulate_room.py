"""Place, balance and empty hosts of a cluster that is a file: what would be done, and why."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from .. import render, sizes
from ..files import write_text
from ..options import AsJson

if TYPE_CHECKING:
    from vorch.simulate import Answer, BalancePlan, Emptying, Fleet, Move, Placed

T = TypeVar("T")
# Each is as long as the list of hosts, so of a large batch the first ones have to do.
EXPLAINED = 20

FleetFile = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="A cluster of the format vorch-placement/1, or what `vorch dump` wrote; also gzipped.",
    ),
]
PerHost = Annotated[
    int | None,
    typer.Option(
        "--per-host",
        metavar="N",
        min=1,
        help="Moves at a time that a host takes part in (default: as a dump has it set, else 1).",
    ),
]
Out = Annotated[
    str | None, typer.Option("--out", "-o", metavar="OUT", help="A file to write it into.")
]


class Metric(StrEnum):
    VORCH = "vorch"
    NORM = "norm"
    HTOOLS = "htools"


def add_to(group: typer.Typer) -> None:
    group.command("place")(simulate_place)
    group.command("balance")(simulate_balance)
    group.command("evacuate")(simulate_evacuate)


def read(file: str, *, to_balance: bool = False) -> Fleet:
    """The cluster in a file."""
    return read_with(file, None, to_balance=to_balance)[0]


def read_with(file: str, per_host: int | None, *, to_balance: bool = False) -> tuple[Fleet, int]:
    """The same, and how many moves a host takes part in at a time."""
    from vorch import simulate

    # Ten thousand values that all stay need not be searched for garbage again and again.
    gc.disable()
    try:
        found = simulate.read_input(file)
        fleet = simulate.fleet_in(found, file, to_balance=to_balance)
    finally:
        gc.freeze()
        gc.enable()
    if per_host is None and not isinstance(found, simulate.Fleet):
        per_host = found.settings.migrations_per_host
    return fleet, max(1, per_host or 1)


def timed(decide: Callable[[], T]) -> tuple[T, float]:
    """What was decided, and the CPU seconds that it took."""
    began = time.process_time()
    answer = decide()
    return answer, round(time.process_time() - began, 4)


def simulate_place(
    file: FleetFile,
    vcpus: Annotated[
        int | None, typer.Option("--vcpus", metavar="N", min=1, help="vCPUs of each new VM.")
    ] = None,
    memory_mib: Annotated[
        int | None,
        typer.Option("--memory-mib", metavar="N", min=1, help="Memory of each new VM, in MiB."),
    ] = None,
    count: Annotated[
        int, typer.Option("--count", metavar="N", min=1, help="How many new VMs.")
    ] = 1,
    require_tag: Annotated[
        list[str] | None,
        typer.Option(
            "--require-tag", metavar="TAG", help="Only on hosts that have it. Can be repeated."
        ),
    ] = None,
    spare: Annotated[
        str | None,
        typer.Option(
            "--spare",
            metavar="keep|warn|ignore",
            help="Whether what would leave no room for the loss of a host is refused, placed with a"
            " warning, or not looked at (default: as the file says, else keep).",
        ),
    ] = None,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Of each host, why not, or the parts of its score; for the first 20 VMs.",
        ),
    ] = False,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Hosts for new VMs of one size, as one decision; without a size for all that are nowhere yet.

    Scores are better the lower they are. --out writes the cluster with the VMs where they went.
    """
    from vorch import Invalid, simulate

    fleet = simulate.with_spare(read(file), spare)
    if (vcpus is None) != (memory_mib is None):
        raise Invalid("cannot place VMs of half a size; give both --vcpus and --memory-mib")
    names: Sequence[str] | None = None
    if vcpus is not None and memory_mib is not None:
        fleet, names = simulate.newcomers(
            fleet, count=count, vcpus=vcpus, memory_mib=memory_mib, tags=require_tag or ()
        )
    elif count != 1 or require_tag:
        raise Invalid("cannot tell the size of those VMs; give --vcpus and --memory-mib")
    decide = simulate.place
    answer, took = timed(lambda: decide(fleet, names))
    explained = answer.placed[:EXPLAINED] if explain else ()
    if out is not None:
        placed = simulate.placed_fleet(fleet, answer)
        write_text(out, as_text(simulate.document_of(placed)) + "\n")
    if as_json:
        told: dict[str, Any] = {
            "assignment": answer.hosts,
            "placed": [render.plain_data(one) for one in answer.placed],
            "left": list(answer.left),
            "notes": list(answer.notes),
            "engine_s": took,
        }
        if explain:
            told["hosts"] = {
                one.guest: render.plain_data(answer.explain(one.guest)) for one in explained
            }
        render.out(as_text(told))
        return
    _tell_placed(answer, explained)


def simulate_balance(
    file: FleetFile,
    moves_max: Annotated[
        int | None, typer.Option("--moves-max", metavar="N", min=0, help="No more moves than that.")
    ] = None,
    memory_max_gib: Annotated[
        int | None,
        typer.Option(
            "--memory-max-gib", metavar="N", min=0, help="No more memory to be copied than that."
        ),
    ] = None,
    time_max: Annotated[
        float | None,
        typer.Option(
            "--time-max-s",
            metavar="SECONDS",
            parser=sizes.seconds,
            help="No longer than that, as far as times can be told.",
        ),
    ] = None,
    per_host: PerHost = None,
    metric: Annotated[
        Metric,
        typer.Option(
            "--metric",
            metavar="vorch|norm|htools",
            help="Whose idea of an even load: vorch's own, spreads of shares alone, or that of"
            " Ganeti's htools.",
        ),
    ] = Metric.VORCH,
    spare: Annotated[
        str | None,
        typer.Option(
            "--spare",
            metavar="keep|warn|ignore",
            help="Whether a host that may be lost now may be so afterwards in any case (default: as"
            " the file says, else keep; with another --metric than vorch: ignore).",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Which VMs should be elsewhere, in which order, and what each move is good for."""
    from vorch import simulate

    fleet, at_a_time = read_with(file, per_host, to_balance=True)
    # The others are judged by referees that know nothing of it.
    fleet = simulate.with_spare(fleet, spare or (None if metric is Metric.VORCH else "ignore"))
    limits = simulate.Limits(
        moves=moves_max,
        memory_mib=None if memory_max_gib is None else memory_max_gib * 1024,
        seconds=time_max,
        per_host=at_a_time,
    )
    decide = simulate.balance
    plan, took = timed(lambda: decide(fleet, limits, metric=metric.value))
    # Quickly: what packing leaves open is not proven here.
    then = simulate.placed_at(fleet, {move.guest: move.target for move in plan.moves})
    may_die = [simulate.standing(one, prove=False).verdict.value for one in (fleet, then)]
    if as_json:
        render.out(
            as_text(
                {
                    **moves_told(plan),
                    "before": render.plain_data(plan.before),
                    "after": render.plain_data(plan.after),
                    "any_host_may_die": {"before": may_die[0], "after": may_die[1]},
                    "notes": list(plan.notes),
                    "engine_s": took,
                }
            )
        )
        return
    render.out(render.clean(plan.why))
    show_moves(plan.rounds)
    render.out("")
    _show_pictures(plan, may_die)


def simulate_evacuate(
    file: FleetFile,
    node: Annotated[
        list[str] | None,
        typer.Option("--node", metavar="NODE", help="A host to empty. Can be repeated."),
    ] = None,
    domain: Annotated[
        list[str] | None,
        typer.Option(
            "--domain",
            metavar="KEY:NAME",
            help="All hosts of a failure domain, as in rack:r01. Can be repeated.",
        ),
    ] = None,
    per_host: PerHost = None,
    as_json: AsJson = False,
) -> None:
    """Where the VMs of hosts go that are to be empty, and who makes way for them.

    Where some have to stay, it says whether that is certain and what is short.
    """
    from vorch import simulate

    fleet, at_a_time = read_with(file, per_host)
    names = simulate.hosts_in(fleet, node or (), domain or ())
    decide = simulate.evacuate
    plan, took = timed(lambda: decide(fleet, names, per_host=at_a_time))
    if as_json:
        render.out(
            as_text(
                {
                    **moves_told(plan),
                    "hosts": names,
                    "complete": plan.complete,
                    "proven": plan.proven,
                    "making_way": list(plan.making_way),
                    "left": [list(one) for one in plan.left],
                    "engine_s": took,
                }
            )
        )
        return
    show_emptying(plan)


# ---------------------------------------------------------------------------------------------
# What is printed


def as_text(value: object) -> str:
    import json

    return json.dumps(value, ensure_ascii=False, indent=2)


def moves_told(plan: BalancePlan | Emptying) -> dict[str, Any]:
    """`moves` as the referee of placements reads them, and each of them in full."""
    return {
        "moves": [[move.guest, move.source, move.target] for move in plan.moves],
        "rounds": len(plan.rounds),
        "memory_mib": plan.memory_mib,
        "seconds": round(plan.seconds, 1),
        "why": plan.why,
        "steps": [
            {"round": number, **render.plain_data(move)}
            for number, moves in enumerate(plan.rounds, 1)
            for move in moves
        ],
    }


def show_moves(rounds: Sequence[Sequence[Move]]) -> None:
    if not rounds:
        return
    render.out("")
    render.table(
        ("ROUND", "VM", "FROM", "TO", "MIB", "ABOUT", "WHY"),
        [
            (
                number,
                move.guest,
                move.source,
                move.target,
                move.memory_mib,
                sizes.shown_span(move.seconds),
                move.why,
            )
            for number, moves in enumerate(rounds, 1)
            for move in moves
        ],
        right=("ROUND", "MIB", "ABOUT"),
    )


def show_emptying(plan: Emptying) -> None:
    told = plan.why
    if plan.moves:
        told += (
            f"; {len(plan.moves)} moves in {len(plan.rounds)} rounds, about"
            f" {sizes.shown_span(plan.seconds)} and {plan.memory_mib} MiB of memory"
        )
    render.out(render.clean(told))
    show_moves(plan.rounds)
    if plan.left:
        certain = "no other way exists" if plan.proven else "whether there is a way is not proven"
        render.out(f"\nThese would stay; {certain}:")
        render.table(("VM", "WHY"), plan.left)


def _show_pictures(plan: BalancePlan, spare: Sequence[str]) -> None:
    was, now = plan.before, plan.after
    rows = [
        ("figure", f"{was.figure:.4f}", f"{now.figure:.4f}"),
        ("broken rules", str(was.broken), str(now.broken)),
        ("overfull hosts", str(was.overfull), str(now.overfull)),
        ("any host may die", *spare),
    ]
    for words, before, after in (
        ("spread of", was.spreads, now.spreads),
        ("highest", was.highest, now.highest),
    ):
        rows += [
            (f"{words} {what}", _percent(one), _percent(other))
            for (what, one), (_, other) in zip(before, after, strict=True)
        ]
    render.table(("", "BEFORE", "AFTER"), rows, right=("BEFORE", "AFTER"))


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _tell_placed(answer: Answer, explained: Sequence[Placed]) -> None:
    render.table(
        ("VM", "HOST", "SCORE", "WHY"),
        [
            (
                one.guest,
                one.host,
                f"{one.score:.6f}" if one.host else "",
                "; ".join(word for word in (one.why, one.warning) if word),
            )
            for one in answer.placed
        ],
        right=("SCORE",),
    )
    for note in answer.notes:
        render.out(render.clean(f"note: {note}"))
    for one in explained:
        render.out(render.clean(f"\nThe hosts when it was the turn of {one.guest}:"))
        render.table(
            ("HOST", "SCORE", "MADE OF, OR WHY NOT"),
            [
                (
                    verdict.host,
                    "" if verdict.refused else f"{verdict.score:.6f}",
                    verdict.refused
                    or ", ".join(f"{what} {part:.6f}" for what, part in verdict.parts.items()),
                )
                for verdict in answer.explain(one.guest)
            ],
            right=("SCORE",),
        )
