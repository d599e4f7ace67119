"""Snapshots and journals: what outlives a process, and what goes on without a disk."""

from __future__ import annotations

import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from tests.cluster.made import gradient, kept, partition, push, shard, start
from tests.conformance.cases import OF_THE_GRADIENT

from steprule import rules
from steprule.cluster import KeptShard, Shard, Version, snapshot
from steprule.cluster.journal import Entry, Journal


@pytest.mark.parametrize("name", OF_THE_GRADIENT)
def test_a_restored_shard_goes_on_bit_for_bit(tmp_path: Path, name: str):
    server, other = kept(tmp_path, name), shard(name)
    for number in range(4):
        server.push(push(number, replica=number % 2, fetched=Version(0, max(number - 1, 0))))
        other.push(push(number, replica=number % 2))
    assert server.snapshot()
    again = kept(tmp_path, name)
    assert again.shard.version == Version(1, 4)
    assert again.shard.staleness == server.shard.staleness == {0: 1, 1: 3}
    assert again.push(push(2)).outcome == "repeat"
    for each in (again, other):
        each.push(push(9))
    assert np.array_equal(again.shard.parameters, other.parameters)


@pytest.mark.parametrize("state", ["int8", "bfloat16"])
def test_low_precision_state_is_restored_as_it_was(tmp_path: Path, state: str):
    import torch

    options = {"state_dtype": state if state == "int8" else torch.bfloat16, "seed": 1}
    servers = [shard("adadelta", dtype="float32", **options) for _ in range(2)]
    dense = [gradient(number, partition(), "float32")[0] for number in range(4)]
    first = KeptShard(servers[0], tmp_path, "shard-0")
    for number in range(3):
        for each in servers:
            each.push(push(number, dense=dense[number]))
    assert first.snapshot()
    again = KeptShard(shard("adadelta", dtype="float32", **options), tmp_path, "shard-0")
    for each in (again, servers[1]):
        each.push(push(3, dense=dense[3]))
    assert np.array_equal(again.shard.parameters, servers[1].parameters)


@pytest.mark.parametrize("every", [1, 3, 5])
def test_what_is_lost_is_less_than_the_interval_and_counted(tmp_path: Path, every: int):
    server, applied = kept(tmp_path, every=every), 11
    for number in range(applied):
        known = server.push(push(number)).version
    again = kept(tmp_path, every=every)
    assert again.shard.version.updates == applied - applied % every
    again.push(push(applied, known=known))
    assert again.shard.lost == applied % every < every


def test_what_two_deaths_have_lost_is_counted_by_who_tells_last(tmp_path: Path):
    server = kept(tmp_path, every=1000)
    for number in range(10):
        known = server.push(push(number)).version
    # Nobody pushes to the life between, or somebody does.
    kept(tmp_path, every=1000).close()
    again = kept(tmp_path, every=1000)
    assert (again.shard.version, again.shard.lost) == (Version(2, 0), 0)
    receipt = again.push(push(10, fetched=known, known=known))
    assert again.shard.lost == 10 and receipt.staleness == 0
    later = again.push(push(11)).version
    third = kept(tmp_path, every=1000)
    assert third.shard.lost == 10
    third.push(push(12, known=later))
    assert third.shard.lost == 12
    third.push(push(13, known=known))
    assert third.shard.lost == 12
    third.close()


def test_a_gradient_on_lost_parameters_is_as_stale_as_what_came_since(tmp_path: Path):
    server = kept(tmp_path, every=4)
    for number in range(6):
        server.push(push(number))
    again = kept(tmp_path, every=4)  # at update 4 of 6
    assert again.push(push(10, fetched=Version(0, 6))).staleness == 0
    assert again.push(push(11, fetched=Version(0, 6))).staleness == 1
    assert again.push(push(12, fetched=Version(0, 3))).staleness == 3


def test_a_journal_keeps_everything_and_a_snapshot_clears_it(tmp_path: Path):
    server, other = kept(tmp_path, "adam", every=5, journal=True), shard("adam")
    path = tmp_path / "shard-0.journal"
    sizes = []
    for number in range(8):
        known = server.push(push(number, fetched=Version(0, 0))).version
        other.push(push(number, fetched=Version(0, 0)))
        sizes.append(path.stat().st_size)
    assert sizes[4] == 0 and sizes[:4] == sorted(sizes[:4])
    server.close()
    again = kept(tmp_path, "adam", every=5, journal=True)
    assert np.array_equal(again.shard.parameters, other.parameters)
    assert (again.shard.version, again.shard.staleness) == (Version(1, 8), other.staleness)
    again.push(push(8, known=known))
    assert again.shard.lost == 0
    again.close()


def test_a_journal_is_read_by_a_shard_that_keeps_none(tmp_path: Path):
    server = kept(tmp_path, journal=True)
    server.push(push(0))
    server.close()
    again = kept(tmp_path)
    assert again.shard.version.updates == 1
    assert not (tmp_path / "shard-0.journal").exists()
    again.push(push(1))
    assert kept(tmp_path).shard.version.updates == 1


@pytest.mark.parametrize("harm", ["cut", "spoilt", "zeros"])
def test_a_last_entry_that_is_no_whole_one_is_taken_out(tmp_path: Path, harm: str):
    path = tmp_path / "journal"
    journal = Journal(path)
    lengths = [0]
    for number in range(3):
        journal.append(Entry(push(number), staleness=number))
        lengths.append(path.stat().st_size)
    journal.close()
    content = path.read_bytes()
    # Each place where a write may end, and some where a disk may err.
    for place in (lengths[2] + 1, lengths[2] + 11, lengths[2] + 12, lengths[2] + 40, lengths[3] - 1):
        spoilt = content[: place - 1] + bytes([content[place - 1] ^ 1]) + content[place:]
        zeros = content[: lengths[2]] + bytes(place - lengths[2])
        path.write_bytes({"cut": content[:place], "spoilt": spoilt, "zeros": zeros}[harm])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore" if harm == "spoilt" else "error")
            again = Journal(path)
        assert [each.push.number for each in again.entries()] == [0, 1]
        assert path.stat().st_size == lengths[2]
        again.append(Entry(push(7), staleness=0))
        found = list(again.entries())
        again.close()
        assert [each.push.number for each in found] == [0, 1, 7]
        assert np.array_equal(found[-1].push.dense, push(7).dense)


@pytest.mark.parametrize("entry", [0, 1, 2])
@pytest.mark.parametrize("place", [0, 2, 4, 5, 7, 8, 11, 12, 15, 16, 40])  # of the length, the checksums, the content
def test_what_is_behind_an_entry_that_is_spoilt_is_dropped_with_a_warning(tmp_path: Path, place: int, entry: int):
    path = tmp_path / "journal"
    journal = Journal(path)
    ends = [0]
    for number in range(3):
        journal.append(Entry(push(number), staleness=0))
        ends.append(path.stat().st_size)
    journal.close()
    content = bytearray(path.read_bytes())
    content[ends[entry] + place] ^= 1
    path.write_bytes(content)
    dropped = len(content) - ends[entry]
    told = f"journal is spoilt from entry {entry + 1} on; these {dropped} bytes are dropped"
    with pytest.warns(RuntimeWarning, match=told):
        again = Journal(path)
    assert [each.push.number for each in again.entries()] == list(range(entry))
    again.close()


def test_a_snapshot_that_has_everything_is_not_written_again(tmp_path: Path):
    server = kept(tmp_path)
    server.push(push(0))
    assert server.snapshot()
    file = tmp_path / "shard-0.safetensors"
    written = file.stat().st_ino
    assert server.snapshot() and file.stat().st_ino == written
    server.push(push(1))
    assert server.snapshot() and file.stat().st_ino != written
    file.unlink()
    assert server.snapshot() and file.exists()


@pytest.mark.parametrize("journal", [False, True])
def test_training_goes_on_loudly_on_a_full_disk(small_disk: Path, journal: bool):
    server, other = kept(small_disk, "adadelta", every=2, journal=journal), shard("adadelta")
    server.push(push(0))
    other.push(push(0))
    server.snapshot()
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "filling").write_bytes(bytes(1 << 20))
    numbers = (1, 2, 3, 4)
    with pytest.warns(RuntimeWarning, match="training goes on without .*No space left") as warned:
        outcomes = [server.push(push(number)).outcome for number in numbers]
    for number in numbers:
        other.push(push(number))
    assert outcomes == ["applied"] * 4
    assert np.array_equal(server.shard.parameters, other.parameters)
    assert server.failures == ({"snapshot": 2, "journal": 4} if journal else {"snapshot": 2})
    assert len(warned) == sum(server.failures.values())
    with pytest.warns(RuntimeWarning, match="without a note of what was lost so far of update 1"):
        restored = kept(small_disk, "adadelta", journal=journal)
    restored.close()
    (small_disk / "filling").unlink()
    assert server.snapshot()
    server.close()
    again = kept(small_disk, "adadelta")
    assert np.array_equal(again.shard.parameters, other.parameters)


@pytest.mark.filterwarnings("ignore:training goes on without a note of what was lost:RuntimeWarning")
def test_a_shard_that_dies_twice_while_the_disk_is_full_lives_another_life_each_time(small_disk: Path):
    server = kept(small_disk, every=100)
    for number in range(4):
        known = server.push(push(number)).version
    server.close()
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "filling").write_bytes(bytes(1 << 20))
    for life in (1, 2):
        server = kept(small_disk, every=100)
        assert server.shard.version == Version(life, 0)
        receipt = server.push(push(4 + life, known=known, fetched=known))
        assert (receipt.outcome, receipt.staleness) == ("applied", 0)
        assert server.shard.lost == known.updates
        known = receipt.version
        server.close()


def test_a_first_life_that_cannot_be_noted_is_told_at_once(small_disk: Path):
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "filling").write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(OSError, match="No space left"):
        kept(small_disk)
    (small_disk / "filling").unlink()
    assert kept(small_disk).shard.version == Version(0, 0)
    (small_disk / "shard-0.safetensors").unlink()  # as by a death between the note and the first snapshot
    assert kept(small_disk).shard.version == Version(1, 0)
    assert (small_disk / "shard-0.safetensors").exists()


def test_a_folder_that_nothing_can_be_changed_in_is_no_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    server = kept(tmp_path)
    known = server.push(push(0)).version
    again = kept(tmp_path)

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.warns(
        RuntimeWarning, match="without a note of what was lost so far of update 1.*Read-only file system"
    ):
        assert again.push(push(1, known=known)).outcome == "applied"
    assert again.failures == {"life": 1}


def test_a_folder_that_has_gone_is_no_end_either(tmp_path: Path):
    server = kept(tmp_path / "gone", every=1)
    shutil.rmtree(tmp_path / "gone")
    with pytest.warns(
        RuntimeWarning, match="training goes on without a snapshot of update 1, and keeps the one before"
    ):
        server.push(push())


def test_no_part_of_a_file_is_left_where_writing_failed(tmp_path: Path):
    server = kept(tmp_path)
    server.snapshot()
    server.close()
    # Of a process that was killed in mid-write, and of a shard whose name begins alike.
    for left in (".shard-0.safetensors.1.part", ".shard-0.life-1.json.1.part"):
        (tmp_path / left).write_bytes(bytes(9))
    others = tmp_path / ".shard-01.safetensors.1.part"
    others.write_bytes(bytes(9))
    kept(tmp_path).close()
    others.unlink()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["shard-0.life-1.json", "shard-0.safetensors"]


def test_files_of_another_rule_or_model_are_refused(tmp_path: Path):
    kept(tmp_path, "sgd")
    with pytest.raises(ValueError, match=re.escape("has the rule 'sgd'; allowed for this shard is 'adam'")):
        kept(tmp_path, "adam")
    of = partition(2)
    with pytest.raises(ValueError, match="the state to load has the pieces"):
        KeptShard(Shard(rules.sgd, start()[of.slices[0]], of.pieces[0], lr=0.1), tmp_path, "shard-0")
    with pytest.raises(ValueError, match=re.escape("is of torch.float64; allowed for this shard is torch.float32")):
        KeptShard(shard(dtype="float32"), tmp_path, "shard-0")
    (tmp_path / "shard-0.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"shard-0\.safetensors is no snapshot of a shard"):
        kept(tmp_path)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"lr": 0.5}, "lr is 0.5; allowed for the state to load is 0.001, which it was trained with"),
        ({"beta1": 0.5}, "beta1 is 0.5; allowed for the state to load is 0.8"),
        ({"weight_decay": 0.5}, "weight_decay is 0.5; allowed for the state to load is 0.0"),
        ({"maximize": True}, "maximize is True; allowed for the state to load is False"),
        ({"state_dtype": "int8"}, "state_dtype is int8; allowed for the state to load is None"),
        ({"seed": 1}, "seed is 1; allowed for the state to load is 0"),
    ],
)
def test_files_of_other_options_are_refused(tmp_path: Path, more: dict[str, object], told: str):
    def restored(**options: object) -> KeptShard:
        return KeptShard(shard("adam", dtype="float32", **{"lr": 0.001, "beta1": 0.8, **options}), tmp_path, "shard-0")

    restored().close()
    with pytest.raises(ValueError, match=re.escape(told)):
        restored(**more)
    restored(foreach=True).close()  # which decides nothing


def test_a_snapshot_of_before_options_were_kept_goes_on(tmp_path: Path):
    server = kept(tmp_path)
    server.push(push(0))
    arrays, counts = server.shard.state()
    del counts["options"]
    snapshot.write(tmp_path / "shard-0.safetensors", arrays, counts)
    again = KeptShard(shard(lr=0.5), tmp_path, "shard-0")
    assert again.shard.version == Version(1, 1)


@pytest.mark.parametrize("spoilt", [b"", b"\0\0", b"[]", b'{"begun": [1]}'])
def test_a_spoilt_note_of_what_was_lost_is_no_end(tmp_path: Path, spoilt: bytes):
    server = kept(tmp_path)
    known = server.push(push(0)).version
    assert server.snapshot()
    (note,) = tmp_path.glob("*.life-0.json")
    note.write_bytes(spoilt)
    with pytest.warns(
        RuntimeWarning, match="life-0.json is no note of what was lost so far .* which may be miscounted"
    ):
        again = kept(tmp_path)
    assert again.shard.version == Version(known.life + 1, known.updates)
    assert [each.name for each in tmp_path.glob("*.life-*.json")] == [note.name.replace("-0.json", "-1.json")]


def test_a_sync_of_no_journal_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="sync is True and journal is False; allowed is sync with a journal"):
        kept(tmp_path, sync=True)
    assert not list(tmp_path.iterdir())
    kept(tmp_path, journal=True, sync=True).close()


def test_every_is_checked(tmp_path: Path):
    with pytest.raises(ValueError, match="every is 0; allowed is a whole number from 1"):
        kept(tmp_path, every=0)
