"""What a replica fetches, accrues and pushes, and how parameters are cut."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cluster.made import SHAPES, gradient, partition, shard, turn, whole

from steprule.cluster import Client, Partition, Rows, may_begin, next_number

shapes = st.lists(st.lists(st.integers(1, 5), max_size=3).map(tuple), min_size=1, max_size=4)


@given(shapes=shapes, data=st.data())
def test_a_partition_covers_everything_once_and_cuts_no_row(shapes: list[tuple[int, ...]], data: st.DataObject):
    named = {f"tensor {number}": shape for number, shape in enumerate(shapes)}
    rows = sum(shape[0] if shape else 1 for shape in shapes)
    shards = data.draw(st.integers(1, min(rows, 6)))
    sparse = [name for name, shape in named.items() if shape and data.draw(st.booleans())]
    of = Partition(named, shards, sparse)
    x = np.arange(of.size)
    tensors = of.views(x)
    for part, dense, pieces in zip(of.slices, of.dense_slices, of.pieces, strict=True):
        assert part.stop > part.start
        assert sum(piece.size for piece in pieces) == part.stop - part.start
        assert sum(piece.size for piece in pieces if not piece.sparse) == dense.stop - dense.start
        for piece in pieces:
            held = x[part][piece.start : piece.start + piece.size].reshape(piece.shape)
            whole_tensor = tensors[piece.name].reshape(-1, *piece.row_shape)
            assert np.array_equal(held, whole_tensor[piece.first_row : piece.first_row + piece.rows])
    assert np.array_equal(np.concatenate([x[part] for part in of.slices]), x)
    widest = max(np.prod(shape[1:], dtype=int) for shape in shapes)
    sizes = [part.stop - part.start for part in of.slices]
    assert max(sizes) <= of.size / shards + shards * widest


def test_rows_go_to_the_shards_that_have_them():
    of = Partition({"table": (5, 2)}, 2, ["table"])
    some = Rows(np.array([4, 0, 2, 4]), np.arange(8.0).reshape(4, 2))
    found = of.rows_of("table", some)
    first = of.pieces[0][0].rows
    assert sorted(found) == [0, 1]
    for shard_number, (piece, rows) in found.items():
        here = (some.numbers < first) == (shard_number == 0)
        assert piece == 0
        assert np.array_equal(rows.numbers + (0 if shard_number == 0 else first), some.numbers[here])
        assert np.array_equal(rows.values, some.values[here])


@pytest.mark.parametrize(("n_fetch", "n_push"), [(1, 1), (2, 3), (3, 1)])
def test_fetches_and_pushes_count_from_step_0(n_fetch: int, n_push: int):
    of = partition(2, sparse=True)
    client = Client(0, of, dtype="float64", n_fetch=n_fetch, n_push=n_push, local_lr=0.0)
    accrued = np.zeros(of.size)
    for step in range(7):
        assert client.wants_fetch == (step % n_fetch == 0)
        g, rows = gradient(step, of)
        accrued += whole(of, g, rows)
        pushes = client.give(g, rows)
        assert len(pushes) == (2 if step % n_push == 0 else 0)
        if pushes:
            assert {each.number for each in pushes} == {step // n_push}
            dense = np.concatenate([each.dense for each in pushes])
            table = np.zeros(SHAPES["table"])
            for number, each in enumerate(pushes):
                for place, some in each.rows.items():
                    np.add.at(table[of.pieces[number][place].first_row :], some.numbers, some.values)
            views = of.views(accrued)
            assert np.allclose(dense, np.append(views["weight"].ravel(), views["bias"]), rtol=1e-15, atol=1e-15)
            assert np.allclose(table, views["table"], rtol=1e-15, atol=1e-15)
            accrued[:] = 0


def test_between_two_fetches_a_client_steps_by_itself():
    of = partition(sparse=True)
    client, server = Client(0, of, dtype="float64", n_fetch=3, local_lr=0.5), shard(of=of)
    x = server.fetch().parameters
    for step in range(3):
        g, rows = gradient(step, of)
        turn(client, [server], g, rows)
        x = x - 0.5 * whole(of, g, rows)
        assert np.allclose(client.parameters, x, rtol=1e-14, atol=1e-14)
    turn(client, [server], *gradient(3, of))
    assert not np.allclose(client.parameters, x, rtol=1e-3)


def test_rows_that_wait_are_the_clients_own():
    of = Partition({"table": (5, 2)}, 1, ["table"])
    client = Client(0, of, dtype="float64", n_push=2)
    numbers, values, pushes = np.zeros(1, int), np.zeros((1, 2)), []
    for step in range(3):
        numbers[:], values[:] = step, 1 + step
        pushes = client.give(np.zeros(0), {"table": Rows(numbers, values)})
    (push,) = pushes
    assert np.array_equal(push.rows[0].numbers, [1, 2])
    assert np.array_equal(push.rows[0].values, [[2, 2], [3, 3]])


def test_a_client_that_starts_again_counts_from_above_what_may_be_under_way():
    assert next_number([-1, -1]) == 0
    again = next_number([7, 5])
    assert again > 7 + 10**9 and next_number([again + 3, 5]) == 2 * again


def test_a_warm_start_is_replica_0_alone():
    assert may_begin(0, [0, 0], 10)
    assert not may_begin(1, [10, 9], 10)
    assert may_begin(1, [10, 11], 10)
    assert may_begin(1, [0], 0)


@pytest.mark.parametrize(
    ("more", "error", "says"),
    [
        ({"n_fetch": 0}, ValueError, "n_fetch is 0; allowed is a whole number from 1"),
        ({"n_push": True}, ValueError, "n_push is True; allowed is a whole number from 1"),
        ({"n_fetch": 2}, TypeError, "local_lr is missing, and n_fetch is 2; allowed is"),
        ({"local_lr": -0.1}, ValueError, "local_lr is -0.1; allowed is a number from 0"),
        ({"local_lr": float("nan")}, ValueError, "local_lr is nan"),
    ],
)
def test_a_clients_arguments_are_checked(more, error, says: str):
    with pytest.raises(error, match=re.escape(says)):
        Client(0, partition(), **more)


@pytest.mark.parametrize(
    ("shards", "sparse", "says"),
    [
        (0, [], "shards is 0; allowed is a whole number from 1 to 9"),
        (10, [], "shards is 10; allowed is a whole number from 1 to 9, one for each row"),
        (1, ["weights"], "sparse names 'weights', which is no tensor; allowed are tensors that have rows"),
        (1, ["bias"], "sparse names 'bias', which is of shape (); allowed are tensors that have rows"),
    ],
)
def test_a_partitions_arguments_are_checked(shards: int, sparse: list[str], says: str):
    with pytest.raises(ValueError, match=re.escape(says)):
        Partition(SHAPES, shards, sparse)


def test_gradients_that_do_not_fit_are_refused():
    of = partition(sparse=True)
    client = Client(0, of, dtype="float64")
    with pytest.raises(ValueError, match=re.escape("float32 and shape (7,); allowed is float64 and (7,)")):
        client.give(np.zeros(7, np.float32))
    with pytest.raises(ValueError, match="there are rows of 'weight'; sparse tensors of the partition are: table"):
        client.give(np.zeros(7), {"weight": Rows(np.array([0]), np.zeros((1, 2)))})
    with pytest.raises(ValueError, match="names rows from 5 to 5"):
        client.give(np.zeros(7), {"table": Rows(np.array([5]), np.zeros((1, 2)))})
    assert client.steps == 0
