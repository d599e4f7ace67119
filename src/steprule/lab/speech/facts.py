"""What an alignment is like, in numbers: durations, likelihoods, and how many words the GMM-HMM recognises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .alignment import ROUNDS, train
from .chains import SILENCE
from .prepared import Prepared

__all__ = ["Duration", "Recognised", "by_speaker", "durations", "recordings_held_out", "speakers_held_out", "trainings"]

_EVERY: Final = 10
"""Of each speaker's recordings of a word, one in so many is held out by `recordings_held_out`."""


@dataclass(frozen=True)
class Duration:
    """How long a word, or a pause, is: its states, how often it occurs, and frames in all and in each state, means.

    `deviation` is that of the whole, between occurrences; `shortest` and `longest` are the states' means.
    """

    unit: str
    states: int
    count: int
    frames: float
    deviation: float
    shortest: float
    longest: float


@dataclass(frozen=True)
class Recognised:
    """How many of so many words were right."""

    name: str
    right: int
    words: int

    @property
    def share(self) -> float:
        """In %."""
        return 100.0 * self.right / self.words


def durations(prepared: Prepared) -> list[Duration]:
    """Return the durations of pauses, where they are taken, and of each word, over all speakers."""
    inventory = prepared.model.inventory
    whole: dict[str, list[int]] = {unit: [] for unit in inventory.sizes}
    in_state: NDArray[np.float64] = np.zeros(len(inventory))
    for number, recording in enumerate(prepared.recordings):
        chain = inventory.chain(recording.words)
        counts = np.bincount(chain.units[prepared.paths[number]], minlength=2 * len(recording.words) + 1)
        for unit, frames in enumerate(counts.tolist()):
            if frames:
                whole[recording.words[unit // 2] if unit % 2 else SILENCE].append(frames)
        in_state += np.bincount(prepared.states(number), minlength=len(inventory))
    states = inventory.states()
    return [
        Duration(
            unit,
            len(states[unit]),
            len(found),
            float(np.mean(found)),
            float(np.std(found)),
            float(in_state[states[unit]].min() / len(found)),
            float(in_state[states[unit]].max() / len(found)),
        )
        for unit, found in whole.items()
        if found
    ]


def _single(prepared: Prepared) -> bool:
    return all(len(each.words) == 1 for each in prepared.recordings)


def trainings(prepared: Prepared) -> int:
    """Return how many models `speakers_held_out` and `recordings_held_out` train together, in alignments."""
    speakers = len({each.speaker for each in prepared.recordings})
    return (speakers + bool(_held_out(prepared))) * sum(ROUNDS) if _single(prepared) else 0


def by_speaker(prepared: Prepared) -> list[Recognised]:
    """Return what the model recognises of each speaker with an utterance; nothing where these have several words."""
    if not _single(prepared):
        return []
    right = _right(prepared, range(len(prepared.recordings)), prepared.model.recognise(prepared.features))
    split = prepared.split
    own = {speaker: prepared.of([speaker]) for speaker in (*split.train, *split.validation, *split.test)}
    return [Recognised(speaker, int(right[each].sum()), len(each)) for speaker, each in own.items() if each]


def speakers_held_out(prepared: Prepared, advance: Callable[[], None] = lambda: None) -> list[Recognised]:
    """Return what is recognised of each speaker by a model of all the others."""
    if not _single(prepared):
        return []
    speakers = sorted({each.speaker for each in prepared.recordings})
    return [_trained_without(prepared, speaker, prepared.of([speaker]), advance) for speaker in speakers]


def recordings_held_out(prepared: Prepared, advance: Callable[[], None] = lambda: None) -> Recognised | None:
    """Return what is recognised of every tenth recording of each word by each speaker, by a model of all the others.

    None where utterances have several words, or no speaker says a word twice.
    """
    held = _held_out(prepared) if _single(prepared) else []
    return _trained_without(prepared, "recordings", held, advance) if held else None


def _held_out(prepared: Prepared) -> list[int]:
    """Return the first of every ten recordings of a word by a speaker who says it more than once."""
    said: dict[tuple[str, ...], list[int]] = {}
    for number, each in enumerate(prepared.recordings):
        said.setdefault((each.speaker, *each.words), []).append(number)
    return sorted(number for numbers in said.values() if len(numbers) > 1 for number in numbers[::_EVERY])


def _trained_without(prepared: Prepared, name: str, held: Sequence[int], advance: Callable[[], None]) -> Recognised:
    out = set(held)
    own = [number for number in range(len(prepared.recordings)) if number not in out]
    features, words = [prepared.features[each] for each in own], [prepared.recordings[each].words for each in own]
    model, _ = train(features, words, advance)
    right = _right(prepared, held, model.recognise([prepared.features[each] for each in held]))
    return Recognised(name, int(right.sum()), len(held))


def _right(prepared: Prepared, numbers: Sequence[int], words: Sequence[str]) -> NDArray[np.bool_]:
    pairs = zip(words, numbers, strict=True)
    return np.array([word == prepared.recordings[number].words[0] for word, number in pairs])
