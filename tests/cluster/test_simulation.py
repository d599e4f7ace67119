"""The simulated cluster: against plain training, against what its clock must give, and what its failures lose."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from tests.lab import small

import torch
from steprule import rules
from steprule.cluster import Conditions, Simulated, simulate
from steprule.lab import Problem
from steprule.lab.training import train
from torch import nn

LATE = Conditions.of(compute="gamma:10,0.1", push="exponential:0.1", fetch="exponential:0.1")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def deep(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 17), nn.BatchNorm1d(17), nn.ReLU(), nn.Dropout(0.3), nn.Linear(17, 1))


LINE = small.line()
DEEP = replace(LINE, model=deep)


def simulated(problem: Problem = LINE, name: str = "sgd", **options: Any) -> Simulated:
    values = {"lr": 0.05} if name == "sgd" else {}
    return simulate(problem, getattr(rules, name), values, **options)


def equal(one: Simulated, other: Simulated) -> None:
    assert one.measured == other.measured
    assert_array_equal(one.pushes, other.pushes)
    for name, values in one.parameters.items():
        assert_array_equal(values, other.parameters[name])


@pytest.mark.parametrize("problem", [LINE, DEEP], ids=["line", "deep"])
@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("name", ["sgd", "adadelta", "adam"])
def test_one_replica_without_delay_is_plain_training(problem: Problem, name: str, shards: int) -> None:
    rule = getattr(rules, name)
    values = {"lr": 0.05} if name == "sgd" else {}
    plain = list(train(problem, rule, values, 1, small.EPOCHS))
    ours = simulate(problem, rule, values, replicas=1, shards=shards, seed=1)
    assert [(e.loss, e.test, e.validation) for e in plain] == [(m.loss, m.test, m.validation) for m in ours.measured]
    assert [m.updates for m in ours.measured] == [small.STEPS, 2 * small.STEPS, 3 * small.STEPS]
    assert (ours.pushes["staleness"] == 0).all()


def test_delays_do_not_change_what_one_replica_does() -> None:
    late, plain = simulated(replicas=1, conditions=LATE), simulated(replicas=1)
    assert [m.loss for m in late.measured] == [m.loss for m in plain.measured]
    assert late.time > plain.time == 21.0


@pytest.mark.parametrize("delays", [{}, {"push": 0.25, "fetch": 0.5}], ids=["none", "equal"])
@pytest.mark.parametrize("replicas", [1, 2, 7])
def test_with_equal_delays_the_staleness_is_one_less_than_the_replicas(replicas: int, delays: dict[str, float]) -> None:
    found = simulated(replicas=replicas, updates=40, conditions=Conditions.of(**delays))
    first, later = found.pushes["staleness"][:replicas], found.pushes["staleness"][replicas:]
    assert first.tolist() == list(range(replicas))
    assert len(later) == 40 - replicas and (later == replicas - 1).all()


def test_times_are_those_of_the_conditions() -> None:
    found = simulated(replicas=2, updates=4, conditions=Conditions.of(compute=1.0, push=0.25, fetch=0.5))
    # There and back, a gradient, and there.
    assert found.pushes["sent"].tolist() == [1.75, 1.75, 3.5, 3.5]
    assert found.pushes["time"].tolist() == [2.0, 2.0, 3.75, 3.75]
    assert found.time == 3.75


def test_the_same_seed_gives_the_same_bits_and_another_does_not() -> None:
    rough = replace(LATE, bursts=Conditions.of(bursts="5,2,4").bursts, failures=Conditions.of(failures="20,3").failures)
    options: dict[str, Any] = {"replicas": 5, "updates": 60, "every": 10, "conditions": rough}
    once = simulated(DEEP, "adadelta", **options)
    assert once.deaths > 0
    equal(once, simulated(DEEP, "adadelta", **options))
    other = simulated(DEEP, "adadelta", seed=1, **options)
    assert other.pushes["time"].tolist() != once.pushes["time"].tolist()


def test_what_is_learnt_decides_nothing_of_when_things_happen() -> None:
    timing = ["replica", "number", "sent", "time", "staleness"]
    options: dict[str, Any] = {"replicas": 5, "updates": 60, "conditions": LATE}
    assert_array_equal(simulated(**options).pushes[timing], simulated(DEEP, "adam", **options).pushes[timing])


def test_shards_are_reached_each_at_its_own_time() -> None:
    found = simulated(DEEP, replicas=4, shards=2, updates=60, conditions=LATE)
    per_shard = [found.pushes[found.pushes["shard"] == shard] for shard in range(2)]
    assert found.updates == 60
    assert all(len(pushes) >= 60 for pushes in per_shard)
    assert per_shard[0]["replica"].tolist() != per_shard[1]["replica"].tolist()


def test_a_dead_replica_takes_its_gradient_with_it_and_the_others_go_on() -> None:
    failing = Conditions.of(compute=1.0, failures="20")
    found = simulated(replicas=8, updates=1000, conditions=failing, every=10)
    # In the end all are dead, and none comes back.
    assert found.deaths == 8 and found.lost == 8
    assert 0 < found.updates < 1000
    assert found.updates == len(found.pushes)
    last = [found.pushes["time"][found.pushes["replica"] == replica].max(initial=0.0) for replica in range(8)]
    assert len(set(last)) > 1
    alive = [m.alive for m in found.measured]
    assert alive == sorted(alive, reverse=True) and alive[0] > 0
    assert found.measured[-1].updates == found.updates


def test_a_replica_that_comes_back_goes_on_with_numbers_of_its_own() -> None:
    found = simulated(replicas=3, updates=200, conditions=Conditions.of(failures="15,5"))
    assert found.deaths > 3 and found.updates == 200
    assert set(found.pushes["outcome"]) == {"applied"}
    for replica in range(3):
        numbers = found.pushes["number"][found.pushes["replica"] == replica]
        assert (np.diff(numbers) > 0).all()
        assert (np.diff(numbers) > 1).any()


def test_what_had_accrued_dies_too() -> None:
    failing = Conditions.of(compute=1.0, failures="20")
    found = simulated(replicas=8, updates=1000, conditions=failing, every=10, n_push=10)
    # Of each the gradient that it computes, and up to nine that wait for the next push.
    assert found.deaths == 8
    assert 8 < found.lost <= 80


def test_a_push_under_way_arrives_though_its_replica_is_dead() -> None:
    # Whoever dies at 1 to 3 seconds has a push under way, which arrives at 3.
    found = simulated(replicas=50, updates=50, conditions=Conditions.of(push="2", failures="4"))
    early = found.pushes[found.pushes["time"] <= 5.0]
    assert len(early) + found.lost <= 50
    assert found.deaths > found.lost


def test_a_warm_start_is_one_replica_alone() -> None:
    found = simulated(replicas=6, updates=60, warm_start=10, conditions=LATE)
    first = found.pushes[:10]
    assert (first["replica"] == 0).all() and (first["staleness"] == 0).all()
    assert set(found.pushes["replica"][10:]) == set(range(6))


def test_a_replica_fetches_and_pushes_every_few_steps() -> None:
    found = simulated(replicas=2, updates=12, n_fetch=3, n_push=2, local_lr=0.01)
    # Steps 0, 2, 4, ... push: after 1, 3, 5, ... seconds.
    assert found.pushes["time"].tolist() == [float(1 + 2 * (n // 2)) for n in range(12)]
    plain = simulated(replicas=1, updates=12)
    alone = simulated(replicas=1, updates=12, n_fetch=1, n_push=1, local_lr=0.5)
    # What one's own steps change, the next fetch replaces.
    assert_array_equal(alone.pushes["loss"], plain.pushes["loss"])
    assert simulated(replicas=1, updates=12, n_fetch=3, local_lr=0.01).measured != plain.measured


def test_a_replica_without_a_fetch_does_not_wait_for_its_push() -> None:
    slow = Conditions.of(push=10.0)
    found = simulated(replicas=1, updates=4, n_fetch=4, n_push=1, local_lr=0.01, conditions=slow)
    assert found.pushes["sent"].tolist() == [11.0, 12.0, 13.0, 14.0]
    assert found.pushes["time"].tolist() == [21.0, 22.0, 23.0, 24.0]


def test_stragglers_push_less_and_staler() -> None:
    found = simulated(replicas=10, updates=400, conditions=Conditions.of(stragglers="0.2,4"))
    counts = np.bincount(found.pushes["replica"], minlength=10)
    slow = np.flatnonzero(counts < counts.max() / 2)
    assert len(slow) == 2
    late = np.isin(found.pushes["replica"], slow)
    assert found.pushes["staleness"][late].mean() > 2 * found.pushes["staleness"][~late].mean()


def test_bursts_slow_a_replica_now_and_then() -> None:
    found = simulated(replicas=1, updates=400, conditions=Conditions.of(bursts="20,10,5"))
    steps = np.diff(found.pushes["time"], prepend=0.0)
    assert set(np.round(steps, 9)) == {1.0, 5.0}
    assert 0.02 < (steps > 1).mean() < 0.4


def test_a_loss_that_is_no_number_ends_it() -> None:
    found = simulate(LINE, rules.sgd, {"lr": 1e30}, replicas=3, updates=500, every=20)
    assert not math.isfinite(found.measured[-1].loss)
    assert found.updates < 500
    assert "refused" in found.pushes["outcome"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"replicas": 0}, "replicas is 0; allowed is a whole number from 1"),
        ({"updates": 2.5}, "updates is 2.5"),
        ({"every": True}, "every is True"),
        ({"warm_start": -1}, "warm_start is -1; allowed is a whole number from 0"),
        ({"seed": -1}, "seed is -1; allowed is a whole number from 0"),
        ({"n_push": 0}, "n_push is 0"),
        ({"shards": 99}, "shards is 99"),
    ],
)
def test_numbers_that_cannot_be_are_told(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        simulated(**options)


def test_a_rate_for_own_steps_must_be_chosen() -> None:
    with pytest.raises(TypeError, match="local_lr is missing"):
        simulated(n_fetch=2)


def test_a_model_of_two_types_is_told() -> None:
    mixed = replace(LINE, model=lambda seed: nn.Sequential(nn.Linear(3, 1), nn.Linear(1, 1).double()))
    with pytest.raises(ValueError, match="trainable parameters of torch.float32, torch.float64"):
        simulated(mixed)


def test_embeddings_with_sparse_gradients_are_trained() -> None:
    def model(sparse: bool) -> Any:
        def made(seed: int) -> nn.Module:
            torch.manual_seed(seed)
            return nn.Sequential(nn.Embedding(5, 2, sparse=sparse), nn.Flatten(), nn.Linear(4, 1))

        return made

    words = torch.arange(40).reshape(20, 2) % 5
    data = (words, words.sum(1, keepdim=True).float())
    both = [
        simulated(replace(LINE, model=model(sparse), train=data, test=data, validation=None), replicas=3, updates=30)
        for sparse in (False, True)
    ]
    equal(*both)
