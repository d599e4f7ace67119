"""What the commands that take long have in common on the console: a bar, and what an interruption says."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

__all__ = ["bar", "stoppable", "terminal"]


def terminal(*, folded: bool = True) -> Console:
    """Return the console on which a command tells: text as it is, for rich takes brackets in a path or name for styles.

    Unless `folded`, lines are as long as they are where nobody watches: in a file, or for another program.
    """
    console = Console(markup=False, highlight=False)
    return console if folded or console.is_terminal else Console(markup=False, highlight=False, width=10_000)


def bar(console: Console, *, transient: bool = False) -> Progress:
    """Return a bar that counts; it shows nothing where nobody watches."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=transient)


@contextmanager
def stoppable(console: Console, out: Path, then: str = "goes on from there", *, fresh: bool = False) -> Iterator[None]:
    """Let Ctrl-C, and SIGTERM likewise, end a command whose finished work is kept in `out`: say so; the status is 130.

    `then` is what the same command does the next time; where it is `fresh`, without the flag that drops what is kept.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        then = f"without --fresh {then}" if fresh else then
        console.print(f"Stopped. What is finished is kept in {out}; the same command {then}.", soft_wrap=True)
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)
