"""Mixtures beside scikit-learn's, and what EM promises."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.mixture import GaussianMixture

import steprule.lab.speech.mixtures as module
from steprule.lab.speech.mixtures import Mixtures


def frames(count: int = 400, dimensions: int = 3, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    centres = random.standard_normal((4, dimensions)) * 2
    return (centres[random.integers(4, size=count)] + random.standard_normal((count, dimensions)) / 2).astype(
        np.float32
    )


def drawn(components: int, dimensions: int = 3, states: int = 2) -> Mixtures:
    random = np.random.default_rng(1)
    weights = random.uniform(0.5, 1, (states, components))
    return Mixtures(
        weights / weights.sum(axis=1, keepdims=True),
        random.standard_normal((states, components, dimensions)) * 2,
        random.uniform(0.5, 2, (states, components, dimensions)),
    )


def theirs(mixtures: Mixtures, state: int, **options: object) -> GaussianMixture:
    return GaussianMixture(
        mixtures.weights.shape[1],
        covariance_type="diag",
        weights_init=mixtures.weights[state],
        means_init=mixtures.means[state],
        precisions_init=1 / mixtures.variances[state],
        reg_covar=0,
        **options,
    )


def likelihood(mixtures: Mixtures, x: np.ndarray, states: np.ndarray) -> float:
    every = mixtures.log_likelihoods(x, np.arange(len(mixtures.weights)))
    return float(every[np.arange(len(x)), states].sum())


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # one step is what is asked for
def test_densities_and_a_step_are_those_of_scikit_learn() -> None:
    x, ours = frames(), drawn(3)
    states = np.arange(len(x)) % 2
    after = ours.fitted(x, states)
    for state in range(2):
        model = theirs(ours, state, max_iter=1).fit(x[states == state].astype(np.float64))
        np.testing.assert_allclose(after.weights[state], model.weights_, rtol=1e-9)
        np.testing.assert_allclose(after.means[state], model.means_, rtol=1e-9)
        np.testing.assert_allclose(after.variances[state], model.covariances_, rtol=1e-7)
        scores = after.log_likelihoods(x, np.array([state]))[:, 0]
        np.testing.assert_allclose(scores, model.score_samples(x.astype(np.float64)), rtol=1e-9)


@pytest.mark.parametrize("floor", [0.02, 0.4])
def test_the_likelihood_never_falls_though_variances_have_a_floor(
    floor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LEAST_VARIANCE", floor)
    x = frames(seed=3)
    states = (np.arange(len(x)) % 3 == 0).astype(int)
    model = Mixtures.of(x, states, 2).split(np.bincount(states))
    seen = [likelihood(model, x, states)]
    for _ in range(15):
        model = model.fitted(x, states)
        seen.append(likelihood(model, x, states))
    assert (np.diff(seen) >= -1e-9).all() and seen[-1] > seen[0] + 10
    assert model.variances.min() >= floor
    assert floor < 0.1 or (model.variances == floor).any(), "the floor is not met"


def test_one_gaussian_is_the_mean_and_variance_of_its_frames() -> None:
    x = frames()
    states = np.zeros(len(x), int)
    model = Mixtures.of(x, states, 2)
    np.testing.assert_allclose(model.means[0, 0], x.mean(axis=0, dtype=np.float64))
    np.testing.assert_allclose(model.variances[0, 0], x.var(axis=0, dtype=np.float64))
    # State 1 has no frames: it is that of all frames, and stays it.
    np.testing.assert_array_equal(model.means[1], model.means[0])
    np.testing.assert_array_equal(model.fitted(x, states).means[1], model.means[1])


def test_a_split_keeps_the_weight_and_spares_what_has_few_frames() -> None:
    model = Mixtures.of(frames(), np.arange(400) % 2, 2).split(np.array([200, 30]))
    np.testing.assert_allclose(model.weights, [[0.5, 0.5], [1.0, 0.0]])
    assert (model.means[0, 0] > model.means[0, 1]).all()
    scores = model.log_likelihoods(frames(), np.array([1]))
    assert np.isfinite(scores).all(), "a component of weight 0 adds nothing"
