"""A comparison's progress in the terminal: how far, how long still, what runs, the best so far."""

from __future__ import annotations

import time
from itertools import islice

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from .numerals import plural
from .problem import Problem
from .results import Epoch, Metric, Outcome, Trial
from .summary import is_finished, worse_by

__all__ = ["Display"]

# Where nobody watches, a line now and then.
_SECONDS_BETWEEN_LINES = 10.0

# Of a batch on a device hundreds run, and a terminal cuts off what stands below its last line.
_RUNNING_SHOWN = 16


class Display:
    """Shows a comparison that runs, as a `steprule.lab.comparison.Progress`; use it in a `with` statement.

    In a terminal it redraws itself; elsewhere it prints a line every 10 seconds.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = TaskID(0)
        self._live: Live | None = None
        self._metric = Metric("")
        self._epochs = 0
        self._running: dict[Trial, Epoch | None] = {}
        self._best: tuple[float, Trial] | None = None
        self._best_of = ""
        self._began = self._printed = 0.0

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._live is not None:
            self._live.update(self._drawn())
            self._live.stop()
            self._live = None

    def begin(self, problem: Problem, trials: int, epochs: int, kept: int, jobs: int) -> None:
        # One comparison may follow another, on another problem.
        self._stop()
        self._running, self._best = {}, None
        self._best_of = " of those that were left" if kept else ""
        for task in self._bar.task_ids:
            self._bar.remove_task(task)
        self._metric, self._epochs = problem.metric, epochs
        self._began = self._printed = time.monotonic()
        processes = plural(jobs, "process", "processes")
        text = f"{problem.name}: {plural(trials, 'trial')} of {plural(epochs, 'epoch')} in {processes}"
        if kept:
            text += f"; {kept} {'is' if kept == 1 else 'are'} finished already"
        self._console.print(text, markup=False, highlight=False)
        if trials == 0:
            return
        self._task = self._bar.add_task("epochs", total=trials * epochs)
        if self._console.is_terminal:
            self._live = Live(self._drawn(), console=self._console, refresh_per_second=8)
            self._live.start()

    def started(self, trial: Trial) -> None:
        lost = self._running.get(trial)
        if lost is not None:
            # It starts again, since its machine was lost.
            self._bar.advance(self._task, -lost.number)
        self._running[trial] = None
        self._show()

    def measured(self, trial: Trial, epoch: Epoch) -> None:
        self._running[trial] = epoch
        self._bar.advance(self._task)
        self._show()

    def ended(self, outcome: Outcome) -> None:
        self._running.pop(outcome.trial, None)
        # The epochs that a diverged or failed trial leaves out are not to come any more.
        self._bar.advance(self._task, self._epochs - len(outcome.epochs))
        if outcome.status == "failed":
            self._console.print(
                f"failed: {outcome.trial.setting}, seed {outcome.trial.seed}: {outcome.cause}", markup=False
            )
        if is_finished(outcome):
            self._note(outcome)
        self._show()

    def _note(self, outcome: Outcome) -> None:
        last = outcome.epochs[-1]
        score = last.test if last.validation is None else last.validation
        if self._best is None or worse_by(self._metric, score, self._best[0]) < 0:
            self._best = (score, outcome.trial)

    def _drawn(self) -> Group:
        lines = [
            Text(
                f"  {trial.setting}, seed {trial.seed}: {f'epoch {epoch.number}' if epoch else 'starting'}",
                no_wrap=True,
            )
            for trial, epoch in islice(self._running.items(), _RUNNING_SHOWN)
        ]
        if len(self._running) > _RUNNING_SHOWN:
            lines.append(Text(f"  and {len(self._running) - _RUNNING_SHOWN} more"))
        if self._best is not None:
            score, trial = self._best
            best = f"  best so far{self._best_of}: {score:.4g}{self._metric.unit} by {trial.setting}"
            lines.append(Text(best, no_wrap=True))
        return Group(self._bar, *lines)

    def _show(self) -> None:
        if self._live is not None:
            self._live.update(self._drawn())
            return
        now, (task,) = time.monotonic(), self._bar.tasks
        if now - self._printed >= _SECONDS_BETWEEN_LINES and task.completed:
            self._printed = now
            left = (now - self._began) / task.completed * (task.remaining or 0)
            text = f"{task.completed:.0f} of {task.total:.0f} epochs, about {left:.0f} s left"
            self._console.print(text, highlight=False)
