"""What the shell offers when TAB is pressed: names out of the store, quickly, or nothing at all.

No host is asked, nothing is recovered, and a cluster that is not there yet is not made.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from vorch import Orchestrator


def vms(ctx: typer.Context) -> list[str]:
    return _names(ctx, lambda cluster: cluster.look().vms)


def images(ctx: typer.Context) -> list[str]:
    return _names(ctx, lambda cluster: cluster.look().images)


def networks(ctx: typer.Context) -> list[str]:
    return _names(ctx, lambda cluster: cluster.look().networks)


def nodes(ctx: typer.Context) -> list[str]:
    return _names(ctx, lambda cluster: cluster.look().nodes)


def nodes_and_domains(ctx: typer.Context) -> list[str]:
    def read(cluster: Orchestrator) -> set[str]:
        nodes = cluster.look().nodes
        return {*nodes, *(tag for one in nodes.values() for tag in one.all_tags if ":" in tag)}

    return _names(ctx, read)


def classes(ctx: typer.Context) -> list[str]:
    return _names(ctx, lambda cluster: cluster.look().classes)


def pools(ctx: typer.Context) -> list[str]:
    return _names(ctx, lambda cluster: cluster.look().pools)


def rules(ctx: typer.Context) -> list[str]:
    return _names(ctx, lambda cluster: (one.name for one in cluster.rule_list(seen=False)))


def trash(ctx: typer.Context) -> list[str]:
    return _names(ctx, lambda cluster: (one.name for one in cluster.trash_list() if one.vm))


def trash_keys(ctx: typer.Context) -> list[str]:
    return _names(ctx, lambda cluster: (one.key for one in cluster.trash_list()))


def _names(ctx: typer.Context, read: _Read) -> list[str]:
    try:
        from vorch import connect, load_settings, state_path

        settings = load_settings(ctx.find_root().params.get("uri"))
        if settings.uri.startswith("sqlite:") and not state_path(settings.uri).exists():
            return []
        with connect(settings=settings, recover=False, prepare=False) as cluster:
            return sorted(read(cluster))
    except Exception:  # noqa: BLE001 - whatever is wrong, somebody is in the middle of typing
        return []


if TYPE_CHECKING:
    from collections.abc import Callable

    _Read = Callable[[Orchestrator], Iterable[str]]
