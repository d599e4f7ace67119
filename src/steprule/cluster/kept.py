"""A shard that outlives its process: snapshots, and between them a journal, where one is asked for."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any, Final

from ..counts import check_count
from ..folders import write_json
from . import snapshot
from .journal import Entry, Journal, check_sync
from .messages import Fetched, Push, Receipt, Version
from .shard import Shard

__all__ = ["KeptShard", "has_snapshots"]

_MISSING: Final = {
    "snapshot": ("a snapshot", "and keeps the one before"),
    "journal": ("an entry of the journal", "which a restored shard will lack"),
    "life": ("a note of what was lost so far", "which may be miscounted when the shard is restored"),
}


def has_snapshots(folder: Path, name: str = "*") -> bool:
    """Whether the shard of that name, or any, has written a snapshot there."""
    return any(folder.glob(f"{name}.safetensors"))


class KeptShard:
    """`shard`, with what it was in an earlier process, and kept for the next, in files of `folder` that begin with `name`.

    A snapshot is written at the beginning and after each `every` updates; what a shard has applied since dies with its
    process: fewer than `every` updates. With `journal`, each push is written to a file before it is acknowledged, and
    nothing dies; the file is cleared by each snapshot. `sync` syncs each of its entries to the disk, without which they
    outlive the process and not the machine.

    Where the disk is full, training goes on: `failures` counts what could not be written, each with a warning. Then more is
    lost with the process: all since the snapshot before.

    Raises `ValueError` for an `every` below 1, a `sync` without `journal`, and where the files are of another rule, other
    options or other pieces, and `OSError` where the very first files cannot be written.
    """

    def __init__(
        self, shard: Shard, folder: Path, name: str, *, every: int = 1000, journal: bool = False, sync: bool = False
    ) -> None:
        check_count("every", every)
        check_sync(journal, sync)
        self.shard: Final = shard
        self.failures: collections.Counter[str] = collections.Counter()
        """How many times a "snapshot", a "journal" entry or the note of a "life" could not be written."""
        self._snapshot: Final = folder / f"{name}.safetensors"
        self._folder: Final = folder
        self._name: Final = name
        self._every = every
        self.since_snapshot = 0
        """Updates since the last snapshot was written, or tried."""
        self._is_written = False
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f".{name}.*.part"):
            left.unlink(missing_ok=True)  # of a process that died in mid-write
        path = folder / f"{name}.journal"
        found = Journal(path, sync=sync) if journal or path.exists() else None
        self._journal: Final = found if journal else None
        noted = self._notes()
        life = max(noted, default=-1)
        history: dict[str, Any] = _history(noted[life]) if noted else {}
        known = self._snapshot.exists()
        if known:
            shard.load(*snapshot.read(self._snapshot))
        if found is not None:
            self._replay(found)
        if known or noted:
            shard.begin_life(max(life, shard.version.life) + 1, **history)
        self._note_life(is_first=not known)
        if not known:
            snapshot.write(self._snapshot, *shard.state())
        if found is not None and not journal and self.snapshot():
            found.close()
            path.unlink()

    def _replay(self, journal: Journal) -> None:
        for entry in journal.entries():
            # What a snapshot has is still in the journal where the process died between the two.
            if entry.push.number > self.shard.last_number(entry.push.replica):
                version = self.shard.version
                fetched = Version(version.life, version.updates - entry.staleness)
                self.shard.push(dataclasses.replace(entry.push, fetched=fetched, known=version))
                self.since_snapshot += 1

    def _notes(self) -> dict[int, Path]:
        """Return the notes that there are, by the life that each is of: one, or two where a process died between them."""
        before = f"{self._name}.life-"
        return {int(each.stem.removeprefix(before)): each for each in self._folder.glob(f"{before}*.json")}

    def _note_life(self, is_first: bool = False) -> None:
        """Write which life this is, and what was lost so far: what is learned of that is not in the snapshot yet."""
        self._lost = self.shard.lost
        life, noted = self.shard.version.life, self._notes()
        here = self._folder / f"{self._name}.life-{life}.json"
        try:
            write_json(here, self.shard.history)
        except OSError as error:
            if is_first:
                raise
            if noted:
                with contextlib.suppress(OSError):
                    noted[max(noted)].replace(here)  # a new name needs no room, and no two lives may have one number
            self._failed("life", error)
        else:
            for older in noted.keys() - {life}:
                with contextlib.suppress(OSError):
                    noted[older].unlink()

    def fetch(self) -> Fetched:
        """As `Shard.fetch`."""
        return self.shard.fetch()

    def last_number(self, replica: int) -> int:
        """As `Shard.last_number`."""
        return self.shard.last_number(replica)

    def push(self, push: Push) -> Receipt:
        """As `Shard.push`, and write what is due."""
        self._is_written = False
        receipt = self.shard.push(push)
        if self.shard.lost != self._lost:
            self._note_life()
        if receipt.outcome == "applied":
            self.since_snapshot += 1
            due = self.since_snapshot >= self._every
            if not (due and self.snapshot()) and self._journal is not None:
                self._record(self._journal, Entry(push, receipt.staleness))
        return receipt

    def snapshot(self) -> bool:
        """Write a snapshot, unless the last one has everything; return whether it could be written.

        Where not, it is tried again when the next is due.
        """
        if self._is_written and self._snapshot.exists():
            return True
        self.since_snapshot = 0
        try:
            snapshot.write(self._snapshot, *self.shard.state())
            if self._journal is not None:
                self._journal.clear()
        except OSError as error:
            self._failed("snapshot", error)
            return False
        self._is_written = True
        return True

    def close(self) -> None:
        """Close the journal; the shard must not be pushed to any more."""
        if self._journal is not None:
            self._journal.close()

    def _record(self, journal: Journal, entry: Entry) -> None:
        try:
            journal.append(entry)
        except OSError as error:
            self._failed("journal", error)

    def _failed(self, what: str, error: OSError) -> None:
        self.failures[what] += 1
        missing, then = _MISSING[what]
        warnings.warn(
            f"training goes on without {missing} of update {self.shard.version.updates}, {then}: {error}",
            RuntimeWarning,
            stacklevel=3,
        )


def _history(note: Path) -> dict[str, Any]:
    """Return what a note says, as `Shard.begin_life` takes it; nothing, with a warning, where it is spoilt."""
    try:
        told = json.loads(note.read_bytes())
        return {name: [(int(life), int(updates)) for life, updates in told[name]] for name in ("begun", "lost")}
    except (KeyError, TypeError, ValueError) as error:
        warnings.warn(
            f"{note} is no note of what was lost so far ({error!r}), which may be miscounted",
            RuntimeWarning,
            stacklevel=3,
        )
        return {}
