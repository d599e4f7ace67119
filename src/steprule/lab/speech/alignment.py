"""A GMM-HMM trained from a flat start, the forced alignment that it makes, and the word recogniser that it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .chains import Chain, Inventory, Path, viterbi
from .mixtures import Mixtures

__all__ = ["COMPONENTS", "ROUNDS", "Iteration", "Model", "train"]

COMPONENTS = (1, 2, 4, 8)
"""The sizes of the mixtures, one after another."""
ROUNDS = (12, 4, 4, 4)
"""How often frames are aligned and mixtures fitted to them, at each size."""

# Steps of EM after each alignment; the halves of a component that was split need some to part.
_EM_STEPS = 2
_EM_STEPS_AFTER_SPLIT = 6
_STAY = (0.05, 0.95)
# What the arrays of the utterances that are searched side by side may hold together.
_CELLS = 500_000

Features = NDArray[np.float32]
Words = Sequence[str]


@dataclass(frozen=True)
class Iteration:
    """One alignment: how large the mixtures were, and the log-likelihood of the best paths, per frame."""

    components: int
    log_likelihood: float


@dataclass(frozen=True)
class Model:
    """An HMM from left to right: its states, their mixtures, and for each the probability that it follows itself, (S,)."""

    inventory: Inventory
    mixtures: Mixtures
    stay: NDArray[np.float64]

    def align(self, features: Sequence[Features], words: Sequence[Words]) -> list[Path]:
        """Return the best path of each utterance through its words; features are (frames, dimensions).

        Raises `ValueError` where an utterance has fewer frames than its words have states.
        """
        chains = [self.inventory.chain(each) for each in words]
        paths: dict[int, Path] = {}
        for batch in _batches([len(each) for each in features], chains):
            used = np.unique(np.concatenate([chains[each].states for each in batch]))
            table = self.mixtures.log_likelihoods(np.concatenate([features[each] for each in batch]), used)
            ends = np.cumsum([len(features[each]) for each in batch])
            emissions = [
                part[:, np.searchsorted(used, chains[each].states)]
                for each, part in zip(batch, np.split(table, ends[:-1]), strict=True)
            ]
            paths |= zip(batch, viterbi(emissions, [chains[each] for each in batch], self.stay), strict=True)
        return [paths[each] for each in range(len(features))]

    def recognise(self, features: Sequence[Features]) -> list[str]:
        """Return for each utterance, which holds one word, the one whose best path is the likeliest.

        A word that has more states than the utterance has frames is no candidate.
        """
        scores = np.full((len(features), len(self.inventory.words)), -np.inf)
        for number, word in enumerate(self.inventory.words):
            least = self.inventory.chain([word]).least_frames
            fitting = [each for each, found in enumerate(features) if len(found) >= least]
            paths = self.align([features[each] for each in fitting], [[word]] * len(fitting)) if fitting else []
            scores[fitting, number] = [path.score for path in paths]
        return [self.inventory.words[best] for best in scores.argmax(axis=1)]


def _batches(lengths: Sequence[int], chains: Sequence[Chain]) -> Iterator[list[int]]:
    """Group utterances of about the same length."""
    batch: list[int] = []
    longest = places = 0
    for each in np.argsort(lengths, kind="stable").tolist():
        longest, places = lengths[each], max(places, len(chains[each].states))
        if batch and (len(batch) + 1) * longest * places > _CELLS:
            yield batch
            batch, places = [], len(chains[each].states)
        batch.append(each)
    if batch:
        yield batch


def train(
    features: Sequence[Features],
    words: Sequence[Words],
    advance: Callable[[], None] = lambda: None,
) -> tuple[Model, list[Iteration]]:
    """Train a model on utterances with known words, and return it with the likelihood of every alignment on the way.

    From a flat start: the frames of an utterance are dealt out evenly to its states. Then, by turns, the best paths are
    found and the mixtures fitted to the frames of each state (Viterbi training), with mixtures that are split when they have
    settled. At each size the likelihood never falls. `advance` is called after each alignment.

    Raises `ValueError` where an utterance has fewer frames than its words have states.
    """
    inventory = Inventory(tuple(sorted({word for each in words for word in each})))
    chains = [inventory.chain(each) for each in words]
    frames = np.concatenate(features)
    states = np.concatenate([_dealt(len(each), chain) for each, chain in zip(features, chains, strict=True)])
    mixtures = Mixtures.of(frames, states, len(inventory))
    model = Model(inventory, mixtures, np.full(len(inventory), 0.5))
    iterations = []
    for components, rounds in zip(COMPONENTS, ROUNDS, strict=True):
        if components > 1:
            split = model.mixtures.split(np.bincount(states, minlength=len(inventory)))
            model = Model(inventory, _fitted(split, frames, states, _EM_STEPS_AFTER_SPLIT), model.stay)
        for _ in range(rounds):
            paths = model.align(features, words)
            iterations.append(Iteration(components, sum(path.score for path in paths) / len(frames)))
            states = np.concatenate([chain.states[path.places] for chain, path in zip(chains, paths, strict=True)])
            stay = _stays(chains, paths, len(inventory))
            model = Model(inventory, _fitted(model.mixtures, frames, states, _EM_STEPS), stay)
            advance()
    return model, iterations


def _dealt(frames: int, chain: Chain) -> NDArray[np.int64]:
    """Deal the frames out evenly to the words' states and the pauses at both ends; to the words alone where they are few."""
    inner = (chain.units % 2 == 0) & (chain.units > 0) & (chain.units < chain.units[-1])
    states = chain.states[~inner]
    if frames < len(states):
        states = chain.states[chain.units % 2 == 1]
    return np.asarray(states[np.arange(frames) * len(states) // frames])


def _fitted(mixtures: Mixtures, frames: Features, states: NDArray[np.int64], steps: int) -> Mixtures:
    for _ in range(steps):
        mixtures = mixtures.fitted(frames, states)
    return mixtures


def _stays(chains: Sequence[Chain], paths: Sequence[Path], count: int) -> NDArray[np.float64]:
    """The share of each state's frames that are followed by the same state, kept from 0 and 1."""
    frames, visits = np.zeros(count), np.zeros(count)
    for chain, path in zip(chains, paths, strict=True):
        states = chain.states[path.places]
        entered = np.append(True, path.places[1:] != path.places[:-1])
        np.add.at(frames, states, 1)
        np.add.at(visits, states[entered], 1)
    return np.asarray(np.clip((frames - visits) / np.maximum(frames, 1), *_STAY))
