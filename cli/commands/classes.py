"""Storage classes: pools by what they are good for."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import completion, render
from ..options import AsJson, Description, DryRun, Wait
from ..session import cluster, run, show_all
from .group import noun


def add_to(app: typer.Typer) -> None:
    group = noun(app, "class", "Storage classes: pools by what they are good for.")
    group.command("add")(add)
    group.command("list")(list_classes)
    group.command("remove")(remove)


def add(
    name: Annotated[str, typer.Argument(metavar="CLASS", help="Its new name, such as fast.")],
    pool: Annotated[
        list[str],
        typer.Option(
            "--pool",
            metavar="POOL",
            autocompletion=completion.pools,
            help="A pool of it; repeatable. A new volume goes where most is free.",
        ),
    ],
    default: Annotated[
        bool,
        typer.Option("--default", help="For new, empty disks and imports when nobody names one."),
    ] = False,
    description: Description = None,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Give one or several pools a name to be chosen by (--class)."""
    run(
        lambda found: found.class_add(
            name,
            pool,
            default=default,
            description=description or "",
            dry_run=dry_run,
            wait_s=wait,
        ),
        as_json,
    )


def list_classes(as_json: AsJson = False) -> None:
    """All storage classes."""
    with cluster(as_json) as found:
        classes = found.class_list()

    def table() -> None:
        render.table(
            ("NAME", "POOLS", "DEFAULT", "DESCRIPTION"),
            [
                (one.name, ", ".join(one.pools), "yes" if one.default else "", one.description)
                for one in classes
            ],
        )

    show_all(classes, as_json, table, "There is no class: `vorch class add` makes one.")


def remove(
    name: Annotated[
        str,
        typer.Argument(
            metavar="CLASS", autocompletion=completion.classes, help="Name of the class."
        ),
    ],
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Forget a storage class. What was made by it stays where it is."""
    run(lambda found: found.class_remove(name, dry_run=dry_run, wait_s=wait), as_json)
