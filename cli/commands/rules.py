"""Rules: which VMs are to be together, apart, spread, or on certain hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .. import completion, render, sizes
from ..options import AsJson, DryRun, Wait
from ..session import cluster, run, show_all
from .group import noun

if TYPE_CHECKING:
    from vorch import Rule, RuleStatus

RuleName = Annotated[
    str,
    typer.Argument(metavar="RULE", autocompletion=completion.rules, help="Name of the rule."),
]


def add_to(app: typer.Typer) -> None:
    group = noun(app, "rule", "Which VMs are together, apart, spread evenly, or on certain hosts.")
    group.command("add")(rule_add)
    group.command("list")(rule_list)
    group.command("show")(rule_show)
    group.command("remove")(rule_remove)


def rule_add(
    name: Annotated[str, typer.Argument(metavar="RULE", help="Its new name, such as pair.")],
    vms: Annotated[str, typer.Option("--vms", metavar="VM,...", help="The VMs that it is about.")],
    together: Annotated[bool, typer.Option("--together", help="They are on one host.")] = False,
    apart: Annotated[bool, typer.Option("--apart", help="No two are on one host.")] = False,
    on_nodes: Annotated[
        str,
        typer.Option(
            "--on-nodes",
            metavar="NODE[:N],...",
            help="They are on these hosts; the one with the highest N that can, comes first.",
        ),
    ] = "",
    spread: Annotated[
        str,
        typer.Option(
            "--spread",
            metavar="KEY",
            help="They are spread evenly over the hosts' tags of this key, as in rack (rack:r1).",
        ),
    ] = "",
    over: Annotated[
        str,
        typer.Option(
            "--over", metavar="KEY", help="Together or apart by tags of this key, not by hosts."
        ),
    ] = "",
    max_skew: Annotated[
        int,
        typer.Option(
            "--max-skew", metavar="N", help="How many more of them one may hold than another."
        ),
    ] = 1,
    weight: Annotated[
        float,
        typer.Option("--weight", metavar="N", help="What a wish counts for beside others."),
    ] = 1.0,
    soft: Annotated[
        bool, typer.Option("--soft", help="A wish, which gives way. Else rather off than so.")
    ] = False,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Make a rule.

    VMs that are otherwise now stay where they are, unless they are looked after.
    """
    from vorch import Invalid

    chosen = [
        kind
        for kind, said in (
            ("together", together),
            ("apart", apart),
            ("nodes", bool(on_nodes)),
            ("spread", bool(spread)),
        )
        if said
    ]
    if len(chosen) != 1:
        raise Invalid(
            f"cannot add rule {name!r}: say what it is by one of --together, --apart, --on-nodes"
            " and --spread"
        )
    if spread and over:
        raise Invalid(
            f"cannot add rule {name!r}: --spread says over what it is already; leave --over away"
        )
    run(
        lambda found: found.rule_add(
            name,
            chosen[0],  # type: ignore[arg-type]
            [one for one in (part.strip() for part in vms.split(",")) if one],
            nodes=sizes.node_choices(on_nodes),
            strict=not soft,
            over=spread or over,
            max_skew=max_skew,
            weight=weight,
            dry_run=dry_run,
            wait_s=wait,
        ),
        as_json,
    )


def rule_list(as_json: AsJson = False) -> None:
    """All rules, and what is otherwise now."""
    with cluster(as_json) as found:
        rules = found.rule_list()

    def table() -> None:
        render.table(
            ("NAME", "VMS", "ARE TO BE", "STRICT", "NOW"),
            [
                (
                    one.name,
                    ", ".join(one.rule.vms),
                    _kind(one.rule),
                    render.yes_no(one.rule.strict),
                    _now(one),
                )
                for one in rules
            ],
        )

    show_all(rules, as_json, table, "There is no rule: `vorch rule add` makes one.")


def rule_show(name: RuleName, as_json: AsJson = False) -> None:
    """One rule."""
    with cluster(as_json) as found:
        one = found.rule_show(name)
    if as_json:
        render.print_json(one)
        return
    render.facts(
        [
            ("name", one.name),
            ("VMs", ", ".join(one.rule.vms)),
            ("are to be", _kind(one.rule)),
            ("strict", render.yes_no(one.rule.strict)),
            ("weight", "" if one.rule.strict else f"{one.rule.weight:g}"),
            ("now", _now(one)),
        ]
    )


def _kind(rule: Rule) -> str:
    if rule.kind == "spread":
        return f"spread over {rule.over}, {rule.max_skew} more at most"
    if rule.kind != "nodes":
        return f"{rule.kind} over {rule.over}" if rule.over else rule.kind
    return "on " + ", ".join(
        f"{one.node}:{one.priority}" if one.priority else one.node for one in rule.nodes
    )


def _now(one: RuleStatus) -> str:
    if one.dropped:
        return f"not in force: {one.dropped}"
    return f"broken: {one.broken}" if one.broken else "kept"


def rule_remove(
    name: RuleName, dry_run: DryRun = False, wait: Wait = None, as_json: AsJson = False
) -> None:
    """Forget a rule. Its VMs stay where they are."""
    run(lambda found: found.rule_remove(name, dry_run=dry_run, wait_s=wait), as_json)
