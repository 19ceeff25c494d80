"""What would come of something, without doing it."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import completion, render, sizes
from ..options import AsJson
from ..session import cluster
from .group import noun


def add_to(app: typer.Typer) -> None:
    group = noun(app, "whatif", "What would come of a failure, without one.")
    group.command("fail")(whatif_fail)


def whatif_fail(
    nodes: Annotated[
        list[str],
        typer.Argument(
            metavar="NODE...", autocompletion=completion.nodes, help="Hosts that are lost at once."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Which VMs would start where, which would not, and how long that would take.

    Decided by what whoever watches decides with, on what is seen now. Nothing is written.
    """
    with cluster(as_json, recover=False) as found:
        answer = found.whatif_fail(nodes)
    if as_json:
        render.print_json(answer)
        return
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
