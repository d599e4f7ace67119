"""What the answers to the exercises say is so."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from tests.requirements import require_data_set

from steprule import reference
from steprule.lab.d2l.exercises import EXERCISES, answers, breaking, family, rescaled, rho
from steprule.lab.d2l.exercises.regression import finals
from steprule.rules import adadelta


def after(steps: int, curvature: float, **settings: float) -> tuple[float, float]:
    """|x| and the rate after some steps in a bowl, the larger of the last two, from 1."""
    last = list(itertools.islice(breaking.descend([curvature], 1.0, rho=0.95, eps=1e-6, **settings), steps))[-2:]
    return max(float(x[0]) for x, _ in last), max(float(rate[0]) for _, rate in last)


class TestWithoutTheRescaledGradient:
    def test_it_is_the_same_rule(self) -> None:
        random = np.random.default_rng(0)
        one = other = random.normal(size=50)
        states = [reference.init(adadelta, one), reference.init(rescaled.without_rescaled, other)]
        for _ in range(300):
            g = random.normal(size=50)
            one, states[0] = reference.step(adadelta, one, g, states[0])
            other, states[1] = reference.step(rescaled.without_rescaled, other, g, states[1])
            np.testing.assert_allclose(other, one, rtol=1e-12)
            np.testing.assert_allclose(states[1]["acc_delta"], states[0]["acc_delta"], rtol=1e-12)

    def test_the_chart_shows_rounding_alone(self) -> None:
        require_data_set("airfoil")
        (chart,) = rescaled.answer(1).charts
        single, double = (max(point.high for point in series.points) for series in chart.series)
        assert 0 < double < 1e-14 < single < 1e-5


class TestWhatBreaksIt:
    def test_a_flat_bowl_is_left_by_its_curvature_a_step(self) -> None:
        x, rate = after(6000, 1e-3)
        assert rate == pytest.approx(1, abs=1e-4)
        earlier, _ = after(5000, 1e-3)
        assert x / earlier == pytest.approx((1 - 1e-3) ** 1000, rel=0.01)

    def test_a_steep_bowl_is_never_settled_in(self) -> None:
        early, _ = after(3000, 1e3)
        late, rate = after(6000, 1e3)
        assert late > early > 1e-3
        assert rate == pytest.approx(2 / 1e3, rel=1e-3)

    def test_a_rate_that_decays_helps(self) -> None:
        assert after(6000, 1e3, lr_decay=0.01)[0] < after(6000, 1e3)[0] / 100

    def test_a_small_loss_is_not_learnt(self) -> None:
        require_data_set("airfoil")
        assert finals(1, scale=1e-6)[0] > 0.45
        assert finals(1, scale=1e6)[0] == pytest.approx(finals(1, scale=1e3)[0], abs=1e-3)

    def test_a_smaller_eps_does_not_help_a_small_loss(self) -> None:
        require_data_set("airfoil")
        small, larger = finals(1, scale=1e-4, eps=1e-8)[0], finals(1, eps=1e-8)[0]
        assert small > larger + 0.03
        assert finals(1, scale=1e4, eps=1e-8)[0] == pytest.approx(larger, abs=1e-3)

    def test_at_kerass_default_rate_nothing_is_learnt(self) -> None:
        require_data_set("airfoil")
        # Its class has this eps, and steps by the gradient of the whole squared error.
        still, default, paper, book = (finals(1, scale=2.0, eps=1e-7, lr=lr)[0] for lr in (0.0, 0.001, 1.0, 5.0))
        assert default == pytest.approx(still, rel=1e-3)
        assert book < 0.25 < 0.3 < paper

    def test_a_far_start_takes_more_than_its_share_of_steps(self, monkeypatch: pytest.MonkeyPatch) -> None:
        near, far = breaking._steps_from(1.0, 1e-4), breaking._steps_from(10.0, 1e-4)
        assert near is not None
        assert far is not None
        assert far > 5 * near
        monkeypatch.setattr(breaking, "MOST_STEPS", 10)
        assert breaking._steps_from(10.0, 1e-4) is None


def test_rho_near_1_learns_late() -> None:
    require_data_set("airfoil")
    final, course = rho.answer(2).charts
    by_memory = {round(point.x): point.mean for point in final.series[0].points}
    assert by_memory[1000] > by_memory[10] + 0.01
    assert [len(series.points) for series in course.series] == [15] * 5


def test_the_family_is_tried_on_stated_grids(monkeypatch: pytest.MonkeyPatch) -> None:
    require_data_set("airfoil")
    monkeypatch.setattr(family, "RATES", (0.01, 0.1, 1.0))
    monkeypatch.setattr(family, "EPSILONS", (1e-5,))
    answer = family.answer(1)
    rates, *_ = answer.charts
    assert [series.name for series in rates.series] == ["adagrad", "rmsprop", "adadelta"]
    assert answer.findings[0].startswith("adagrad: best with lr 0.1")
    assert all(math.isfinite(point.mean) for series in rates.series for point in series.points)


def test_the_exercises_are_answered_in_the_books_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steprule.lab.d2l.exercises.EXERCISES", dict.fromkeys(EXERCISES, lambda seeds: seeds))
    begun: list[str] = []
    assert list(answers(3, begun.append)) == [3, 3, 3, 3]
    assert begun == ["rho", "rescaled", "breaking", "family"]
    with pytest.raises(ValueError, match="seeds is 0"):
        next(answers(0))
