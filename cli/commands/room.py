"""Room: what the cluster could lose and take, and what that is judged from, as a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import render
from ..files import write_text
from ..options import AsJson
from ..session import cluster
from .simulate_room import Out, as_text, read, timed

if TYPE_CHECKING:
    from vorch import Capacity

InFile = Annotated[
    str | None,
    typer.Option(
        "--file",
        metavar="FILE",
        help="Not of the living cluster, but of one in a file: what `vorch dump` wrote, or"
        " vorch-placement/1; also gzipped.",
    ),
]
SizeVcpus = Annotated[
    int | None, typer.Option("--vcpus", metavar="N", min=1, help="vCPUs of each new VM.")
]
SizeMemory = Annotated[
    int | None,
    typer.Option("--memory-mib", metavar="N", min=1, help="Memory of each new VM, in MiB."),
]
RequireTag = Annotated[
    list[str] | None,
    typer.Option(
        "--require-tag", metavar="TAG", help="Only on hosts that have it. Can be repeated."
    ),
]
# Names of one line of the answer.
SHOWN = 8


def add_to(app: typer.Typer) -> None:
    app.command()(capacity)
    app.command()(dump)
    app.command("import-htools")(import_htools)


def capacity(
    vcpus: SizeVcpus = None,
    memory_mib: SizeMemory = None,
    require_tag: RequireTag = None,
    over: Annotated[
        str | None,
        typer.Option(
            "--over", metavar="KEY", help="Also for each failure domain of that key, as in rack."
        ),
    ] = None,
    hosts_lost: Annotated[
        int | None,
        typer.Option(
            "--hosts-lost", metavar="N", min=1, help="Hosts that die at once (default: 1)."
        ),
    ] = None,
    file: InFile = None,
    as_json: AsJson = False,
) -> None:
    """Whether any host may die, which is the worst to lose, and how many more VMs fit.

    Only VMs that are looked after (`vorch ha set`) need room elsewhere when their host dies; in a
    placement file all are, unless it says otherwise.
    """
    took = None
    if file is None:
        with cluster(as_json, recover=False) as found:
            answer = found.capacity(
                vcpus=vcpus,
                memory_mib=memory_mib,
                require_tags=require_tag or (),
                over=over,
                hosts_lost=hosts_lost,
            )
    else:
        from vorch import simulate

        fleet = read(file)
        decide = simulate.capacity
        answer, took = timed(
            lambda: decide(
                fleet,
                vcpus=vcpus,
                memory_mib=memory_mib,
                require_tags=require_tag or (),
                over=over,
                hosts_lost=hosts_lost,
            )
        )
    if as_json:
        told = render.plain_data(answer)
        render.out(as_text(told if took is None else {**told, "engine_s": took}))
        return
    _tell(answer)


def dump(out: Out = None, as_json: AsJson = False) -> None:
    """All that a decision is made from, as one JSON document: to be kept, mailed, and run again.

    Hosts, VMs, settings, rules and what was seen of them; nothing secret and no text that people
    wrote. `vorch whatif`, `vorch capacity` and `vorch simulate` read it.
    """
    # It is JSON in any case; the option is there because all that prints has it.
    with cluster(True, recover=False) as found:
        document = found.dump().document()
    text = as_text(document) + "\n"
    if out is None:
        render.out(text, end="")
        return
    write_text(out, text)
    if as_json:
        render.print_json({"file": out, "at": document["at"]})
    elif out != "-":
        render.out(render.clean(f"the cluster as of {render.moment(document['at'])} is in {out}"))


def import_htools(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A cluster as Ganeti's `hbal -t` reads it.")
    ],
    util: Annotated[
        str | None,
        typer.Option("--util", metavar="FILE", help="Loads of its VMs, as `hbal -U` reads them."),
    ] = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Turn a cluster of Ganeti's htools into a file of the format vorch-placement/1."""
    from vorch import simulate

    path = Path(file)
    fleet = simulate.read_htools(path, None if util is None else Path(util))
    text = as_text(simulate.document_of(fleet, path.name.partition(".")[0])) + "\n"
    if out is None:
        render.out(text, end="")
        return
    write_text(out, text)
    if as_json:
        render.print_json({"file": out, "hosts": len(fleet.hosts), "vms": len(fleet.guests)})
    elif out != "-":
        render.out(
            render.clean(f"{len(fleet.hosts)} hosts and {len(fleet.guests)} VMs are in {out}")
        )


def few(names: tuple[str, ...] | list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def used(what: float, of: float, unit: str) -> str:
    share = f" ({100 * what / of:.0f} %)" if of else ""
    return f"{what:.0f} of {of:.0f} {unit}".rstrip() + share


def _tell(answer: Capacity) -> None:
    lost = "any one host" if answer.hosts_lost == 1 else f"any {answer.hosts_lost} hosts"
    worst, growth = answer.worst, answer.growth
    bad = [few(one.hosts) for one in answer.losses]
    facts: list[tuple[str, object]] = [
        (f"{lost} may die", answer.verdict.value),
        ("since", "" if answer.since is None else render.moment(answer.since)),
        ("not survived", "; ".join(bad[:SHOWN]) + ("" if len(bad) <= SHOWN else "; …")),
    ]
    if worst is not None:
        told = few(worst.hosts)
        if worst.left_out:
            told += f": {len(worst.left_out)} would be left out: {few(worst.left_out)}"
        elif worst.refuges:
            told += f": all {len(worst.refuges)} of its VMs find room"
        else:
            told += ": no VM there is looked after"
        facts += [("worst to lose", told), ("why", worst.why)]
    facts += [
        ("memory", used(answer.memory_used_mib, answer.memory_mib, "MiB")),
        ("vCPUs", used(answer.vcpus_used, answer.vcpus, "")),
    ]
    if growth is not None:
        least = "at least " if growth.more else ""
        size = f"{growth.guest.vcpus} vCPUs and {growth.guest.memory_mib} MiB"
        facts += [
            (f"more VMs of {size}", f"{growth.fit} into what is free"),
            ("of which", f"{least}{growth.with_spare} with the spare room for losses kept"),
        ]
    render.facts(facts)
    if answer.domains:
        render.out("")
        render.table(
            ("DOMAIN", "MAY DIE", "LEFT OUT", "WHY"),
            [
                (name, one.verdict.value, few(one.left_out), one.why)
                for name, one in answer.domains.items()
            ],
        )
