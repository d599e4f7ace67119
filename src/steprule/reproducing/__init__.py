"""The command line's `steprule reproduce ...`: published experiments, run again beside their published figures."""

from __future__ import annotations

from typing import Annotated

import typer

from .book import d2l
from .paper import zeiler2012

__all__ = ["app"]

app = typer.Typer(
    help="Run a published experiment again, and set what is measured beside its figures. Without a name, all are run, "
    "which takes hours; run again, d2l, which takes minutes, begins anew, and zeiler2012 goes on where it was stopped.",
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
)


@app.callback()
def _group(
    context: typer.Context,
    check: Annotated[
        bool, typer.Option("--check", help="Run some of the committed results again, as zeiler2012 --check does.")
    ] = False,
) -> None:
    """Run a published experiment again, and set what is measured beside its figures; all, for hours, unless one is named."""
    if context.invoked_subcommand is not None:
        if check:
            raise ValueError("--check stands after the experiment's name: steprule reproduce zeiler2012 --check")
        return
    if not check:
        d2l()
    zeiler2012(check=check)


app.command()(d2l)
app.command()(zeiler2012)
