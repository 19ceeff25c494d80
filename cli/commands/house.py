"""The whole: init, serve, doctor, version."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from .. import render, session
from ..options import AsJson
from .hosts import node_facts

if TYPE_CHECKING:
    from vorch import Check, Orchestrator
    from vorch_api import Service


def add_to(app: typer.Typer) -> None:
    for command in (init, serve, doctor, version):
        app.command()(command)


def init(as_json: AsJson = False) -> None:
    """Make this machine a cluster of one.

    Its libvirt, a folder for disks, and a network. Safe to repeat.
    """
    with session.cluster(as_json) as found:
        # Connecting has made what was not there; what an earlier one could not make is tried anew.
        _complete(found)
        for node in found.node_list():
            found.node_probe(node.name)
        nodes, pools, networks = found.node_list(), found.pool_list(), found.network_list()
        uri = found.settings.uri
    if as_json:
        render.print_json(
            {
                "uri": uri,
                "nodes": [one.node for one in nodes],
                "pools": [pool for pool, _ in pools],
                "networks": networks,
            }
        )
        return
    lines: list[tuple[str, object]] = [("state", uri)]
    lines += [("pool", f"{pool.name} at {pool.url}") for pool, _ in pools]
    lines += [("network", f"{one.name} ({one.kind}) {one.subnet or ''}") for one in networks]
    for node in nodes:
        lines += [
            ("host", node.name),
            *(fact for fact in node_facts(node) if fact[0] in ("URI", "accelerator")),
        ]
    render.facts(lines)


def _complete(found: Orchestrator) -> None:
    from vorch import Unsupported

    nodes, pools = found.node_list(), found.pool_list()
    if not nodes or not pools:
        return
    node, (pool, _) = nodes[0], pools[0]
    try:
        found.init(node=node.name, hypervisor_uri=node.uri, pool_url=pool.url)
    except Unsupported as exc:
        # It is a cluster without networks of its own, too: an unprivileged session can have none.
        sys.stderr.write(f"vorch: {render.clean(exc.message)}\n")


def doctor(
    fencing: Annotated[
        bool,
        typer.Option(
            "--fencing",
            help="Try out instead whether hosts can be fenced: a client of vorch's own is cut off"
            " from a throw-away volume. No host and no VM notices.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """What is missing here, and why a VM would not run.

    Ends with exit code 1 if something is wrong.
    """
    checks = _checks(as_json, fencing)
    if as_json:
        render.print_json(checks)
    else:
        render.table(
            ("LEVEL", "WHAT", "FOUND", "DO"),
            [(one.level, one.name, one.detail, one.remedy) for one in checks],
        )
    if any(one.level == "error" for one in checks):
        raise typer.Exit(1)


def _checks(as_json: bool, fencing: bool) -> tuple[Check, ...]:
    from vorch import Check, VorchError

    try:
        with session.cluster(as_json, recover=False) as found:
            return found.doctor(fencing=fencing)
    except VorchError as exc:
        # A cluster that cannot even be opened is a finding, too.
        return (Check(name="cluster", level="error", detail=exc.message),)


def serve(
    host: Annotated[
        str | None,
        typer.Option(
            "--host", metavar="ADDRESS", help="Where to listen (default: listen_host, 127.0.0.1)."
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            metavar="N",
            min=0,
            max=65535,
            help="Port (default: listen_port, 8420); 0 takes one that is free.",
        ),
    ] = None,
    no_watch: Annotated[
        bool, typer.Option("--no-watch", help="Only answer requests; fence and restart nothing.")
    ] = False,
    watch_only: Annotated[
        bool,
        typer.Option("--watch-only", help="Only watch, and answer no requests: another leader."),
    ] = False,
) -> None:
    """Serve the cluster over HTTP, and watch over its VMs, until Ctrl-C.

    Where the state is in Ceph, hosts are looked at all the time: one that is lost is fenced, and
    its VMs start elsewhere. Run it on several machines; one of them leads.
    """
    import logging

    from vorch import Invalid, Unsupported, load_settings, why_no_watch
    from vorch_api import Metrics, Service, TaskLog, Vigil, log_to_stderr

    if no_watch and watch_only:
        raise Invalid("cannot serve with --no-watch and --watch-only: nothing is left; leave one")
    log_to_stderr(load_settings(session.current.uri).log_format)
    log = logging.getLogger("vorch.watch").info
    counted = Metrics()
    session.current.watch, session.current.observe = TaskLog(), counted.observe_state
    with session.cluster() as found:
        lack = why_no_watch(found)
        if watch_only:
            if lack:
                raise Unsupported(
                    f"cannot watch over {found.settings.uri!r}: {lack}; keep the state in Ceph"
                    " (rados://POOL)"
                )
            Vigil(found, log).run()
            return
        watches = not (no_watch or lack)
        service = Service(
            found, host=host, port=port, watch=log if watches else None, counted=counted
        )
        if lack and not no_watch:
            log(f"no VM is watched over here: {lack}")
        service.run(lambda: _say_where(service))


def _say_where(service: Service) -> None:
    """For people, once it really listens."""
    # Inside a virtual environment that is not active, the bare name would not be found.
    vorch = "vorch" if shutil.which("vorch") else sys.argv[0]
    address, token, tls = service.address, service.token, service.tls
    trusting, known_by = "", ""
    if tls is not None and tls.own:
        trusting = f"--cacert {tls.certificate} "
        known_by = f"Its own certificate: {tls.certificate}\n  SHA-256 {tls.fingerprint}\n"
    render.out(
        f"vorch serves on {address} (Ctrl-C ends it).\n"
        f"{known_by}"
        f"Token: {token}\n"
        f"  curl {trusting}-H 'Authorization: Bearer {token}' {address}/v1/vms\n"
        "Try next, in another terminal:\n"
        f"  {vorch} doctor\n"
        f"  {vorch} image import debian FILE-OR-URL\n"
        f"  {vorch} create web --image debian"
    )


def version(as_json: AsJson = False) -> None:
    """The version of vorch."""
    from vorch import __version__

    if as_json:
        render.print_json({"version": __version__})
    else:
        render.out(__version__)
