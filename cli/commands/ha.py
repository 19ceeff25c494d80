"""High availability: what is looked after and how, and how far that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .. import render, sizes
from ..options import AsJson, DryRun, VmName, Wait
from ..session import cluster, run, show_all
from .balance import ha_balance
from .group import noun

if TYPE_CHECKING:
    from vorch import HaPolicy, HaStatus, HaVm, HaVmStatus


def add_to(app: typer.Typer) -> None:
    group = noun(app, "ha", "High availability: VMs that are looked after, its policy and state.")
    group.command("set")(ha_set)
    group.command("show")(ha_show)
    group.command("list")(ha_list)
    group.command("remove")(ha_remove)
    group.command("status")(ha_status)
    group.command("policy")(ha_policy)
    group.command("balance")(ha_balance)
    group.command("disarm")(ha_disarm)
    group.command("arm")(ha_arm)


def ha_set(
    name: VmName,
    requested: Annotated[
        str | None,
        typer.Option(
            "--requested",
            metavar="started|stopped|disabled|ignored",
            help="What it is to be (default of a VM that is new here: started).",
        ),
    ] = None,
    nodes: Annotated[
        str | None,
        typer.Option(
            "--nodes",
            metavar="NODE[:N],...",
            help="Hosts that it prefers, the highest N first; '' takes them away.",
        ),
    ] = None,
    restricted: Annotated[
        bool | None,
        typer.Option("--restricted/--no-restricted", help="Whether it is on those only."),
    ] = None,
    failback: Annotated[
        bool | None,
        typer.Option(
            "--failback/--no-failback", help="Whether it goes back to a better host by itself."
        ),
    ] = None,
    max_restart: Annotated[
        int | None,
        typer.Option("--max-restart", metavar="N", help="Further tries on a host after a failure."),
    ] = None,
    max_relocate: Annotated[
        int | None,
        typer.Option("--max-relocate", metavar="N", help="Hosts that are tried after that."),
    ] = None,
    start_order: Annotated[
        int | None,
        typer.Option(
            "--start-order", metavar="N", help="Lower numbers start first; 0: no matter when."
        ),
    ] = None,
    start_delay: Annotated[
        float | None,
        typer.Option(
            "--start-delay",
            metavar="SECONDS",
            parser=sizes.seconds,
            help="How long after it those that come behind it start.",
        ),
    ] = None,
    moves: Annotated[
        str | None,
        typer.Option("--moves", metavar="live|cold", help="How it changes hosts."),
    ] = None,
    stop_timeout: Annotated[
        float | None,
        typer.Option(
            "--stop-timeout",
            metavar="SECONDS",
            parser=sizes.seconds,
            help="How long its guest may take to shut down; 0 cuts its power at once.",
        ),
    ] = None,
    isolation: Annotated[
        str | None,
        typer.Option(
            "--isolation",
            metavar="leave|fence",
            help="What is done while its host answers on the storage network only.",
        ),
    ] = None,
    isolation_after: Annotated[
        float | None,
        typer.Option(
            "--isolation-after",
            metavar="SECONDS",
            parser=sizes.seconds,
            help="With --isolation fence: after how long.",
        ),
    ] = None,
    guest_shutdown: Annotated[
        str | None,
        typer.Option(
            "--guest-shutdown",
            metavar="asked-for|restart",
            help="What it means when its guest powers itself off: it stays off, or not.",
        ),
    ] = None,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Have a VM looked after, or change how.

    What is not given stays as it is. Whoever watches (`vorch serve`) acts on it with the next look.
    """
    run(
        lambda found: found.ha_set(
            name,
            requested=requested,
            nodes=None if nodes is None else sizes.node_choices(nodes),
            restricted=restricted,
            failback=failback,
            max_restart=max_restart,
            max_relocate=max_relocate,
            start_order=start_order,
            start_delay_s=start_delay,
            moves=moves,
            stop_timeout_s=stop_timeout,
            isolation=isolation,
            isolation_after_s=isolation_after,
            guest_shutdown=guest_shutdown,
            dry_run=dry_run,
            wait_s=wait,
        ),
        as_json,
    )


def ha_show(name: VmName, as_json: AsJson = False) -> None:
    """How one VM is looked after, and how far that is."""
    with cluster(as_json) as found:
        one = found.ha_show(name)
        now = found.now()
    if as_json:
        render.print_json(one)
    else:
        render.facts(_facts(one, now))


def _facts(one: HaVmStatus, now: float) -> list[tuple[str, object]]:
    set_ = one.settings
    after = f" after {set_.isolation_after_s:g} s" if set_.isolation == "fence" else ""
    order = f"{set_.start_order}, then {set_.start_delay_s:g} s" if set_.start_order else ""
    return [
        ("VM", one.vm),
        ("host", one.node),
        ("state", one.sentence or "nobody has looked at it yet"),
        ("since", _ago(one.since, now)),
        ("requested", set_.requested.value),
        ("hosts", _hosts(set_)),
        ("now", " before ".join(" or ".join(names) for names in one.classes)),
        ("rules", ", ".join(one.rules)),
        ("together with", ", ".join(one.together)),
        ("apart from", ", ".join(one.apart)),
        ("wanted on", one.target),
        ("failback", render.yes_no(set_.failback)),
        ("tries", f"{set_.max_restart} more per host, on {set_.max_relocate} more host(s)"),
        ("start order", order),
        ("moves", set_.moves),
        ("stop timeout", f"{set_.stop_timeout_s:g} s"),
        ("isolation", f"{set_.isolation}{after}"),
        ("guest shutdown", set_.guest_shutdown),
        *(("note", note) for note in one.notes),
    ]


def _hosts(settings: HaVm) -> str:
    names = ", ".join(
        f"{one.node}:{one.priority}" if one.priority else one.node for one in settings.nodes
    )
    return f"{names} only" if names and settings.restricted else names


def _ago(since: float | None, now: float) -> str:
    return "" if not since else f"{sizes.shown_span(max(0.0, now - since))} ago"


def ha_list(as_json: AsJson = False) -> None:
    """All VMs that are looked after."""
    with cluster(as_json) as found:
        vms = found.ha_list()
        now = found.now()
    show_all(
        vms,
        as_json,
        lambda: _vm_table(vms, now),
        "No VM is looked after: `vorch ha set VM` changes that.",
    )


def _vm_table(vms: tuple[HaVmStatus, ...], now: float) -> None:
    render.table(
        ("VM", "REQUESTED", "HOST", "SINCE", "STATE"),
        [
            (
                one.vm,
                one.settings.requested.value,
                one.node,
                _ago(one.since, now),
                "; ".join(part for part in (one.sentence or "not looked at yet", *one.notes)),
            )
            for one in vms
        ],
    )


def ha_remove(
    name: VmName, dry_run: DryRun = False, wait: Wait = None, as_json: AsJson = False
) -> None:
    """Look after a VM no more. It stays as it is."""
    run(lambda found: found.ha_remove(name, dry_run=dry_run, wait_s=wait), as_json)


# ---------------------------------------------------------------------------------------------
# The whole


def ha_status(as_json: AsJson = False) -> None:
    """Who watches, and what every host and VM is, in a sentence each.

    No host is asked: it is what the one that leads saw last.
    """
    with cluster(as_json) as found:
        status = found.ha_status()
    if as_json:
        render.print_json(status)
        return
    render.facts(_whole(status))
    if status.nodes:
        render.out("")
        render.table(
            ("HOST", "STATE", "SINCE", "WHAT"),
            [
                (
                    one.node,
                    one.state.value if one.state else "",
                    _ago(one.since, status.at),
                    one.sentence.partition(": ")[2] or "not looked at yet",
                )
                for one in status.nodes
            ],
        )
    if status.vms:
        render.out("")
        _vm_table(status.vms, status.at)


def _whole(status: HaStatus) -> list[tuple[str, object]]:
    drill = "never"
    if status.drill is not None:
        wrong = sum(check.level == "error" for check in status.drill.checks)
        came_to = "passed" if status.drill.passed else f"failed ({wrong} of its checks)"
        drill = f"{came_to}, {_ago(status.drill.at, status.at)}"
    leader = f"{status.leader}, with epoch {status.epoch}" if status.watched else "nobody"
    if status.leading_since:
        leader += f", since {_ago(status.leading_since, status.at)}"
    return [
        ("watches", leader),
        ("policy", _policy(status.policy)),
        ("disarmed until", render.moment(status.policy.disarmed_until) if status.disarmed else ""),
        ("fencing drill", drill),
        ("room for losses", _spare_since(status)),
        *((f"rule {name}", f"not in force: {why}") for name, why in status.dropped_rules.items()),
        *(("note", note) for note in status.notes),
    ]


def _policy(policy: HaPolicy) -> str:
    balance = "yes" if policy.balance_on_start else "no"
    return (
        f"shutdown {policy.shutdown}, silent share {policy.silent_share:g}, balance on start"
        f" {balance}, spare {policy.spare}{_spare_for(policy)}"
    )


def _spare_since(status: HaStatus) -> str:
    if status.spare is None:
        return ""
    return f"{status.spare.text}, since {_ago(status.spare.since, status.at)}"


def _spare_for(policy: HaPolicy) -> str:
    lost = [f"{policy.spare_hosts} hosts"] if policy.spare_hosts > 1 else []
    lost += [f"a {policy.spare_over}"] if policy.spare_over else []
    return f" (for the loss of {' or '.join(lost)})" if lost else ""


def ha_policy(
    shutdown: Annotated[
        str | None,
        typer.Option(
            "--shutdown",
            metavar="conditional|freeze|failover|migrate",
            help="What becomes of VMs on a host that goes down in good order.",
        ),
    ] = None,
    silent_share: Annotated[
        float | None,
        typer.Option(
            "--silent-share",
            metavar="SHARE",
            help="When more than this share of the hosts goes silent at once, nobody is fenced.",
        ),
    ] = None,
    balance_on_start: Annotated[
        bool | None,
        typer.Option(
            "--balance-on-start/--no-balance-on-start",
            help="Whether a VM that is to be started is first placed where it fits best.",
        ),
    ] = None,
    spare: Annotated[
        str | None,
        typer.Option(
            "--spare",
            metavar="keep|warn|ignore",
            help="What a person does that leaves VMs without room when a host is lost: it is"
            " refused, said, or not looked at.",
        ),
    ] = None,
    spare_hosts: Annotated[
        int | None,
        typer.Option(
            "--spare-hosts",
            metavar="N",
            min=1,
            max=8,
            help="So many hosts may be lost at once (at first: 1).",
        ),
    ] = None,
    spare_over: Annotated[
        str | None,
        typer.Option(
            "--spare-over",
            metavar="KEY",
            help="And any one failure domain of that key, as in rack; '' takes it away.",
        ),
    ] = None,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Change how the whole cluster is looked after; with no option, say how it is."""
    run(
        lambda found: found.ha_policy(
            shutdown=shutdown,
            silent_share=silent_share,
            balance_on_start=balance_on_start,
            spare=spare,
            spare_hosts=spare_hosts,
            spare_over=spare_over,
            dry_run=dry_run,
            wait_s=wait,
        ),
        as_json,
    )


def ha_disarm(
    for_: Annotated[
        float,
        typer.Option(
            "--for", metavar="TIME", parser=sizes.span, help="For how long, as in 30min or 2h."
        ),
    ],
    as_: Annotated[
        str,
        typer.Option(
            "--as",
            metavar="freeze|ignore",
            help="freeze: nothing is done; ignore: VMs count as not looked after meanwhile.",
        ),
    ] = "freeze",
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Hands off for a while: nothing is fenced and nothing is started."""
    run(
        lambda found: found.ha_disarm(for_, as_=as_, dry_run=dry_run, wait_s=wait),
        as_json,
    )


def ha_arm(dry_run: DryRun = False, wait: Wait = None, as_json: AsJson = False) -> None:
    """Watch again, before the time of `ha disarm` is over."""
    run(lambda found: found.ha_arm(dry_run=dry_run, wait_s=wait), as_json)
