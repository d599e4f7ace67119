"""Training on Ray, and what befalls its processes."""

from __future__ import annotations

import os
import pickle
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.cluster import bowl
from tests.lab.processes import LOOPBACK, kill, listening

from steprule import rules

pytestmark = [pytest.mark.cluster, pytest.mark.serial, pytest.mark.usefixtures("ray_here")]

SGD = {"lr": 0.02}


def trained(folder: Path, work: Any = None, progress: Callable[[Any], object] = lambda _: None, **more: Any) -> Any:
    from steprule.cluster import Plan, train

    plan = Plan(**{"updates": 200, "replicas": 2, "shards": 2, "options": SGD, **more})
    return train(work or bowl.work(), rules.sgd, plan, folder / "snapshots", progress=progress)


def close(found: Any) -> bool:
    return all(np.abs(each - bowl.CENTRE).max() < 0.5 for each in found.parameters.values())


class Once:
    """Does something to a training, once, when it has come so far."""

    def __init__(self, updates: int, act: Callable[[Any], None]) -> None:
        self.updates, self.act, self.done = updates, act, False

    def __call__(self, training: Any) -> None:
        if not self.done and training.progress().done >= self.updates:
            self.done = True
            self.act(training)


def test_many_replicas_train_as_one_would(tmp_path: Path):
    found = trained(tmp_path)
    assert close(found)
    for shard in found.progress.shards:
        assert shard.outcomes == {"applied": 200}
        assert sum(shard.staleness.values()) == 200 and max(shard.staleness) <= 8
        assert shard.lost == 0 and shard.failures == {}
    assert found.progress.restarts == {}


def test_one_replica_without_overlap_is_plain_descent(tmp_path: Path):
    found = trained(tmp_path, replicas=1, overlap=False, updates=20)
    x = bowl.work().parameters["weight"].copy()
    for _ in range(20):
        x = x + -SGD["lr"] * (x - bowl.CENTRE)
    assert np.array_equal(found.parameters["weight"], x)
    assert all(set(shard.staleness) == {0} for shard in found.progress.shards)


def test_what_is_fetched_ahead_lacks_one_step(tmp_path: Path):
    found = trained(tmp_path, replicas=1, shards=1, updates=60, n_fetch=5, local_lr=0.0)
    (shard,) = found.progress.shards
    # Four steps by itself, the step in which it asked, and the push before that, which may be under way.
    assert 4 <= max(shard.staleness) <= 6


RULE = """
from steprule import rule

@rule
def twice(g, *, lr=0.02):
    return -lr * g
"""


def test_a_rule_of_a_users_file_is_found_by_every_process(tmp_path: Path):
    from steprule.cluster import Plan, train
    from steprule.lab.grids import find_rule

    (tmp_path / "my_rule.py").write_text(RULE)
    rule = find_rule(f"{tmp_path / 'my_rule.py'}:twice")
    assert pickle.loads(pickle.dumps(rule)) is rule
    plan = Plan(updates=200, replicas=2, shards=2)
    assert close(train(bowl.work(), rule, plan, tmp_path / "snapshots"))


def test_what_cannot_be_is_found_before_anything_is_written(tmp_path: Path):
    with pytest.raises(TypeError, match="local_lr is missing, and n_fetch is 2"):
        trained(tmp_path, n_fetch=2)
    with pytest.raises(ValueError, match="n_push is 0; allowed is a whole number from 1"):
        trained(tmp_path, n_push=0)
    assert not (tmp_path / "snapshots").exists()


def test_rows_travel_as_rows(tmp_path: Path):
    from steprule.cluster import Work

    dense = bowl.work()
    sparse = Work(dense.parameters, bowl.with_rows, sparse=("weight",))
    found = trained(tmp_path, sparse, updates=300, n_push=2, n_fetch=2, local_lr=0.0)
    assert close(found)
    pushed = sum(shard.bytes for shard in found.progress.shards)
    assert pushed < 0.7 * 300 * sum(array.nbytes for array in dense.parameters.values()) * 2


def test_a_warm_start_is_one_replica_alone(tmp_path: Path):
    seen = []
    trained(tmp_path, progress=lambda training: seen.append(training.progress()), warm_start=60, shards=1)
    # Before its end, there was nobody whose updates could have come between.
    assert seen[-1].waiting == 0
    assert all(each.waiting == 1 for each in seen if each.done < 60)
    assert sum(count for stale, count in seen[-1].shards[0].staleness.items() if stale <= 1) >= 60


def test_a_replica_that_is_killed_comes_back_and_the_others_go_on(tmp_path: Path):
    killed = []

    def strike(training: Any) -> None:
        killed.append(training.replicas.places[1][0])
        kill(killed[0])

    found = trained(tmp_path, progress=Once(50, strike), updates=1500)
    assert close(found) and killed
    assert found.progress.restarts == {"replica 1": 1}
    assert found.progress.lost == 0
    assert all(shard.version.updates >= 1500 for shard in found.progress.shards)


@pytest.mark.parametrize("journal", [False, True])
def test_a_shard_that_is_killed_loses_less_than_the_interval(tmp_path: Path, journal: bool):
    strike = Once(50, lambda training: kill(training.shards.reports[1].process))
    found = trained(tmp_path, progress=strike, updates=1500, snapshot_every=40, journal=journal)
    assert close(found) and strike.done
    first, second = found.progress.shards
    assert found.progress.restarts == {"shard 1": 1} and first.lost == 0
    assert second.lost == 0 if journal else second.lost < 40
    assert all(shard.version.updates >= 1500 for shard in found.progress.shards)


def test_a_full_disk_is_told_and_training_goes_on(small_disk: Path):
    def fill(_: Any) -> None:
        with pytest.raises(OSError, match="No space left"):
            (small_disk / "filling").write_bytes(bytes(1 << 20))

    found = trained(small_disk, progress=Once(50, fill), updates=1000, snapshot_every=40)
    assert close(found)
    for shard in found.progress.shards:
        assert shard.outcomes == {"applied": 1000} and shard.lost == 0
        # Who watches sees the 50th update some hundred later.
        assert set(shard.failures) == {"snapshot"} and shard.failures["snapshot"] >= 5


def test_a_replica_that_sends_nan_is_left_out(tmp_path: Path):
    found = trained(tmp_path, bowl.work(bowl.broken))
    assert close(found)
    assert found.progress.shards[0].outcomes["refused"] > 0
    assert found.progress.shards[0].outcomes["applied"] >= 200


def test_nan_may_end_a_training(tmp_path: Path):
    with pytest.raises(FloatingPointError, match=r"push \d+ of replica 1 is infinite or NaN in some elements"):
        trained(tmp_path, bowl.work(bowl.broken), on_nonfinite="raise")


def test_where_nothing_but_nan_comes_training_ends(tmp_path: Path):
    with pytest.raises(RuntimeError, match="the training has diverged"):
        trained(tmp_path, bowl.work(bowl.all_broken))


def test_a_replica_that_hangs_is_started_again_and_the_others_go_on(tmp_path: Path):
    found = trained(tmp_path, bowl.work(bowl.hanging(tmp_path)), timeout=4.0, updates=1500)
    assert close(found)
    assert found.progress.hung == {"replica 1": 1} and found.progress.restarts == {"replica 1": 1}


def test_a_shard_that_hangs_is_restored(tmp_path: Path):
    strike = Once(50, lambda training: os.kill(training.shards.reports[0].process, signal.SIGSTOP))
    found = trained(tmp_path, progress=strike, timeout=4.0, updates=600, journal=True)
    assert close(found)
    assert found.progress.hung["shard 0"] >= 1 and found.progress.lost == 0
    assert set(found.progress.restarts) == {"shard 0"}  # the replicas that waited for it were left alone


@pytest.mark.parametrize("when", [("Replicas", "finish"), ("Shards", "snapshot")])
def test_a_shard_that_hangs_while_the_training_ends_is_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: tuple[str, str]
):
    from steprule.cluster import watching

    holder, name = getattr(watching, when[0]), when[1]
    method, struck = getattr(holder, name), []

    def strike(self: Any, *more: Any) -> Any:
        if not struck:
            shards = self if isinstance(self, watching.Shards) else more[0]
            struck.append(shards.reports[0].process)
            os.kill(struck[0], signal.SIGSTOP)
        return method(self, *more)

    monkeypatch.setattr(holder, name, strike)
    found = trained(tmp_path, timeout=4.0, updates=300)
    assert struck and close(found)
    assert all(shard.version.updates >= 300 for shard in found.progress.shards)
    assert set(found.progress.restarts) <= {"shard 0"} and found.progress.hung["shard 0"] >= 1


def test_what_a_gradient_raises_ends_the_training(tmp_path: Path):
    with pytest.raises(LookupError, match="there are no data here"):
        trained(tmp_path, bowl.work(bowl.unwilling))


def test_a_replica_that_cannot_be_started_ends_the_training(tmp_path: Path):
    with pytest.raises(RuntimeError, match=r"replica \d cannot be started: .*there are no data anywhere"):
        trained(tmp_path, bowl.work(bowl.unstartable))


def test_a_training_goes_on_where_it_was(tmp_path: Path):
    from steprule.cluster import Plan, train

    first = trained(tmp_path, updates=60)
    with pytest.raises(ValueError, match="has snapshots of a training; allowed is to resume it, or another folder"):
        trained(tmp_path, updates=120)
    plan = Plan(updates=120, replicas=2, shards=2, options=SGD)
    second = train(bowl.work(), rules.sgd, plan, tmp_path / "snapshots", resume=True)
    assert [shard.version.updates for shard in second.progress.shards] == [120, 120]
    assert (
        np.abs(second.parameters["weight"] - bowl.CENTRE).max() < np.abs(first.parameters["weight"] - bowl.CENTRE).max()
    )


def test_a_second_training_in_the_same_folder_is_refused(tmp_path: Path):
    refused = []

    def again(_: Any) -> None:
        from steprule.cluster import Plan, train

        with pytest.raises(ValueError, match="snapshots is in use by another process") as told:
            train(bowl.work(), rules.sgd, Plan(updates=9, options=SGD), tmp_path / "snapshots", resume=True)
        refused.append(told)

    found = trained(tmp_path, progress=Once(20, again))
    assert refused
    assert close(found) and all(
        shard.lost == 0 and shard.outcomes == {"applied": 200} for shard in found.progress.shards
    )


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("auto", "dashboard is True and address is 'auto'; allowed is one of them"),
        (None, "dashboard is True, and this program has joined a Ray already; allowed is False"),
    ],
)
def test_a_dashboard_of_a_cluster_that_is_there_is_refused(tmp_path: Path, address: str | None, told: str):
    from steprule.cluster import Plan, train

    with pytest.raises(ValueError, match=told):
        train(bowl.work(), rules.sgd, Plan(updates=1, options=SGD), tmp_path, address=address, dashboard=True)


def test_more_processes_than_the_cluster_has_processors_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=re.escape("are 90 processes together; allowed on this cluster are up to")):
        trained(tmp_path, replicas=88)


def test_more_gpus_than_the_cluster_has_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="2 shards are to have a GPU each; allowed on this cluster are up to 0"):
        trained(tmp_path, device="cuda")


def test_everything_listens_on_loopback_alone():
    found = listening(os.getpid())
    assert len(found) > 3  # of Ray's own processes and of those that wait for work
    assert set(found) <= LOOPBACK
