"""A shard steps as the reference does, whatever it holds and however a gradient travels."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from tests.cluster.made import gradient, partition, push, shard, start, turn, whole
from tests.conformance.cases import FORMS, OF_THE_GRADIENT, RULES, hyper
from tests.conformance.tolerances import ULPS, ulps

from steprule import reference, rules
from steprule.cluster import Client, Push, Rows, Shard, Version

STEPS = 6


@pytest.mark.parametrize("name", OF_THE_GRADIENT)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_shards_step_as_one_and_rows_as_what_is_dense(name: str, form: str, dtype: str):
    by_rows, dense = partition(3, sparse=True), partition(2)
    shards = {
        of: [shard(name, number, of, FORMS[form], dtype) for number in range(of.shards)] for of in (by_rows, dense)
    }
    clients = {of: Client(0, of, dtype=dtype) for of in shards}
    x = start("float64" if dtype == "float64" else "float32").astype("float64")
    state, largest = reference.init(RULES[name], x), np.abs(x)
    around = {**FORMS[form].values, "decoupled_weight_decay": FORMS[form].decoupled, "maximize": FORMS[form].maximize}
    for step in range(STEPS):
        g, rows = gradient(step, by_rows, dtype)
        full = whole(by_rows, g, rows)
        turn(clients[by_rows], shards[by_rows], g, rows)
        turn(clients[dense], shards[dense], full)
        x, state = reference.step(RULES[name], x, full.astype("float64"), state, **{**hyper(name), **around})
        largest = np.maximum(largest, np.abs(x))
    found = [np.concatenate([each.parameters for each in some]) for some in shards.values()]
    # In float32 a rule may ask for the sign of what is nearly 0, or divide by it: the two are one another's measure.
    if dtype == "float64":
        for each in found:
            assert ulps(each, x, dtype, beside=largest).max() <= ULPS["dense run"].amount * (STEPS + 2)
    assert ulps(found[0], found[1].astype("float64"), dtype, beside=largest).max() <= ULPS["dense run"].amount * (
        STEPS + 2
    )


@pytest.mark.parametrize("rule", ["vsgd", "vsgd_fd", "diagonal_newton"])
def test_a_rule_that_takes_curvature_is_refused(rule: str):
    with pytest.raises(TypeError, match=f"rule {rule} takes .*; a push brings the gradient and nothing else"):
        shard(rule)


def test_a_rule_that_counts_takes_the_shards_own_count():
    first, second = (shard("adam") for _ in range(2))
    for number in range(3):
        first.push(push(number))
    second.push(push(0, replica=5))
    x, state = start(), reference.init(rules.adam, start())
    x, _ = reference.step(rules.adam, x, push(0).dense, state, **hyper("adam"))
    assert ulps(second.parameters, x, "float64", beside=start()).max() <= ULPS["dense run"].amount
    assert [first.version.updates, second.version.updates] == [3, 1]


def test_a_repeat_is_applied_once_and_an_older_one_not_at_all():
    server = shard()
    assert server.push(push(3)).outcome == "applied"
    after = server.fetch().parameters
    assert [server.push(push(number)).outcome for number in (3, 2, 3)] == ["repeat", "old", "repeat"]
    assert np.array_equal(server.parameters, after)
    assert server.push(push(0, replica=1)).outcome == "applied"
    assert server.outcomes == {"applied": 2, "repeat": 2, "old": 1}
    assert [server.last_number(replica) for replica in (0, 1, 2)] == [3, 0, -1]


@pytest.mark.parametrize("replicas", [1, 4])
def test_with_equal_delays_staleness_is_replicas_less_one(replicas: int):
    of = partition(2)
    shards = [shard("sgd", number, of) for number in range(2)]
    clients = [Client(replica, of, dtype="float64") for replica in range(replicas)]
    pushes = []
    for step in range(5):
        for client in clients:
            # Each push arrives just before its replica fetches again, one round later.
            for number, each in enumerate(shards):
                if step:
                    client.confirm(number, each.push(pushes.pop(0)))
                client.take(number, each.fetch())
            pushes += client.give(gradient(step, of)[0])
    for each in shards:
        # In the first of four rounds of pushes, all were of the parameters at the beginning.
        assert each.staleness == Counter(range(replicas)) + Counter({replicas - 1: 3 * replicas})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("sparse", [False, True])
def test_a_push_that_is_not_finite_changes_nothing(bad: float, sparse: bool):
    of = partition(sparse=True)
    server, client = shard("adam", of=of), Client(0, of, dtype="float64")
    g, rows = gradient(0, of)
    (rows["table"].values if sparse else g).flat[-1] = bad
    (spoilt,) = client.give(g, rows)
    assert server.push(spoilt).outcome == "refused"
    assert np.array_equal(server.parameters, start()) and server.version == Version(0, 0)
    # The number is not used up: the same push, mended, is applied.
    assert server.push(Push(0, spoilt.number, spoilt.fetched, spoilt.known, gradient(0, of)[0])).outcome == "applied"


def test_a_push_that_is_not_finite_may_be_an_error():
    server = shard(on_nonfinite="raise")
    with pytest.raises(
        FloatingPointError, match=re.escape("push 4 of replica 2 is infinite or NaN in some elements (on_")
    ):
        server.push(push(4, replica=2, dense=np.full(partition().size, np.nan)))


def test_finite_numbers_whose_sum_is_not_are_applied():
    assert shard(dtype="float32").push(push(dense=np.full(partition().size, 3e38, np.float32))).outcome == "applied"


def test_arrays_that_may_not_be_written_are_taken_without_a_warning():
    first, second = push(1), push(1)
    first.dense.flags.writeable = False
    servers = [shard(), shard()]
    for server, each in zip(servers, (first, second), strict=True):
        server.push(each)
    assert np.array_equal(servers[0].parameters, servers[1].parameters)
    assert not servers[0].parameters.flags.writeable


def test_what_is_fetched_is_a_copy():
    server = shard()
    before = server.fetch()
    server.push(push())
    assert np.array_equal(before.parameters, start()) and not np.array_equal(server.parameters, start())


@pytest.mark.parametrize(
    ("dense", "rows", "error", "says"),
    [
        (np.zeros(9), {}, ValueError, "float64 and shape (9,); allowed is one of float64 and shape (7,)"),
        (np.zeros(7, "f"), {}, ValueError, "float32 and shape (7,); allowed is one of float64"),
        (
            None,
            {1: Rows(np.array([5]), np.zeros((1, 2)))},
            ValueError,
            "table names rows from 5 to 5; allowed are 0 to 4",
        ),
        (None, {1: Rows(np.array([-1]), np.zeros((1, 2)))}, ValueError, "table names rows from -1 to -1"),
        (None, {1: Rows(np.array([1]), np.zeros((1, 3)))}, ValueError, "(1, 3); allowed are (n,) and (n, 2)"),
        (
            None,
            {1: Rows(np.array([1]), np.zeros((1, 2), "f"))},
            TypeError,
            "hold float32; allowed are int64 and float64",
        ),
        (None, {1: Rows(np.array([1.0]), np.zeros((1, 2)))}, TypeError, "numbered in float64"),
    ],
)
def test_a_push_that_does_not_fit_is_refused_before_anything_changes(dense, rows, error, says: str):
    of = partition(sparse=True)
    server = shard("adadelta", of=of)
    values = np.zeros(of.dense_size) if dense is None else dense
    with pytest.raises(error, match=re.escape(says)):
        server.push(push(dense=values, rows=rows))
    assert np.array_equal(server.parameters, start()) and server.outcomes == {}


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"lr": -1.0}, ValueError, "lr is -1.0; allowed is a number in"),
        ({"rate": 1.0}, TypeError, "rate"),
        ({"on_nonfinite": "ignore"}, ValueError, 'on_nonfinite is \'ignore\'; allowed are "skip" and "raise"'),
    ],
)
def test_options_are_checked(options, error, says: str):
    with pytest.raises(error, match=re.escape(says)):
        Shard(rules.sgd, start(), partition().pieces[0], **{"lr": 0.1, **options})


def test_a_state_that_such_parameters_cannot_have_is_refused_at_once():
    assert start().dtype == np.float64
    with pytest.raises(ValueError, match="state_dtype is 'int8' and a parameter of shape .* is torch.float64; allowed"):
        Shard(rules.adam, start(), partition().pieces[0], state_dtype="int8")


def test_parameters_of_another_type_or_size_are_refused():
    with pytest.raises(
        ValueError, match=re.escape("array of int64 and shape (17,); allowed is one of float32 or float64")
    ):
        Shard(rules.sgd, np.zeros(17, np.int64), partition().pieces[0], lr=0.1)


@pytest.mark.parametrize("known", [Version(0, 3), Version(1, 0)])
def test_a_shard_that_has_lost_its_files_is_found_out(known: Version):
    with pytest.raises(RuntimeError, match="must be one that all of them see"):
        shard().push(push(known=known))
