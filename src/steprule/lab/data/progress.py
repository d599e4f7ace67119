"""The progress bar of a download, drawn by rich; importing this module imports rich."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn

__all__ = ["Bar", "progress_bar"]


class Bar:
    """What pooch takes for a progress bar: `total` (bytes) and three methods."""

    total = 0

    def __init__(self, progress: Progress, task: TaskID) -> None:
        """Draw `task` of `progress`."""
        self._progress = progress
        self._task = task

    def update(self, count: int) -> None:
        """Count `count` bytes more."""
        # Started no earlier, so that pooch's line about what it downloads stands above the bar and not in it.
        self._progress.start()
        self._progress.advance(self._task, count)

    def reset(self) -> None:
        """Count from 0 again."""
        self._progress.update(self._task, completed=0)

    def close(self) -> None:
        """Nothing: the bar ends with the context that drew it, also when the download fails."""


@contextmanager
def progress_bar(name: str, size: int) -> Iterator[Bar]:
    """Draw the progress of `name`, `size` bytes long, on standard error, or nothing where that is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    progress = Progress(*columns, console=console, disable=not console.is_interactive)
    try:
        yield Bar(progress, progress.add_task(name, total=size))
    finally:
        progress.stop()
