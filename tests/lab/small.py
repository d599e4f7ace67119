"""Problems of a user's, in a file as a user writes one: a line through 60 points, and what can go wrong with one.

The file is loaded by its path, in the tests' process and in workers. `$SMALL_NOTES` names a file to which each trial that
starts adds a line; `$SMALL_BROKEN` a file whose presence makes trials fail, `$SMALL_FREE` one that lets them go on; where
`$SMALL_TALKS` is set, loading prints.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from steprule.lab import Metric, Problem
from torch import Tensor, nn

__all__ = ["EPOCHS", "STEPS", "named"]

EPOCHS = 3
STEPS = 7  # of an epoch: six batches of 8 and one of 2
ENDLESS = 600.0

if os.environ.get("SMALL_TALKS"):
    print("a user's file may print when it is loaded")


def named(function: Callable[[], Any]) -> str:
    """Return the name by which `steprule compare` finds a function of this file."""
    return f"{Path(__file__)}:{function.__name__}"


def _line(seed: int) -> nn.Module:
    _note(seed)
    torch.manual_seed(seed)
    return nn.Linear(3, 1)


def _note(seed: int) -> None:
    if os.environ.get("SMALL_NOTES"):
        with Path(os.environ["SMALL_NOTES"]).open("a", encoding="utf-8") as notes:
            notes.write(f"{seed}\n")


def line() -> Problem:
    """A line through 60 points: 50 to train, 4 to choose by, 6 to test."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(60, 3, generator=generator)
    targets = inputs @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.1 * torch.randn(60, 1, generator=generator)
    return Problem(
        name="line",
        description="a line through 60 points",
        model=_line,
        train=(inputs[:50], targets[:50]),
        validation=(inputs[50:54], targets[50:54]),
        test=(inputs[54:], targets[54:]),
        loss=nn.functional.mse_loss,
        metric=Metric("squared error"),
        measure=lambda outputs, targets: nn.functional.mse_loss(outputs, targets).item(),
        batch_size=8,
        epochs=EPOCHS,
    )


def broadcast() -> Problem:
    """Have targets without the outputs' second dimension, of which PyTorch warns."""
    whole = line()
    (inputs, targets), (test_inputs, test_targets) = whole.train, whole.test
    return replace(
        whole, train=(inputs, targets[:, 0]), test=(test_inputs, test_targets), measure=lambda outputs, targets: 0.0
    )


class _Acting(nn.Module):
    """A line that acts before each pass over a batch; `act` is given the seed and how many training passes there were."""

    def __init__(self, seed: int, act: Callable[[int, int], None]) -> None:
        super().__init__()
        self.line, self.seed, self.act, self.passes = _line(seed), seed, act, 0

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            self.act(self.seed, self.passes)
            self.passes += 1
        return self.line(inputs)


def _acting(act: Callable[[int, int], None]) -> Problem:
    return replace(line(), model=lambda seed: _Acting(seed, act))


def slow() -> Problem:
    """Take about 20 ms for each epoch."""
    return _acting(lambda seed, passes: time.sleep(0.003))


def held() -> Problem:
    """Stay in the second epoch of each trial until there is a file `$SMALL_FREE`, then take about 20 ms for each epoch."""

    def act(seed: int, passes: int) -> None:
        while passes == STEPS and not Path(os.environ["SMALL_FREE"]).exists():
            time.sleep(0.01)
        time.sleep(0.003)

    return _acting(act)


def endless() -> Problem:
    """Take minutes for the second batch of each trial."""
    return _acting(lambda seed, passes: time.sleep(ENDLESS * (passes == 1)))


def killed() -> Problem:
    """Kill the process in the second epoch of seed 1."""
    return _acting(lambda seed, passes: os.kill(os.getpid(), signal.SIGKILL) if (seed, passes) == (1, STEPS) else None)


def killed_in_mid_message() -> Problem:
    """Kill the process in the second epoch of seed 1, as the system might while it writes what it has measured."""

    def act(seed: int, passes: int) -> None:
        if (seed, passes) != (1, STEPS):
            return
        frame: Any = sys._getframe()
        while "protocol" not in frame.f_locals:
            frame = frame.f_back
        frame.f_locals["protocol"].write('{"epoch": {"numb')
        frame.f_locals["protocol"].flush()
        os.kill(os.getpid(), signal.SIGKILL)

    return _acting(act)


def _forking(then: Callable[[], object]) -> Problem:
    """Fork a process that stays, and note it in the file `$SMALL_CHILD`; `then` act in the second epoch."""

    def act(seed: int, passes: int) -> None:
        if passes == 0:
            child = os.fork()
            if child == 0:
                time.sleep(ENDLESS)
                os._exit(0)
            Path(os.environ["SMALL_CHILD"]).write_text(f"{child}\n")
        if passes == STEPS:
            then()

    return _acting(act)


def forking() -> Problem:
    return _forking(lambda: None)


def forking_then_killed() -> Problem:
    return _forking(lambda: os.kill(os.getpid(), signal.SIGKILL))


def forking_then_endless() -> Problem:
    return _forking(lambda: time.sleep(ENDLESS))


def leaving() -> Problem:
    """Exit in the second epoch of seed 1."""
    return _acting(lambda seed, passes: sys.exit(7) if (seed, passes) == (1, STEPS) else None)


def failing() -> Problem:
    """Raise in the second epoch of seed 1."""

    def act(seed: int, passes: int) -> None:
        if (seed, passes) == (1, STEPS):
            raise LookupError("there is no second epoch")

    return _acting(act)


def always_failing() -> Problem:
    """Raise in every step."""

    def act(seed: int, passes: int) -> None:
        raise LookupError("there is no step")

    return _acting(act)


def talking_then_killed() -> Problem:
    """Write to stderr in seed 0, and kill the process without a word in seed 1."""

    def act(seed: int, passes: int) -> None:
        if (seed, passes) == (0, 0):
            print("seed 0 is odd", file=sys.stderr, flush=True)
        if (seed, passes) == (1, STEPS):
            os.kill(os.getpid(), signal.SIGKILL)

    return _acting(act)


class _Own(nn.Module):
    """A layer that nobody but its author knows."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs @ self.weight


def own_layer() -> Problem:
    return replace(line(), model=lambda seed: nn.Sequential(_Own()))


class _Branching(nn.Module):
    """A line with a second one beside it in every other pass, and a third that nothing uses."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.line, self.passes = _line(seed), 0
        self.other, self.unused = nn.Linear(3, 1), nn.Linear(3, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        self.passes += self.training
        return self.line(inputs) + (self.other(inputs) if self.passes % 2 else 0)


def branching() -> Problem:
    """A model some of whose parameters have no gradient in some passes."""
    return replace(line(), model=_Branching)


def normed() -> Problem:
    """A model that keeps averages beside its parameters."""
    return replace(line(), name="normed", model=lambda seed: nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1)))


def of_the_seed() -> Problem:
    """A model that differs from seed to seed in what is no parameter."""
    return replace(line(), model=lambda seed: nn.Sequential(nn.Linear(3, 1), nn.LeakyReLU(0.1 + 0.2 * seed)))


class _Padded(nn.Module):
    """A line of the mean of a few words, of which word 0 is none."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.line = nn.Embedding(9, 3, padding_idx=0), nn.Linear(3, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.line(self.words((2 * inputs).long().clamp(0, 8)).mean(1))


def padded() -> Problem:
    return replace(line(), model=lambda seed: _Padded())


class _Centred(nn.Module):
    """A line that keeps the mean of what it has seen, in a new buffer each time."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(3, 1)
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * inputs.mean(0)
        return self.line(inputs - self.mean)


def centred() -> Problem:
    return replace(line(), model=lambda seed: _Centred())


def transforming() -> Problem:
    """A model that PyTorch computes by another function where it is set to evaluation."""
    layer = nn.TransformerEncoderLayer
    return replace(
        line(),
        model=lambda seed: nn.Sequential(
            nn.Linear(3, 4),
            nn.Unflatten(1, (1, 4)),
            layer(4, 2, 8, dropout=0.0, batch_first=True),
            nn.Flatten(),
            nn.Linear(4, 1),
        ),
    )


def repairable() -> Problem:
    """Fail while there is a file `$SMALL_BROKEN`."""

    def act(seed: int, passes: int) -> None:
        if Path(os.environ["SMALL_BROKEN"]).exists():
            raise LookupError("something is broken")

    return _acting(act)


def printing() -> Problem:
    """Print wherever a user's code runs, with and without a line's end."""
    print("making")

    def model(seed: int) -> nn.Module:
        print("a model", end="")
        print('{"epoch": 1}')
        return _Acting(seed, lambda seed, passes: print("a pass", flush=True))

    return replace(line(), model=model)


def printing_beside_python() -> Problem:
    """Print as a C library or a child process does."""
    subprocess.run([sys.executable, "-c", "print('a child', flush=True)"], check=True)
    return line()


def asking() -> Problem:
    """Read from the standard input."""
    sys.stdin.readline()
    return line()


def threads() -> Problem:
    """Measure in how many threads PyTorch computes, and Numba would, the most of them."""

    import numba  # not above: the others' workers have no use for it, and start sooner

    def most(outputs: Tensor, targets: Tensor) -> float:
        return float(max(torch.get_num_threads(), torch.get_num_interop_threads(), numba.config.NUMBA_NUM_THREADS))

    return replace(line(), measure=most)


def unmakeable() -> Problem:
    raise LookupError("there are no data here")


def unmakeable_with_a_word() -> Problem:
    print("looking for the data")
    return unmakeable()


def unmakeable_elsewhere() -> Problem:
    """What only the process that keeps the results can make."""
    if os.environ.get("STEPRULE_WORKER"):
        raise LookupError("there are no data here")
    return line()


def unmakeable_and_dead() -> Problem:
    if os.environ.get("STEPRULE_WORKER"):
        os.kill(os.getpid(), signal.SIGKILL)
    return line()


def no_problem() -> int:
    return 3


no_function = 3
