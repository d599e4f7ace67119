"""Progress bars of downloads and of other long work on data, drawn by rich; importing this module imports rich."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, ProgressColumn, TaskID, TextColumn

__all__ = ["Bar", "counted", "progress_bar"]


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
    with _shown(DownloadColumn()) as progress:
        yield Bar(progress, progress.add_task(name, total=size))


@contextmanager
def counted(name: str, total: int) -> Iterator[Callable[[], None]]:
    """Draw the progress of `name` as `progress_bar` does; what is yielded is called for each of `total` pieces of it."""
    with _shown(MofNCompleteColumn()) as progress:
        task = progress.add_task(name, total=total)
        progress.start()
        yield lambda: progress.advance(task)


@contextmanager
def _shown(amount: ProgressColumn) -> Iterator[Progress]:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), amount)
    progress = Progress(*columns, console=console, disable=not console.is_interactive)
    try:
        yield progress
    finally:
        progress.stop()
