"""The file of results: what goes in comes out, and what is no such file is told."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steprule.lab import Epoch, Outcome, Setting, Trial
from steprule.lab.results import Status
from steprule.lab.store import Key, Store

numbers = st.floats()  # NaN and infinities too
texts = st.text(st.characters(exclude_categories=["Cs"]))


def key(seed: int = 0, **changes: Any) -> Key:
    trial = Trial(Setting("sgd", {"lr": 0.1, "weight_decay": 0.0}), seed)
    return Key(**{"problem": "digits", "rule": "sgd", "trial": trial, "epochs": 3, "code": "0.1.0"} | changes)


def epoch(number: int, loss: float = 0.5, validation: float | None = 0.25) -> Epoch:
    return Epoch(number, loss, 12.5, validation, 0.01)


def outcome_of(path: Path, of: Key) -> Outcome:
    store = Store(path)
    try:
        return store.outcome(of)
    finally:
        store.close()


@given(
    losses=st.lists(st.tuples(numbers, numbers, st.none() | numbers, st.floats(0, 1e6)), max_size=4),
    status=st.sampled_from([each for each in get_args(Status) if each != "unfinished"]),
    cause=texts,
    names=st.tuples(texts, texts, texts),
    values=st.dictionaries(texts, st.floats(allow_nan=False, allow_infinity=False), max_size=3),
    seed=st.integers(0, 2**31),
)
def test_what_goes_in_comes_out_in_another_process_s_eyes(
    losses: list[tuple[float, float, float | None, float]],
    status: Status,
    cause: str,
    names: tuple[str, str, str],
    values: dict[str, float],
    seed: int,
) -> None:
    trial = Trial(Setting(names[1], values), seed)
    of = Key(names[0], names[1], trial, 4, names[2])
    epochs = [Epoch(number, *each) for number, each in enumerate(losses, 1)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.sqlite"
        store = Store(path)
        store.begin(of)
        for each in epochs:
            store.add(of, each)
        store.end(of, status, cause)
        store.close()
        found = outcome_of(path, of)
    # repr tells -0.0 from 0.0 and finds NaN equal to NaN; "unfinished" has no place here.
    assert repr(found) == repr(Outcome(trial, status, tuple(epochs), cause))


def test_nothing_is_known_of_a_trial_that_never_began(tmp_path: Path) -> None:
    assert outcome_of(tmp_path / "new.sqlite", key()) == Outcome(key().trial, "unfinished", ())


def test_beginning_drops_what_an_interrupted_trial_has_left(tmp_path: Path) -> None:
    store = Store(tmp_path / "results.sqlite")
    for seed in (0, 1):
        store.begin(key(seed))
        store.add(key(seed), epoch(1))
        store.add(key(seed), epoch(2))
    store.begin(key(0))
    assert store.outcome(key(0)) == Outcome(key(0).trial, "unfinished", ())
    assert store.outcome(key(1)) == Outcome(key(1).trial, "unfinished", (epoch(1), epoch(2)))
    store.close()


@pytest.mark.parametrize(
    "other",
    [
        {"problem": "mnist"},
        {"rule": "adam"},
        {"epochs": 4},
        {"code": "0.2.0"},
        {"trial": Trial(Setting("sgd", {"lr": 0.1, "weight_decay": 0.0}), 1)},
        {"trial": Trial(Setting("sgd", {"lr": 0.1}), 0)},
        {"trial": Trial(Setting("sgd", {"lr": 0.1, "weight_decay": 1e-300}), 0)},
    ],
)
def test_whatever_decides_the_numbers_tells_trials_apart(tmp_path: Path, other: dict[str, Any]) -> None:
    store = Store(tmp_path / "results.sqlite")
    store.begin(key())
    store.add(key(), epoch(1))
    assert store.outcome(key(**other)).epochs == ()
    store.close()


def test_the_order_of_hyperparameters_does_not_tell_trials_apart() -> None:
    turned = Trial(Setting("sgd", {"weight_decay": 0.0, "lr": 0.1}), 0)
    assert str(key(trial=turned)) == str(key())


WRITER = """
import os, signal, sys
from pathlib import Path
from tests.lab.test_store import epoch, key
from steprule.lab.store import Store

store = Store(Path(sys.argv[1]))
store.begin(key(0))
store.add(key(0), epoch(1))
store.end(key(0), "finished")
store.begin(key(1))
store.add(key(1), epoch(1, float("nan"), None))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_has_added_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "results.sqlite"
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", WRITER, str(path)], cwd=Path(__file__).parents[2])
        assert done.returncode == -9
        assert outcome_of(path, key(0)) == Outcome(key(0).trial, "finished", (epoch(1),))
        (left,) = outcome_of(path, key(1)).epochs
        assert repr(left) == repr(epoch(1, float("nan"), None))
    database = sqlite3.connect(path)
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    database.close()


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    path = tmp_path / "results.sqlite"
    store = Store(path)
    for seed in range(200):
        store.begin(key(seed))
        store.add(key(seed), epoch(1))
        store.end(key(seed), "finished")
    store.close()
    assert [each.name for each in tmp_path.iterdir()] == ["results.sqlite"]
    return path


def test_a_full_disk_is_told_and_what_was_kept_stays(small_disk: Path) -> None:
    path, seeds = small_disk / "results.sqlite", 0
    store = Store(path)
    try:
        with pytest.raises(ValueError) as caught:
            while True:
                store.begin(key(seeds))
                store.add(key(seeds), epoch(1))
                store.end(key(seeds), "finished")
                seeds += 1
    finally:
        store.close()
    assert str(caught.value).startswith(f"{path} cannot be written (database or disk is full); allowed is ")
    assert "--fresh" not in str(caught.value)
    # With the journal, which the full disk had no room to end.
    roomy = shutil.copytree(small_disk, small_disk.parent / "roomy") / path.name
    kept = [outcome_of(roomy, key(seed)).status for seed in range(seeds)]
    assert seeds > 10
    assert set(kept) == {"finished"}


def damaged(path: Path, how: str) -> None:
    content = path.read_bytes()
    path.write_bytes(
        {
            "text": b"these are no results\n" * 300,
            "cut short": content[: len(content) // 2],
            "cut to its head": content[:50],
        }[how]
    )


@pytest.mark.parametrize("how", ["text", "cut short", "cut to its head"])
def test_a_damaged_file_is_told_and_left_alone(filled: Path, how: str) -> None:
    damaged(filled, how)
    before = filled.read_bytes()
    with pytest.raises(ValueError) as caught:
        Store(filled)
    assert str(caught.value).startswith(f"{filled} is no file of results (")
    assert str(caught.value).endswith("): use --fresh or another --out")
    assert filled.read_bytes() == before


def use(path: Path) -> None:
    store = Store(path)
    try:
        for seed in range(200):
            store.outcome(key(seed))
        store.begin(key(0))
        store.add(key(0), epoch(1))
        store.end(key(0), "finished")
    finally:
        store.close()


def test_damage_beyond_the_first_page_is_told(filled: Path) -> None:
    content = filled.read_bytes()
    filled.write_bytes(content[:8192] + b"\xff" * (len(content) - 8192))
    with pytest.raises(ValueError, match="is no file of results"):
        use(filled)


def test_another_program_s_database_is_told(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE trials (court TEXT, verdict TEXT)")
    database.close()
    with pytest.raises(ValueError, match="is no file of results"):
        use(path)


def test_an_empty_file_is_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "results.sqlite"
    path.touch()
    use(path)
    assert outcome_of(path, key(0)).status == "finished"


@pytest.mark.parametrize("version", [2, 99, -1])
def test_another_version_is_told_and_left_alone(filled: Path, version: int) -> None:
    database = sqlite3.connect(filled)
    database.execute(f"PRAGMA user_version = {version}")
    database.close()
    with pytest.raises(ValueError) as caught:
        Store(filled)
    assert str(caught.value) == f"{filled} is of version {version}; allowed is 1: use --fresh or another --out"
    database = sqlite3.connect(filled)
    assert database.execute("SELECT count(*) FROM trials").fetchone() == (200,)
    database.close()


def test_a_directory_in_its_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "results.sqlite").mkdir()
    with pytest.raises(
        ValueError, match=r"results\.sqlite cannot be written \(unable to open database file\); allowed is"
    ):
        Store(tmp_path / "results.sqlite")


def test_a_file_in_the_folders_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(ValueError, match="out"):
        Store(tmp_path / "out" / "results.sqlite")


def test_a_second_writer_is_told(tmp_path: Path) -> None:
    first = Store(tmp_path / "results.sqlite")
    try:
        with pytest.raises((ValueError, RuntimeError), match="another"):
            Store(tmp_path / "results.sqlite").close()
    finally:
        first.close()


def test_a_file_that_another_process_holds_is_not_called_damaged(filled: Path) -> None:
    holder = sqlite3.connect(filled, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises((ValueError, RuntimeError)) as caught:
            Store(filled)
        assert "no file of results" not in str(caught.value)
    finally:
        holder.close()


def test_a_copy_of_the_file_is_as_good(filled: Path, tmp_path: Path) -> None:
    shutil.copy(filled, tmp_path / "copy.sqlite")
    assert outcome_of(tmp_path / "copy.sqlite", key(7)) == Outcome(key(7).trial, "finished", (epoch(1),))
