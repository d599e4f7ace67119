"""What the sources say of the rules that use curvature, and of delta-bar-delta."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from tests.conformance.tolerances import ULPS, ulps

from steprule import reference, rules

DBD = {"initial_rate": 0.1, "kappa": 0.01, "phi": 0.5, "theta": 0.5}


def close(found: object, expected: object) -> bool:
    return bool(np.all(ulps(found, expected, "float64") <= ULPS["equation"].amount))


class TestDeltaBarDelta:
    def rates(self, gradients: list[float]) -> list[float]:
        x, state, found = np.zeros(1), reference.init(rules.delta_bar_delta, np.zeros(1)), []
        for g in gradients:
            before = x
            x, state = reference.step(rules.delta_bar_delta, x, np.array([g]), state, **DBD)
            assert close(x, before - state["rate"] * g)
            found.append(float(state["rate"][0]))
        return found

    def test_rates_grow_by_a_sum_and_shrink_by_a_share(self) -> None:
        # bar: 0, 0.5, 0.75, then after -1: -0.125, -0.5625
        assert close(self.rates([1.0, 1.0, 1.0, -1.0, -1.0]), [0.1, 0.11, 0.12, 0.06, 0.07])

    def test_without_gradient_a_rate_stays(self) -> None:
        assert close(self.rates([1.0, 0.0, 0.0]), [0.1, 0.1, 0.1])

    def test_a_rate_starts_with_the_first_step_that_its_dimension_takes(self) -> None:
        state = reference.init(rules.delta_bar_delta, np.zeros(1)) | {"step": 7}
        _, state = reference.step(rules.delta_bar_delta, np.zeros(1), np.ones(1), state, **DBD)
        assert state["rate"] == 0.1

    def test_it_is_the_average_before_that_is_asked(self) -> None:
        # With the new average, 0.5 * 1 - 0.5 * 3 < 0, the rate would grow.
        assert close(self.rates([1.0, -3.0]), [0.1, 0.05])

    def test_it_outruns_the_same_rate_held_fixed_on_a_valley(self) -> None:
        slopes, ends = np.array([1.0, 0.01]), {}
        for name, kappa, phi in (("fixed", 0.0, 0.0), ("adapted", 0.05, 0.3)):
            x = np.array([1.0, 1.0])
            state = reference.init(rules.delta_bar_delta, x)
            for _ in range(100):
                x, state = reference.step(
                    rules.delta_bar_delta, x, slopes * x, state, initial_rate=0.1, kappa=kappa, phi=phi
                )
            ends[name] = float(np.abs(x).max())
        assert ends["adapted"] < 0.1 < 0.9 < ends["fixed"]


class TestDiagonalNewton:
    def test_a_diagonal_quadratic_is_solved_in_one_step(self) -> None:
        h, target = np.array([4.0, 1e-3, 250.0]), np.array([1.0, -2.0, 3.0])
        x = np.zeros(3)
        found, _ = reference.step(rules.diagonal_newton, x, h * (x - target), {"step": 0}, h=h, mu=1e-12)
        np.testing.assert_allclose(found, target, rtol=1e-8)

    def test_it_descends_where_the_curvature_is_negative_and_where_there_is_none(self) -> None:
        g = np.array([1.0, 1.0, -1.0])
        found, _ = reference.step(rules.diagonal_newton, np.zeros(3), g, {"step": 0}, h=np.array([-2.0, 0, 0]), mu=0.5)
        assert close(found, [-0.4, -2.0, 2.0])


def noisy_quadratic(
    rule: Any, target: Callable[[int], float], steps: int, *, h: float, sigma: float, start: float, **hyper: float
) -> Iterator[tuple[int, Any, Any]]:
    """Yield the number of each step, its rates, and the distances from the target before it.

    Schaul, Zhang and LeCun 2012, 3.1: a loss h/2 (x - c)² with c around a target, here in 4,000 dimensions at once. The best
    rate is 1/h E[g]² / E[g²], where E[g] is h times the distance, and the noise of g is h sigma.
    """
    rng, x = np.random.default_rng(0), np.full(4000, start)
    state = reference.init(rule, x)
    for t in range(1, steps + 1):
        distance = x - target(t)
        g = h * (distance + sigma * rng.standard_normal(len(x)))
        before = x
        x, state = reference.step(rule, x, g, state, h=np.full(len(x), h), g2=g * g, **hyper)
        yield t, (before - x) / g, distance


def best(distance: Any, h: float, sigma: float) -> Any:
    return distance**2 / (distance**2 + sigma**2) / h


@pytest.mark.parametrize("rule", [rules.vsgd, rules.vsgd_fd], ids=lambda each: each.name)
class TestVSGDOnTheNoisyQuadratic:
    def test_far_from_the_target_the_rate_is_the_best_one(self, rule: Any) -> None:
        for t, rate, distance in noisy_quadratic(rule, lambda t: 0.0, 11, h=2.0, sigma=0.1, start=100.0, slow_start=10):
            if t <= 10:
                assert not rate.any(), "the slow start moves nothing"
            else:
                np.testing.assert_allclose(rate, best(distance, 2.0, 0.1), rtol=0.01)

    def test_the_rate_falls_as_the_best_one_does(self, rule: Any) -> None:
        ratios, losses = {}, {}
        for t, rate, distance in noisy_quadratic(
            rule, lambda t: 0.0, 3000, h=2.0, sigma=1.0, start=10.0, slow_start=10
        ):
            if t in (100, 300, 1000, 3000):
                ratios[t] = rate.mean() / best(distance, 2.0, 1.0).mean()
                losses[t] = float((distance**2).mean())
        # The averages are noisy, so that the rate stays below the best; by how much does not change over 30-fold time.
        assert all(0.25 < ratio < 1.0 for ratio in ratios.values()), ratios
        assert max(ratios.values()) < 1.6 * min(ratios.values()), ratios
        # No rate at all could do better than sigma²/t.
        assert all(1.0 < losses[t] * t < 5.0 for t in losses), losses

    def test_after_a_jump_of_the_target_it_recovers(self, rule: Any) -> None:
        losses, rates = {}, {}
        jump = 1000
        for t, rate, distance in noisy_quadratic(
            rule, lambda t: 10.0 * (t > jump), 2 * jump, h=2.0, sigma=1.0, start=10.0, slow_start=10
        ):
            losses[t], rates[t] = float((distance**2).mean()), float(rate.mean())
        assert losses[jump] < 0.01 < 50 < losses[jump + 1]
        assert max(rates[t] for t in range(jump, jump + 200)) > 20 * rates[jump]
        assert losses[2 * jump] < 2 * losses[jump]


@pytest.mark.parametrize("rule", [rules.vsgd, rules.vsgd_fd], ids=lambda each: each.name)
class TestVSGD:
    def test_an_overestimate_makes_the_first_rates_small(self, rule: Any) -> None:
        rates = {}
        for overestimate in (1.0, 10.0):
            run = noisy_quadratic(
                rule, lambda t: 0.0, 11, h=2.0, sigma=0.1, start=100.0, slow_start=10, overestimate=overestimate
            )
            rates[overestimate] = [rate.mean() for _, rate, _ in run][-1]
        # Of both averages, after one step of a memory of ten.
        assert 0.01 < rates[10.0] / rates[1.0] < 0.02

    def test_a_curvature_whose_reciprocal_is_no_float32_gives_no_nan(self, rule: Any) -> None:
        """As that of a weight behind a saturated sigmoid: its slope is 1e-20, and the curvature the square of that."""
        h, x = np.full(1, 1e-40, np.float32), np.ones(1, np.float32)
        state = reference.init(rule, x)
        with np.errstate(all="ignore"):
            for g in np.array([1e-20, 1e-20, 1e-20, 0.0], np.float32):
                x, state = reference.step(rule, x, np.full(1, g), state, h=h, g2=np.full(1, g * g), slow_start=2)
                assert np.isfinite(x).all(), f"step {state['step']}"

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_no_gradient_and_no_curvature_give_no_nan_and_no_step(self, rule: Any, dtype: str) -> None:
        #          dead, flat, a line, curved without slope, alive
        g = np.array([0, 1e-30, 1.0, 0, 1.0], dtype)
        h = np.array([0, 0, 0, 2.0, 2.0], dtype)
        x, state = np.ones(5, dtype), reference.init(rule, np.ones(5, dtype))
        with np.errstate(all="ignore"):
            for _ in range(20):
                x, state = reference.step(rule, x, g, state, h=h, g2=g * g, slow_start=3, overestimate=5.0)
        assert all(np.isfinite(state[slot]).all() for slot in rule.slots)
        assert state["curvature_avg"][3] < 5.1 * 2.0, (
            "curvature without a gradient is no reason for caution again and again"
        )
        assert np.array_equal(x[:4], np.ones(4))
        assert x[4] < 1

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_rounding_does_not_make_the_memory_shorter_than_one_step(self, rule: Any, dtype: str) -> None:
        rng, x = np.random.default_rng(0), np.linspace(5, 6, 256).astype(dtype)
        state, h = reference.init(rule, x), np.ones(256, dtype)
        for _ in range(500):
            g = (x + 0.05 * rng.standard_normal(256)).astype(dtype)
            with np.errstate(all="ignore"):
                x, state = reference.step(rule, x, g, state, h=h, g2=g * g, slow_start=0)
            assert state["tau"].min() >= 1
        assert np.abs(x).max() < 1

    def test_what_wakes_after_the_slow_start_is_taken_with_caution_too(self, rule: Any) -> None:
        x, state = np.zeros(1), reference.init(rule, np.zeros(1))
        with np.errstate(all="ignore"):
            for t in range(1, 31):
                g = np.array([1.0 if t > 20 else 0.0])
                x, state = reference.step(rule, x, g, state, h=2 * g, g2=g * g, slow_start=5, overestimate=100)
                if t == 21:
                    assert 0 < -x[0] < 1e-3 * (1 / 2), "less than a thousandth of Newton's step"

    def test_a_batch_of_n_has_an_nth_of_the_variance(self, rule: Any) -> None:
        # Constant averages: E[g] = 1, E[g²] = 5 for an example, 1.5 for the mean of a batch of 8.
        hyper = {"slow_start": 2, "batch_size": 8}
        x, state = np.zeros(1), reference.init(rule, np.zeros(1))
        for _ in range(3):
            before = x
            x, state = reference.step(rule, x, np.ones(1), state, h=np.array([4.0]), g2=np.array([5.0]), **hyper)
        assert close(before - x, [1 / 4 / 1.5])


def test_an_outlier_lengthens_the_memory_of_vsgd_fd() -> None:
    state = reference.init(rules.vsgd_fd, np.zeros(3))
    rng, x = np.random.default_rng(0), np.zeros(3)
    for _ in range(40):
        g = 1 + 0.1 * rng.standard_normal(3)
        h = 2 + 0.1 * rng.standard_normal(3)
        x, state = reference.step(rules.vsgd_fd, x, g, state, h=h, g2=g * g, slow_start=50)
    memory = 41.0
    outliers = {"g": (np.array([1.0, 9.0, 1.0]), np.full(3, 2.0)), "h": (np.ones(3), np.array([2.0, 2.0, 9.0]))}
    g, h = outliers["g"][0], outliers["h"][1]
    _, after = reference.step(rules.vsgd_fd, x, g, state | {"step": 60, "tau": np.full(3, memory)}, h=h, g2=g * g)
    kept = (after["tau"] - 1) / (1 - after["grad_avg"] ** 2 / after["square_avg"])
    np.testing.assert_allclose(kept, [memory, memory + 1, memory + 1])


def test_noise_of_the_curvature_lowers_the_rate_of_vsgd_fd() -> None:
    rates = []
    for spread in (0.0, 1.0):
        state, x = reference.init(rules.vsgd_fd, np.zeros(1)), np.zeros(1)
        for t in range(1, 402):
            before = x
            h = np.array([2.0 + spread * (-1) ** t])
            x, state = reference.step(rules.vsgd_fd, x, np.ones(1), state, h=h, g2=np.full(1, 10.0), slow_start=400)
        rates.append(float((before - x)[0]))
    # A tenth of the gradient's size is no noise; E[h] / E[h²] is 1/2, and 2/5.
    np.testing.assert_allclose(rates, [0.05, 0.04], rtol=0.01)
