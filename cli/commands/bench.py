"""Measure what hosts and pools are good for, by what is really done on them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import completion, render, session, sizes
from ..options import AsJson
from .group import noun

if TYPE_CHECKING:
    from vorch_install_time import Results

Into = Annotated[str, typer.Option("--into", metavar="FOLDER", help="Where the report is written.")]
Unlike = Annotated[
    bool,
    typer.Option(
        "--unlike",
        help="Go on where other things differ than those compared; every result then says so.",
    ),
]


def add_to(app: typer.Typer) -> None:
    group = noun(app, "bench", "Measure what hosts and pools are good for.")
    group.command("install")(install)
    group.command("report")(report)


def install(
    hosts: Annotated[
        list[str],
        typer.Option(
            "--hosts",
            metavar="HOST",
            autocompletion=completion.nodes,
            help="A host to measure on; once for each, or several with commas between.",
        ),
    ],
    pool: Annotated[
        list[str],
        typer.Option(
            "--pool",
            metavar="POOL[=one|two]",
            help="A pool to install into; for Ceph with the number of networks that management and"
            " storage have (default: by the host's recorded addresses).",
        ),
    ],
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            metavar="debootstrap|installer|import|clone",
            help="What to measure; may be repeated (default: debootstrap).",
        ),
    ] = None,
    runs: Annotated[
        int, typer.Option("--runs", metavar="N", min=1, max=1000, help="Runs of each case.")
    ] = 3,
    packages: Annotated[
        str,
        typer.Option(
            "--set",
            metavar="minbase|short",
            help="What debootstrap installs: a small Debian, or so little that it takes seconds.",
        ),
    ] = "minbase",
    xen_kind: Annotated[
        str, typer.Option("--xen-kind", metavar="pv|pvh", help="What guests are on Xen hosts.")
    ] = "pv",
    vcpus: Annotated[int, typer.Option("--vcpus", metavar="N", min=1, help="Of each VM.")] = 1,
    memory: Annotated[
        int,
        typer.Option(
            "--memory", metavar="SIZE", parser=sizes.memory_mib, help="Of each VM, as in 2G."
        ),
    ] = 1024,
    disk: Annotated[
        int,
        typer.Option(
            "--disk", metavar="SIZE", parser=sizes.disk_gib, help="Of each VM, as in 10G."
        ),
    ] = 4,
    network: Annotated[
        str, typer.Option("--network", metavar="NETWORK", help="The network of the VMs.")
    ] = "default",
    mirror: Annotated[
        str,
        typer.Option(
            "--mirror",
            metavar="URL",
            help="Debian's archive, as the VMs reach it: http://…/debian.",
        ),
    ] = "",
    serve: Annotated[
        str,
        typer.Option(
            "--serve",
            metavar="ADDRESS[:PORT]",
            help="Serve this machine's own archive there, to VMs that reach nothing else.",
        ),
    ] = "",
    suite: Annotated[
        str, typer.Option("--suite", metavar="NAME", help="The release, with --mirror.")
    ] = "bookworm",
    installer: Annotated[
        str | None,
        typer.Option(
            "--installer",
            metavar="FOLDER",
            help="Debian's installer for that release: linux and initrd.gz of a network boot"
            " (default: bookworm's, of this machine's archive).",
        ),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option("--image", metavar="FILE", help="The disk image that is imported and cloned."),
    ] = None,
    arguments: Annotated[
        str,
        typer.Option(
            "--arguments", metavar="TEXT", help="More for the command line of installers' kernels."
        ),
    ] = "",
    way_in: Annotated[
        str,
        typer.Option(
            "--way-in",
            metavar="COMMAND",
            help="What runs a command on a host, as in 'ssh root@{host}': for facts and figures"
            " that libvirt does not tell.",
        ),
    ] = "",
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout", metavar="SECONDS", parser=sizes.seconds, help="The longest one run takes."
        ),
    ] = 7200.0,
    unlike: Unlike = False,
    note: Annotated[
        str, typer.Option("--note", metavar="TEXT", help="A sentence for the report.")
    ] = "",
    into: Into = "bench-install",
    as_json: AsJson = False,
) -> None:
    """Install the same system over and over, on each host and in each pool, and compare the times.

    Each case is run once, and then each again, so that what changes with time falls on all of them.
    Every VM is deleted when it has started once. Nothing is compared that is not alike.
    """
    from vorch import Invalid
    from vorch_install_time import Benchmark, Request, can_plot, write_report

    labels: dict[str, str] = {}
    for one in pool:
        name, _, label = one.partition("=")
        if name in labels:
            raise Invalid(f"cannot measure in pool {name!r} twice; name it once")
        labels[name] = label
    request = Request(
        hosts=tuple(host for one in hosts for host in one.split(",") if host),
        pools=labels,
        methods=tuple(method or ("debootstrap",)),
        runs=runs,
        packages=packages,
        xen_kind=xen_kind,
        vcpus=vcpus,
        memory_mib=memory,
        disk_gib=disk,
        network=network,
        mirror=mirror,
        serve=serve,
        suite=suite,
        installer=None if installer is None else Path(installer),
        image=None if image is None else Path(image),
        arguments=arguments,
        way_in=way_in,
        timeout_s=timeout,
        unlike=unlike,
        note=note,
        consoles=Path(into) / "consoles",
    )
    say = _say()
    with session.cluster(True) as found:
        results = Benchmark(found, request, say).run()
    files = write_report([results], Path(into), unlike=unlike)
    if not can_plot():
        say("without plots: matplotlib is missing (pip install 'vorch[plots]')")
    _show([results], files, as_json)


def report(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE", help="A report.json of `vorch bench install`.")
    ],
    unlike: Unlike = False,
    into: Into = "bench-install",
    as_json: AsJson = False,
) -> None:
    """Make one report of several: of two hosts that were measured apart, or of two set-ups."""
    from vorch_install_time import read, write_report

    results = [one for file in files for one in read(Path(file))]
    made = write_report(results, Path(into), unlike=unlike)
    _show(results, made, as_json)


def _say() -> Callable[[str], None]:
    """Lines on stderr, each with the seconds since the command began."""
    began = time.monotonic()

    def say(text: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - began:6.1f} s] {render.clean(text)}\n")
        sys.stderr.flush()

    return say


def _show(results: list[Results], files: list[Path], as_json: bool) -> None:
    if as_json:
        render.print_json(tuple(results))
        return
    runs = [run for one in results for run in one.runs]
    counted = sum(not run.spoilt for run in runs)
    render.out(f"{counted} of {len(runs)} runs count. The report:")
    for file in files:
        render.out(f"  {render.clean(file)}")
    if not counted:
        raise typer.Exit(1)
