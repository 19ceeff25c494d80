"""Where the cluster's own documents live: moving them from one store to another."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import render, sizes
from ..options import AsJson, DryRun, Wait, Yes
from ..session import ask, cluster, show_done
from .group import noun

Store = Annotated[str, typer.Argument(metavar="URI", help="Where the state is, as in --uri.")]


def add_to(app: typer.Typer) -> None:
    group = noun(app, "state", "Where the cluster's own documents live.")
    group.command("copy")(state_copy)
    group.command("reopen")(state_reopen)
    group.command("rebuild")(state_rebuild)


def state_copy(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="URI of the old store.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="URI of the new store.")],
    force: Annotated[
        bool, typer.Option("--force", help="Delete first what is in the new store.")
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Move the cluster's documents to another store, such as from a file into Ceph.

    Checked by reading back. The old store keeps everything but is marked as left, so that nobody
    goes on with it by mistake. Stop `vorch serve` first. Copying back with --force undoes it.
    """
    from vorch import copy_state

    if force and not yes:
        ask(f"All that is in {target} will be deleted.", f"copy over {target!r}")
    copied = copy_state(source, target, force=force)
    if as_json:
        render.print_json(copied)
        return
    kinds = ", ".join(f"{count} {kind}" for kind, count in copied.kinds.items())
    render.facts(
        [
            ("state", copied.target),
            ("documents", f"{copied.documents} ({kinds})"),
            ("size", sizes.shown_bytes(copied.size_bytes)),
            ("next", f'set uri = "{copied.target}" in vorch.toml, or VORCH_URI, on every host'),
        ]
    )


def state_reopen(uri: Store, yes: Yes = False, as_json: AsJson = False) -> None:
    """Go on with a store that was left, as it was then.

    What happened in the new store since is not in it: use it when that one is lost.
    """
    from vorch import reopen_state

    if not yes:
        ask(f"What has happened since {uri} was left is not in it.", f"reopen {uri!r}")
    reopen_state(uri)
    if as_json:
        render.print_json({"uri": uri})
    else:
        render.out(render.clean(f"{uri} can be used again"))


def state_rebuild(
    pool: Annotated[str, typer.Argument(metavar="POOL", help="Name or URL of a pool in Ceph.")],
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Bring back the VMs, images and networks that a pool tells of and the state lacks.

    For a state that was lost: take the hosts (`vorch node add`) and the pool (`vorch pool add`) in
    first. What the state has is left as it is. A VM that runs is recognised and goes on.
    """
    with cluster(as_json) as found:
        rebuilt = found.state_rebuild(pool, dry_run=dry_run, wait_s=wait)
    if as_json:
        render.print_json(rebuilt)
        return
    show_done(rebuilt, as_json)
    for note in rebuilt.notes:
        render.out(render.clean(f"  {note}"))
    if rebuilt.unknown:
        render.out("Nothing tells of these volumes; they are left alone:")
        for name in rebuilt.unknown:
            render.out(render.clean(f"  {name}"))
