"""The states that an utterance may go through, from left to right, and the best path through them (Viterbi)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["SILENCE", "Chain", "Inventory", "Path", "viterbi"]

SILENCE = "<silence>"

_SILENCE_STATES = 3
_STATES_PER_LETTER = 2
_LEAST_STATES = 3
# Of a pause, which may be left out before, between and after words: neither is preferred.
_PAUSE = float(np.log(0.5))
_NOWHERE = -np.inf


@dataclass(frozen=True)
class Inventory:
    """The states of silence and of each word; a word has two for each of its letters and three at least.

    Numbers of states count from 0, those of silence first, then the words in their order.
    """

    words: tuple[str, ...]

    @property
    def sizes(self) -> Mapping[str, int]:
        """How many states silence and each word have, in order."""
        letters = {word: sum(map(str.isalnum, word)) for word in self.words}
        return {SILENCE: _SILENCE_STATES} | {
            word: max(_LEAST_STATES, _STATES_PER_LETTER * count) for word, count in letters.items()
        }

    def states(self) -> Mapping[str, range]:
        """Return the numbers of the states of silence and of each word."""
        found, first = {}, 0
        for unit, size in self.sizes.items():
            found[unit] = range(first, first + size)
            first += size
        return found

    def __len__(self) -> int:
        return sum(self.sizes.values())

    def chain(self, words: Sequence[str]) -> Chain:
        """Return the chain of an utterance: its words, with a pause before, between and after them that may be left out."""
        states = self.states()
        chain: list[int] = []
        skips: dict[int, int] = {}
        units: list[int] = []
        for number, unit in enumerate([SILENCE, *(each for word in words for each in (word, SILENCE))]):
            if unit != SILENCE:
                # From the end of the word before, or from the start, which is place -1.
                skips[len(chain)] = len(chain) - _SILENCE_STATES - 1
            chain += states[unit]
            units += [number] * len(states[unit])
        return Chain(np.array(chain), np.array(units), skips)


@dataclass(frozen=True)
class Chain:
    """The states in the order in which an utterance may visit them, each at a place.

    `units` has for each place the number of the word or pause that it belongs to, even numbers for pauses. `skips` has for
    the first place of each word the place before the pause that is left out.
    """

    states: NDArray[np.int64]
    units: NDArray[np.int64]
    skips: Mapping[int, int]

    @property
    def least_frames(self) -> int:
        """How many frames the shortest path takes: one for each state of the words."""
        return int((self.units % 2 == 1).sum())


@dataclass(frozen=True)
class Path:
    """The best path of an utterance: the place in its chain at each frame, and the logarithm of its probability."""

    places: NDArray[np.int64]
    score: float


def viterbi(
    emissions: Sequence[NDArray[np.float64]], chains: Sequence[Chain], stay: NDArray[np.float64]
) -> Iterator[Path]:
    """Yield the best path through each utterance's chain.

    `emissions` are log-densities, (frames, places); `stay` (S,) is the probability that a state is followed by itself. The
    utterances are searched side by side, so that the loop over frames is one for all of them. Raises `ValueError` where an
    utterance has fewer frames than its words have states.
    """
    for each, chain in zip(emissions, chains, strict=True):
        if len(each) < chain.least_frames:
            raise ValueError(
                f"an utterance has {len(each)} frames; allowed are at least {chain.least_frames}, one a state"
            )
    lengths = np.array([len(each) for each in emissions])
    places = max(len(chain.states) for chain in chains)
    padded = np.full((lengths.max(), len(chains), places), _NOWHERE)
    for number, each in enumerate(emissions):
        padded[: len(each), number, : each.shape[1]] = each
    leave, remain, pause, skip = _moves(chains, places, stay)
    score = padded[0] + _starts(chains, places)
    came = np.zeros(padded.shape, np.int8)
    finals = score + leave
    rows = np.arange(len(chains))[:, None]
    for frame in range(1, len(padded)):
        leaving = np.concatenate([score + leave, np.full((len(chains), 1), _NOWHERE)], axis=1)
        moved = np.concatenate([leaving[:, -1:], leaving[:, : places - 1]], axis=1) + pause
        ways = np.stack([score + remain, moved, leaving[rows, skip] + _PAUSE])
        came[frame] = ways.argmax(axis=0)
        score = ways.max(axis=0) + padded[frame]
        finals = np.where((lengths == frame + 1)[:, None], score + leave, finals)
    for number, chain in enumerate(chains):
        yield _traced(came[: lengths[number], number], finals[number], skip[number], chain)


def _moves(
    chains: Sequence[Chain], places: int, stay: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Log-probabilities of leaving and of remaining at each place, of entering it from the left, and where skips start."""
    leave, remain, pause = (np.full((len(chains), places), _NOWHERE) for _ in range(3))
    skip = np.full((len(chains), places), places)  # the place behind the last, where no path is
    for number, chain in enumerate(chains):
        count = len(chain.states)
        leave[number, :count] = np.log1p(-stay[chain.states])
        remain[number, :count] = np.log(stay[chain.states])
        pause[number, :count] = 0.0
        first_of_pauses = (chain.units[1:] != chain.units[:-1]) & (chain.units[1:] % 2 == 0)
        pause[number, 1:count][first_of_pauses] = _PAUSE
        for target, origin in chain.skips.items():
            if origin >= 0:
                skip[number, target] = origin
    return leave, remain, pause, skip


def _starts(chains: Sequence[Chain], places: int) -> NDArray[np.float64]:
    starts = np.full((len(chains), places), _NOWHERE)
    for number, chain in enumerate(chains):
        starts[number, 0] = _PAUSE
        starts[number, min(chain.skips)] = _PAUSE
    return starts


def _traced(came: NDArray[np.int8], final: NDArray[np.float64], skip: NDArray[np.int64], chain: Chain) -> Path:
    last, before_pause = len(chain.states) - 1, len(chain.states) - _SILENCE_STATES - 1
    ends = {last: final[last], before_pause: final[before_pause] + _PAUSE}
    place = max(ends, key=lambda each: ends[each])
    places = np.empty(len(came), np.int64)
    for frame in range(len(came) - 1, -1, -1):
        places[frame] = place
        place = (place, place - 1, int(skip[place]))[came[frame, place]]
    return Path(places, float(max(ends.values())))
