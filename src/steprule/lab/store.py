"""Where finished epochs are kept: one SQLite file, which survives the death of the process at any moment."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .results import Epoch, Outcome, Status, Trial

__all__ = ["Key", "NoStoreError", "Store"]

_VERSION: Final = 1

# Where nothing is wrong with the file, and --fresh would only lose it. Error codes are told from Python 3.11 on.
_OF_THE_DISK: Final = ("unable to open", "readonly", "is full", "I/O error")

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS trials (key TEXT PRIMARY KEY, status TEXT NOT NULL, cause TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS epochs (
    key TEXT NOT NULL, number INTEGER NOT NULL,
    loss TEXT NOT NULL, test TEXT NOT NULL, validation TEXT, seconds REAL NOT NULL,
    PRIMARY KEY (key, number)
);
"""


@dataclass(frozen=True)
class Key:
    """All that decides a trial's numbers: what is trained on what, by which text of the code, for how long."""

    problem: str
    rule: str
    trial: Trial
    epochs: int
    code: str

    def __str__(self) -> str:
        values = sorted(self.trial.setting.hyperparameters.items())
        return json.dumps([self.problem, self.rule, values, self.trial.seed, self.epochs, self.code])


class NoStoreError(ValueError):
    """A file that is no store of this version, so that nothing in it can be gone on with."""


class Store:
    """The outcomes of trials, in a file. One process has it open; each epoch is kept from the moment that it is added.

    Raises `NoStoreError` where the file is no store of this version or is damaged, and another `ValueError` where it is open
    in another process or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._told():
            self._database = sqlite3.connect(path, isolation_level=None, timeout=1)
            try:
                self._open()
            except BaseException:
                self._database.close()
                raise

    def _open(self) -> None:
        version = self._database.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _VERSION):
            raise NoStoreError(
                f"{self._path} is of version {version}; allowed is {_VERSION}: use --fresh or another --out"
            )
        # Held until the process ends, however it ends: two writers would mix their epochs.
        self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
        # The journal survives a killed process; only a power cut may take the last epochs, and never harms the rest.
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")
        self._database.executescript(_SCHEMA + f"PRAGMA user_version = {_VERSION};")

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if "locked" in str(error):
                raise ValueError(
                    f"{self._path} is open in another process; wait for it, or use another --out"
                ) from error
            if any(words in str(error) for words in _OF_THE_DISK):
                raise ValueError(
                    f"{self._path} cannot be written ({error}); allowed is a folder that may be written to, on a disk with "
                    "room: what has been kept stays"
                ) from error
            raise NoStoreError(f"{self._path} is no file of results ({error}): use --fresh or another --out") from error

    def close(self) -> None:
        self._database.close()

    def begin(self, key: Key) -> None:
        """Note that a trial starts from its first epoch; what an interrupted one has left is dropped."""
        with self._told(), self._database:
            self._database.execute("BEGIN")
            self._database.execute("DELETE FROM epochs WHERE key = ?", (str(key),))
            self._database.execute("INSERT OR REPLACE INTO trials VALUES (?, 'unfinished', '')", (str(key),))

    def add(self, key: Key, epoch: Epoch) -> None:
        """Keep one finished epoch."""
        # As text, since SQLite has no NaN and a diverged trial has little else.
        validation = None if epoch.validation is None else repr(epoch.validation)
        row = (str(key), epoch.number, repr(epoch.loss), repr(epoch.test), validation, epoch.seconds)
        with self._told():
            self._database.execute("INSERT OR REPLACE INTO epochs VALUES (?, ?, ?, ?, ?, ?)", row)

    def end(self, key: Key, status: Status, cause: str = "") -> None:
        """Keep how a trial ended."""
        with self._told():
            self._database.execute("UPDATE trials SET status = ?, cause = ? WHERE key = ?", (status, cause, str(key)))

    def outcome(self, key: Key) -> Outcome:
        """Return what is known of a trial; "unfinished" and no epochs where nothing is."""
        with self._told():
            found = self._database.execute("SELECT status, cause FROM trials WHERE key = ?", (str(key),)).fetchone()
            rows: list[tuple[int, str, str, str | None, float]] = self._database.execute(
                "SELECT number, loss, test, validation, seconds FROM epochs WHERE key = ? ORDER BY number", (str(key),)
            ).fetchall()
        epochs = tuple(
            Epoch(number, float(loss), float(test), None if validation is None else float(validation), seconds)
            for number, loss, test, validation, seconds in rows
        )
        status: Status
        status, cause = found or ("unfinished", "")
        return Outcome(key.trial, status, epochs, cause)
