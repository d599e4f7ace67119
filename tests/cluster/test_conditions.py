"""What a simulated cluster's times are drawn from."""

from __future__ import annotations

import math

import numpy as np
import pytest

from steprule.cluster import Bursts, Conditions, Distribution, Failures, Stragglers


@pytest.mark.parametrize(
    ("text", "mean"),
    [
        ("2.5", 2.5),
        ("exponential:0.5", 0.5),
        ("gamma:10,0.1", 1.0),
        ("uniform:1,2", 1.5),
        ("lognormal:0,0.5", math.exp(0.125)),
        ("weibull:1", 1.0),
        ("pareto:3", 0.5),
    ],
)
def test_a_distribution_is_read_and_has_its_mean(text: str, mean: float) -> None:
    distribution = Distribution.of(text)
    generator = np.random.default_rng(0)
    assert np.mean([distribution.draw(generator) for _ in range(20_000)]) == pytest.approx(mean, rel=0.05)
    assert Distribution.of(str(distribution)) == distribution == Distribution.of(distribution)


def test_a_number_is_a_constant() -> None:
    assert Distribution.of(0.25) == Distribution("constant", (0.25,))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("normal:1,2", "no distribution 'normal'"),
        ("gamma:1,2,3", "distribution gamma:1,2,3 has 3 numbers; gamma takes: shape, scale"),
        ("exponential:a", "holds 'a'; allowed are numbers"),
        ("fast", "holds 'fast'; allowed are numbers"),
        ("-1", "gave -1.0; allowed are finite times from 0"),
        ("exponential:-1", "distribution exponential:-1: "),
        ("inf", "gave inf"),
    ],
)
def test_what_is_none_is_told(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Distribution.of(text)


def test_conditions_are_read_and_told() -> None:
    found = Conditions.of("gamma:10,0.1", 0.1, "0.2", "0.1,5", "50,5,4", "500,50")
    assert found.stragglers == Stragglers(0.1, 5)
    assert found.bursts == Bursts(50, 5, 4)
    assert found.failures == Failures(500, 50)
    assert str(found) == ("compute gamma:10,0.1, push 0.1, fetch 0.2, stragglers 0.1,5, bursts 50,5,4, failures 500,50")
    assert str(Conditions()) == "compute 1, push 0, fetch 0"


@pytest.mark.parametrize("name", ["compute", "push", "fetch", "stragglers", "bursts", "failures"])
def test_text_that_nobody_has_read_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match=rf"^{name} is '5,1'; allowed is a .*: Conditions.of reads text and numbers$"):
        Conditions(**{name: "5,1"})


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("stragglers", "1.5,2", "stragglers: share is 1.5; allowed is a number from 0 to 1"),
        ("stragglers", "0.5", "allowed are numbers for share, factor"),
        ("bursts", "1,2", "allowed are numbers for between, length, factor"),
        ("bursts", "0,1,2", "bursts: between is 0.0"),
        ("failures", "0", "failures: life is 0.0; allowed is a finite number above 0"),
        ("failures", "1,-1", "failures: absence is -1.0"),
        ("failures", "1,2,3", "allowed are numbers for life, absence"),
    ],
)
def test_conditions_that_cannot_be_are_told(name: str, text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Conditions.of(**{name: text})


def test_a_replicas_times_do_not_depend_on_how_many_there_are() -> None:
    conditions = Conditions.of(compute="exponential:1")
    few, many = conditions.paces(2, 0), conditions.paces(9, 0)
    assert [pace.compute(0.0) for pace in few] == [pace.compute(0.0) for pace in many][:2]
    assert few[0].compute(0.0) != few[1].compute(0.0)
