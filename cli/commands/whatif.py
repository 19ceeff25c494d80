"""What would come of something, without doing it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .. import completion, render, sizes
from ..options import AsJson
from ..session import cluster
from .group import noun
from .room import InFile, RequireTag, few, used
from .simulate_room import as_text, read, show_moves

if TYPE_CHECKING:
    from vorch import WhatIf
    from vorch.simulate import Change, Standing


def add_to(app: typer.Typer) -> None:
    group = noun(app, "whatif", "What would come of a failure or of a change, without one.")
    group.command("fail")(whatif_fail)
    group.command("add-host")(whatif_add_host)
    group.command("remove-host")(whatif_remove_host)
    group.command("add-vms")(whatif_add_vms)


def whatif_fail(
    nodes: Annotated[
        list[str],
        typer.Argument(
            metavar="NODE...", autocompletion=completion.nodes, help="Hosts that are lost at once."
        ),
    ],
    file: InFile = None,
    as_json: AsJson = False,
) -> None:
    """Which VMs would start where, which would not, and how long that would take.

    Decided by what whoever watches decides with, on what is seen now. Nothing is written. A
    placement file knows nothing of high availability: there it says who finds room where.
    """
    if file is None:
        with cluster(as_json, recover=False) as found:
            answer = found.whatif_fail(nodes)
    else:
        from vorch import simulate

        known = simulate.read_input(file)
        if isinstance(known, simulate.Fleet):
            _told(simulate.lose_hosts(known, nodes), as_json)
            return
        answer = simulate.whatif_fail(known, nodes)
    if as_json:
        render.print_json(answer)
        return
    _tell_failure(answer)


def whatif_add_host(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it would be called.")],
    cpus: Annotated[int, typer.Option("--cpus", metavar="N", min=1, help="Its processors.")],
    memory_mib: Annotated[
        int, typer.Option("--memory-mib", metavar="N", min=1, help="All of its memory, in MiB.")
    ],
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="TAG", help="A tag of it, as in rack:r01. Can be repeated."),
    ] = None,
    file: InFile = None,
    as_json: AsJson = False,
) -> None:
    """What one more host would do: what would move onto it, and what may be lost then."""
    if file is None:
        with cluster(as_json, recover=False) as found:
            answer = found.whatif_add_host(name, cpus=cpus, memory_mib=memory_mib, tags=tag or ())
    else:
        from vorch import simulate

        fleet = read(file, to_balance=True)
        answer = simulate.add_host(fleet, name, cpus=cpus, memory_mib=memory_mib, tags=tag or ())
    _told(answer, as_json)


def whatif_remove_host(
    nodes: Annotated[
        list[str],
        typer.Argument(
            metavar="NODE...", autocompletion=completion.nodes, help="Hosts that are taken away."
        ),
    ],
    file: InFile = None,
    as_json: AsJson = False,
) -> None:
    """Where the VMs of these hosts would go, and what may still be lost without them."""
    if file is None:
        with cluster(as_json, recover=False) as found:
            answer = found.whatif_remove_host(nodes)
    else:
        from vorch import simulate

        answer = simulate.remove_hosts(read(file), nodes)
    _told(answer, as_json)


def whatif_add_vms(
    vcpus: Annotated[
        int, typer.Option("--vcpus", metavar="N", min=1, help="vCPUs of each new VM.")
    ],
    memory_mib: Annotated[
        int,
        typer.Option("--memory-mib", metavar="N", min=1, help="Memory of each new VM, in MiB."),
    ],
    count: Annotated[
        int, typer.Option("--count", metavar="N", min=1, help="How many new VMs.")
    ] = 1,
    require_tag: RequireTag = None,
    file: InFile = None,
    as_json: AsJson = False,
) -> None:
    """Where new VMs of one size would be, and what may still be lost with them."""
    if file is None:
        with cluster(as_json, recover=False) as found:
            answer = found.whatif_add_vms(
                count=count, vcpus=vcpus, memory_mib=memory_mib, require_tags=require_tag or ()
            )
    else:
        from vorch import simulate

        answer = simulate.add_guests(
            read(file), count=count, vcpus=vcpus, memory_mib=memory_mib, tags=require_tag or ()
        )
    _told(answer, as_json)


# ---------------------------------------------------------------------------------------------
# What is printed


def _tell_failure(answer: WhatIf) -> None:
    timing, after_s = answer.timing, answer.all_run_after_s
    render.facts(
        [
            *((f"host {name}", said) for name, said in answer.sentences.items()),
            ("all run after", "" if after_s is None else f"about {sizes.shown_span(after_s)}"),
            *(("of which", part) for part in timing.made_of),
            *(("note", note) for note in answer.notes),
        ]
    )
    if answer.restarts:
        render.out("")
        render.table(
            ("VM", "FROM", "TO", "ASKED FOR AFTER", "WHY"),
            [
                (one.vm, one.source, one.target, sizes.shown_span(one.requested_at_s), one.why)
                for one in answer.restarts
            ],
            right=("ASKED FOR AFTER",),
        )
    if answer.left:
        render.out("\nThese would stay off:")
        render.table(("VM", "ON", "WHY"), [(one.vm, one.node, one.why) for one in answer.left])
    for vm, node in answer.moved.items():
        render.out(render.clean(f"VM {vm} would move to {node}"))


def _told(change: Change, as_json: bool) -> None:
    if as_json:
        render.out(
            as_text(
                {
                    "what": change.what,
                    "before": render.plain_data(change.before),
                    "after": render.plain_data(change.after),
                    "placed": dict(change.placed),
                    "left": [list(one) for one in change.left],
                    "moves": [[move.guest, move.source, move.target] for move in change.moves],
                    "rounds": [[move.guest for move in moves] for moves in change.rounds],
                    "memory_mib": change.memory_mib,
                    "seconds": round(change.seconds, 1),
                    "notes": list(change.notes),
                }
            )
        )
        return
    before, after = change.before, change.after
    moved = (
        f"{len(change.moves)} in {len(change.rounds)} rounds, about"
        f" {sizes.shown_span(change.seconds)} and {change.memory_mib} MiB of memory"
        if change.moves
        else ""
    )
    render.facts(
        [
            ("imagined", change.what),
            ("moves", moved),
            ("any one host may die", f"now: {_lost(before)}\nthen: {_lost(after)}"),
            ("memory", f"now: {_memory(before)}\nthen: {_memory(after)}"),
            *(("note", note) for note in change.notes),
        ]
    )
    show_moves(change.rounds)
    if change.placed:
        render.out("\nThese would start:")
        render.table(("VM", "ON"), sorted(change.placed.items()))
    if change.left:
        render.out("\nThese would find no host:")
        render.table(("VM", "WHY"), change.left)


def _lost(standing: Standing) -> str:
    bad = standing.not_spare
    return standing.verdict.value + (f", for {few(bad)}" if bad else "")


def _memory(standing: Standing) -> str:
    return used(standing.memory_used_mib, standing.memory_mib, "MiB")
