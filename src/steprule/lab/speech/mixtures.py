"""Mixtures of Gaussians with diagonal covariances, one for each state of an HMM, and their training by EM."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Mixtures"]

# The least variance, of features whose variance is 1. A mean of few frames would else be sure beyond reason.
_LEAST_VARIANCE = 0.02
# A component that has fewer frames than this is not split, nor is any where the state would have too few for all.
_LEAST_FRAMES = 20.0
# How far the two halves of a component are moved apart, in standard deviations (Young et al., The HTK Book, 10.6).
_APART = 0.2


@dataclass(frozen=True)
class Mixtures:
    """One mixture for each of S states: weights (S, M), means and variances (S, M, D), float64.

    A component that a state does not have has the weight 0.
    """

    weights: NDArray[np.float64]
    means: NDArray[np.float64]
    variances: NDArray[np.float64]

    @classmethod
    def of(cls, frames: NDArray[np.float32], states: NDArray[np.integer], count: int) -> Mixtures:
        """Return one Gaussian for each of `count` states, of the frames (T, D) that have it in `states` (T,).

        A state without a frame has the Gaussian of all frames.
        """
        everything = frames.astype(np.float64)
        means = np.tile(everything.mean(axis=0), (count, 1))
        variances = np.tile(everything.var(axis=0), (count, 1))
        for state in np.unique(states):
            own = everything[states == state]
            means[state], variances[state] = own.mean(axis=0), own.var(axis=0)
        variances = np.maximum(variances, _LEAST_VARIANCE)
        return cls(np.ones((count, 1)), means[:, None], variances[:, None])

    def log_likelihoods(self, frames: NDArray[np.float32], states: NDArray[np.integer]) -> NDArray[np.float64]:
        """Return the log-density of each frame (T, D) in each of `states` (N,): shape (T, N)."""
        joint = self._joint(frames.astype(np.float64), states)
        top = joint.max(axis=2, keepdims=True)
        return np.asarray(top[..., 0] + np.log(np.exp(joint - top).sum(axis=2)))

    def _joint(self, frames: NDArray[np.float64], states: NDArray[np.integer]) -> NDArray[np.float64]:
        """The log-density of each frame with each component, its weight included: (T, N, M)."""
        means, variances = self.means[states], self.variances[states]
        precisions = 1 / variances
        with np.errstate(divide="ignore"):
            constant = np.log(self.weights[states])
        constant = constant - 0.5 * (np.log(2 * np.pi * variances) + means**2 * precisions).sum(axis=2)
        dimensions = frames.shape[1]
        linear = (means * precisions).reshape(-1, dimensions).T
        square = (-0.5 * precisions).reshape(-1, dimensions).T
        # Two matrix products in place of a difference for each pair of a frame and a component.
        return np.asarray((frames @ linear + frames**2 @ square).reshape(len(frames), *constant.shape) + constant)

    def fitted(self, frames: NDArray[np.float32], states: NDArray[np.integer]) -> Mixtures:
        """Return the mixtures after one step of EM on frames (T, D), each with its state in `states` (T,).

        The likelihood of the frames never falls: the least variance is part of the maximisation, which is of one peak in
        each variance, and so is taken at the bound where the peak is below it. A state without frames stays as it is.
        """
        weights, means, variances = self.weights.copy(), self.means.copy(), self.variances.copy()
        order = np.argsort(states, kind="stable")
        firsts = np.searchsorted(states[order], np.arange(len(weights) + 1))
        for state in range(len(weights)):
            own = frames[order[firsts[state] : firsts[state + 1]]].astype(np.float64)
            if len(own) == 0:
                continue
            joint = self._joint(own, np.array([state]))[:, 0]
            shares = np.exp(joint - joint.max(axis=1, keepdims=True))
            shares /= shares.sum(axis=1, keepdims=True)
            counts = shares.sum(axis=0)
            kept = counts > 0
            weights[state] = counts / len(own)
            means[state, kept] = (shares.T @ own)[kept] / counts[kept, None]
            spread = (shares.T @ own**2)[kept] / counts[kept, None] - means[state, kept] ** 2
            variances[state, kept] = np.maximum(spread, _LEAST_VARIANCE)
        return Mixtures(weights, means, variances)

    def split(self, counts: NDArray[np.integer]) -> Mixtures:
        """Return mixtures with up to twice the components; `counts` (S,) says how many frames each state has.

        Each component becomes two of half its weight, a little to both sides of it, where both have frames to be fitted to.
        """
        enough = self.weights * counts[:, None] >= 2 * _LEAST_FRAMES
        offsets = _APART * np.sqrt(self.variances) * enough[..., None]
        first, second = np.where(enough, self.weights / 2, self.weights), np.where(enough, self.weights / 2, 0.0)
        return Mixtures(
            np.concatenate([first, second], axis=1),
            np.concatenate([self.means + offsets, self.means - offsets], axis=1),
            np.concatenate([self.variances, self.variances], axis=1),
        )
