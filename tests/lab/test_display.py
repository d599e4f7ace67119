"""A comparison's progress in words."""

from __future__ import annotations

from rich.console import Console
from tests.lab import small

from steprule.lab.display import Display
from steprule.lab.results import Epoch, Outcome, Setting, Trial


def test_the_epochs_of_a_trial_that_starts_again_count_once() -> None:
    trial = Trial(Setting("sgd", {"lr": 0.1}), 0)
    epochs = tuple(Epoch(number, 1.0, 1.0, None, 0.1) for number in (1, 2, 3))
    display = Display(Console(quiet=True))
    with display:
        display.begin(small.line(), 1, 3, 0, 1)
        display.started(trial)
        for epoch in epochs[:2]:
            display.measured(trial, epoch)
        display.started(trial)
        for epoch in epochs:
            display.measured(trial, epoch)
        display.ended(Outcome(trial, "finished", epochs))
    (task,) = display._bar.tasks
    assert (task.completed, task.total) == (3, 3)
