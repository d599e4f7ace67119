"""The state of each frame of speech, as in Zeiler 2012, 4.4, on a public corpus."""

from __future__ import annotations

from functools import cache, partial
from itertools import pairwise
from pathlib import Path

from torch.nn.functional import cross_entropy

import torch
from torch import Tensor, nn

from ..problem import Data, Problem
from ..results import Metric
from ..speech.corpus import folder, fsdd
from ..speech.features import BANDS
from ..speech.prepared import Prepared, prepare
from ..speech.stacking import STACKED, Stack, padded

__all__ = ["corpus_data", "speech", "speech_full", "speech_full_logistic", "speech_logistic"]

LAYERS = 4
FULL = 2560
"""Units of each hidden layer of the paper's net."""
SMALL = 256
LOGISTIC_GAIN = 4.0
"""A logistic unit's slope at 0 is a quarter of that of tanh, for which the distribution is made (Glorot & Bengio 2010)."""


def speech(corpus: str | None = None) -> Problem:
    """Return the problem with 4 hidden layers of 256 rectified linear units; see `speech_full`."""
    return _problem(corpus, SMALL, nn.ReLU)


def speech_logistic(corpus: str | None = None) -> Problem:
    """Return the problem with 4 hidden layers of 256 logistic units; see `speech_full`."""
    return _problem(corpus, SMALL, nn.Sigmoid)


def speech_full(corpus: str | None = None) -> Problem:
    """Return the problem with the paper's 4 hidden layers of 2560, rectified linear units.

    Inputs are 26 frames of 40 log-energies; targets are the states of the frames' forced alignment. `corpus` is a folder of
    wav files and transcripts (`steprule.lab.speech.corpus.folder`), or None for the Free Spoken Digit Dataset. A rule's best
    setting is chosen on speakers that are not trained on; the test is on others still.

    Raises `steprule.lab.data.DataError` where the corpus cannot be had or is not sound.
    """
    return _problem(corpus, FULL, nn.ReLU)


def speech_full_logistic(corpus: str | None = None) -> Problem:
    """Return the problem with the paper's 4 hidden layers of 2560, logistic units; see `speech_full`."""
    return _problem(corpus, FULL, nn.Sigmoid)


@cache
def corpus_data(corpus: str | None = None) -> Prepared:
    """Return the corpus with features and alignment, made once in a process."""
    return prepare(fsdd() if corpus is None else folder(Path(corpus)))


def _problem(corpus: str | None, units: int, hidden: type[nn.Module]) -> Problem:
    data = corpus_data(corpus)
    rows, firsts = padded(data.energies)
    outputs = len(data.model.inventory)

    def part(speakers: tuple[str, ...]) -> Data:
        numbers = data.of(speakers)
        targets = torch.cat([torch.from_numpy(data.states(number)) for number in numbers])
        return torch.cat([firsts[number] for number in numbers]), targets

    kind, ending = ("rectified linear", "") if hidden is nn.ReLU else ("logistic", "_logistic")
    return Problem(
        name=f"speech{'_full' if units == FULL else ''}{ending}",
        description=f"{data.title}: the state of each frame, one of {outputs}, by forced alignment, from {STACKED} frames "
        f"of {BANDS} log-energies (Zeiler 2012, 4.4); a net of {STACKED * BANDS}-{f'{units}-' * LAYERS}{outputs} units, the "
        f"hidden ones {kind}, cross-entropy, mini-batches of 100; test on speakers that are not trained on",
        model=partial(_net, rows, units, outputs, hidden),
        train=part(data.split.train),
        validation=part(data.split.validation),
        test=part(data.split.test),
        loss=cross_entropy,
        metric=Metric("frame accuracy", "%", lower_is_better=False),
        measure=frame_accuracy,
        batch_size=100,
        epochs=10,
    )


def frame_accuracy(outputs: Tensor, targets: Tensor) -> float:
    """Return the share of frames, in %, whose largest output is that of the target state."""
    return 100.0 * (outputs.argmax(dim=1) == targets).to(torch.float64).mean().item()


def _net(rows: Tensor, units: int, outputs: int, hidden: type[nn.Module], seed: int) -> nn.Module:
    """Weights are from Glorot and Bengio's uniform distribution, with the gain of the units; biases are 0."""
    torch.manual_seed(seed)
    gain = nn.init.calculate_gain("relu") if hidden is nn.ReLU else LOGISTIC_GAIN
    linear = [nn.Linear(*sizes) for sizes in pairwise([STACKED * BANDS, *[units] * LAYERS, outputs])]
    for layer in linear:
        nn.init.xavier_uniform_(layer.weight, 1.0 if layer is linear[-1] else gain)
        nn.init.zeros_(layer.bias)
    between = [part for layer in linear[:-1] for part in (layer, hidden())]
    return nn.Sequential(Stack(rows), *between, linear[-1])
