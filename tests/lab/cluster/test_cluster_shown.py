"""What is shown of a training: rates, the terminal, TensorBoard."""

from __future__ import annotations

import contextlib
import io
import math
import threading
from pathlib import Path

import pytest
from rich.console import Console

from steprule.cluster.messages import Version
from steprule.cluster.reports import Progress, ShardReport
from steprule.lab import Metric
from steprule.lab.cluster.board import Board
from steprule.lab.cluster.display import ClusterDisplay
from steprule.lab.cluster.rates import ShardRates
from steprule.lab.cluster.run import Measured


def report(pushes: int, process: int = 1, staleness: dict[int, int] | None = None, **more: object) -> ShardReport:
    values = {"lost": 0, "failures": {}, "refused_in_a_row": 0, "outcomes": {"applied": pushes}, **more}
    stale = {2: pushes} if staleness is None else staleness
    return ShardReport(
        process=process,
        node="",
        version=Version(1, pushes),
        staleness=stale,
        pushes=pushes,
        seconds=0.01 * pushes,
        bytes=1_000_000 * pushes,
        **values,  # type: ignore[arg-type]
    )


def progress(seconds: float, *shards: ShardReport, **more: object) -> Progress:
    values = {"updates": 100, "replicas": 4, "alive": 3, "waiting": 0, "loss": 0.5, "restarts": {}, "hung": {}, **more}
    return Progress(seconds=seconds, shards=shards, **values)  # type: ignore[arg-type]


def test_rates_are_of_what_came_since():
    rates = ShardRates()
    (first,) = rates.of(progress(2.0, report(10)))
    assert (first.pushes, first.bytes, first.staleness, first.seconds) == (5.0, 5e6, 2.0, pytest.approx(0.01))
    (second,) = rates.of(progress(4.0, report(30, staleness={2: 10, 4: 20})))
    assert (second.pushes, second.staleness) == (10.0, 4.0)
    (idle,) = rates.of(progress(5.0, report(30, staleness={2: 10, 4: 20})))
    assert idle.pushes == 0 and math.isnan(idle.staleness) and math.isnan(idle.seconds)
    # Another process counts from 0, and has forgotten some.
    (restored,) = rates.of(progress(6.0, report(5, process=2, staleness={2: 8, 4: 20, 7: 1})))
    assert restored.pushes == 5.0 and restored.staleness == 7.0


def shown(terminal: bool, *some: Progress) -> str:
    console = Console(record=True, force_terminal=terminal, width=110, height=40, file=io.StringIO())
    with ClusterDisplay(console, Metric("test error", "%")) as display:
        display.measured(Measured(50, 1.25, 3.14))
        for each in some:
            display.progressed(each)
    return " ".join(console.export_text().split())


@pytest.mark.parametrize("terminal", [False, True])
def test_the_terminal_shows_what_goes_on_and_what_went_wrong(terminal: bool):
    well = progress(10.0, report(50), report(60))
    text = shown(terminal, well)
    assert "50 of 100 updates, 5.5 pushes/s, loss 0.5, staleness 2.0, replicas 3 of 4 alive" in text
    assert "epoch 1.25: test error 3.14%" in text
    assert not any(word in text for word in ("lost,", "refused", "waiting", "started again", "silent", "not written: "))
    ill = progress(
        10.0,
        report(50, lost=3, failures={"snapshot": 2}, outcomes={"applied": 50, "refused": 7}),
        waiting=2,
        restarts={"shard 0": 1, "replica 2": 3},
        hung={"replica 2": 1},
    )
    text = shown(terminal, ill)
    for words in ("2 waiting for the warm start", "7 pushes refused, not finite", "3 updates lost"):
        assert words in text
    for words in ("started again: shard 0 (1), replica 2 (3)", "silent, and killed: replica 2 (1)", "snapshot (2)"):
        assert words in text


def test_where_nobody_watches_there_is_a_line_every_ten_seconds():
    some = [progress(float(second), report(second)) for second in range(25)]
    assert shown(False, *some).count("updates") == 2


def test_tensorboard_has_the_same(tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Board(tmp_path, Metric("test error", "%")) as board:
        board.progressed(progress(2.0, report(10), report(12)))
        board.progressed(progress(4.0, report(10), report(20), loss=math.nan))
        board.measured(Measured(20, 1.0, 2.5))
    found = EventAccumulator(str(tmp_path)).Reload()
    scalars = {tag: [each.value for each in found.Scalars(tag)] for tag in found.Tags()["scalars"]}
    assert scalars["loss"] == [0.5]
    assert scalars["shard_1/pushes_per_second"] == [6.0, 4.0]
    assert scalars["shard_0/staleness"] == [2.0]
    assert scalars["replicas/alive"] == [3.0, 3.0]
    assert scalars["test_error"] == [2.5]


def test_tensorboard_shows_what_is_trained_twice_once(tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for steps in ((0, 10, 20, 30), (10, 15, 25)):
        with Board(tmp_path, Metric("test error", "%")) as board:
            for step in steps:
                board.progressed(progress(float(step), report(step), loss=1.0))
            board.measured(Measured(step, 1.0, 2.5))
    found = EventAccumulator(str(tmp_path)).Reload()
    assert [each.step for each in found.Scalars("loss")] == [0, 10, 10, 15, 25]
    assert [each.step for each in found.Scalars("test_error")] == [25]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_disk_that_is_full_at_the_end_of_a_training_is_told(small_disk: Path):
    before = set(threading.enumerate())
    board = Board(small_disk / "events", Metric("test error", "%"))
    board.progressed(progress(0.0, report(0)))
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "fill").write_bytes(bytes(2 << 20))
    with contextlib.suppress(Exception):  # as soon as TensorBoard's own thread has met it
        for second in range(1, 500):
            board.progressed(progress(float(second), report(second)))
    with pytest.warns(RuntimeWarning, match="the last events cannot be written: .*No space left on device"):
        board.__exit__()
    # TensorBoard's thread tells of its end later, and else in another test.
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
