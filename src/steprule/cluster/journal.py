"""The pushes that a shard has applied since its last snapshot, in a file that only grows.

An entry is a frame and its content, a safetensors file in itself. The frame is the content's length (uint64), the CRC-32 of
the content, and the CRC-32 of these two (uint32 each), all little-endian. An entry is written before its push is
acknowledged: what was acknowledged outlives the process. It outlives the machine only where each entry is synced to the
disk.
"""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from safetensors.numpy import load, save

from .messages import FIRST, Push, Rows

__all__ = ["Entry", "Journal", "check_sync"]

_FRAME: Final = struct.Struct("<QII")
_SUMMED: Final = struct.Struct("<QI")
"""The part of a frame that its own checksum is of."""


def check_sync(journal: bool, sync: bool) -> None:
    """Raise `ValueError` where entries are to be synced and there is no journal to have any."""
    if sync and not journal:
        raise ValueError(f"sync is {sync!r} and journal is {journal!r}; allowed is sync with a journal, or neither")


@dataclass(frozen=True)
class Entry:
    """An applied push, without the versions that its replica knew, and its staleness."""

    push: Push
    staleness: int


class Journal:
    """The journal in the file `path`, which is made if it is not there; `sync` says whether each entry is synced.

    A last entry that was cut off, as by a death in mid-write, was not acknowledged: it is taken out. From one that is
    spoilt otherwise nothing can be read on, and all that follows is taken out, with a warning.
    """

    def __init__(self, path: Path, *, sync: bool = False) -> None:
        self._path: Final = path
        self._sync: Final = sync
        self._file = path.open("ab", buffering=0)
        sizes = [_FRAME.size + len(content) for content in self._contents()]
        self._length = sum(sizes)
        spoilt = self._spoilt()
        if spoilt:
            warnings.warn(
                f"{path} is spoilt from entry {len(sizes) + 1} on; these {spoilt} bytes are dropped, and the updates that "
                "they held",
                RuntimeWarning,
                stacklevel=2,
            )
        self._file.truncate(self._length)

    def entries(self) -> Iterator[Entry]:
        """Yield the entries, from the first."""
        return map(_decoded, self._contents())

    def append(self, entry: Entry) -> None:
        """Write an entry. Raises `OSError` where that cannot be done; the journal is then as it was."""
        content = _encoded(entry)
        try:
            for part in (_framed(content), content):
                left = memoryview(part)
                while left:
                    left = left[self._file.write(left) :]
            if self._sync:
                os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(self._length)
            raise
        self._length += _FRAME.size + len(content)

    def clear(self) -> None:
        """Drop all entries, after a snapshot that has what they did."""
        self._length = 0
        self._file.truncate(0)

    def close(self) -> None:
        self._file.close()

    def _spoilt(self) -> int:
        """Return how many bytes there are behind what can be read, unless they are an entry that was cut off, or zeros."""
        with self._path.open("rb") as file:
            file.seek(self._length)
            rest = file.read()
        frame = rest[: _FRAME.size]
        cut_off = len(frame) < _FRAME.size or (_is_whole(frame) and len(rest) - _FRAME.size < _FRAME.unpack(frame)[0])
        return 0 if cut_off or not any(rest) else len(rest)

    def _contents(self) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            while _is_whole(frame := file.read(_FRAME.size)):
                length, checksum, _ = _FRAME.unpack(frame)
                if length > size - file.tell():
                    return
                content = file.read(length)
                if zlib.crc32(content) != checksum:
                    return
                yield content


def _framed(content: bytes) -> bytes:
    length, checksum = len(content), zlib.crc32(content)
    return _FRAME.pack(length, checksum, zlib.crc32(_SUMMED.pack(length, checksum)))


def _is_whole(frame: bytes) -> bool:
    return len(frame) == _FRAME.size and _FRAME.unpack(frame)[-1] == zlib.crc32(frame[: _SUMMED.size])


def _encoded(entry: Entry) -> bytes:
    push = entry.push
    arrays = {"head": np.array([push.replica, push.number, entry.staleness], np.int64), "dense": push.dense}
    for number, rows in push.rows.items():
        arrays |= {f"{number}.numbers": rows.numbers, f"{number}.values": rows.values}
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})


def _decoded(content: bytes) -> Entry:
    arrays = load(content)
    replica, number, staleness = map(int, arrays["head"])
    named = {int(name.partition(".")[0]) for name in arrays if "." in name}
    rows = {each: Rows(arrays[f"{each}.numbers"], arrays[f"{each}.values"]) for each in sorted(named)}
    return Entry(Push(replica, number, FIRST, FIRST, arrays["dense"], rows), staleness)
