"""A noun with verbs of its own, as in `vorch disk attach`."""

from __future__ import annotations

import typer


def noun(app: typer.Typer, name: str, help_text: str) -> typer.Typer:
    """Typed alone, it shows its verbs."""
    group = typer.Typer(name=name, help=help_text, rich_markup_mode=None)

    @group.callback(invoke_without_command=True, help=help_text)
    def show_help(ctx: typer.Context) -> None:
        if ctx.invoked_subcommand is None:
            typer.echo(ctx.get_help())

    app.add_typer(group)
    return group
