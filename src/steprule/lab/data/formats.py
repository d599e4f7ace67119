"""The file formats that the data sets come in, read strictly: a file that departs from its format is an error."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .registry import DataError

__all__ = ["read_idx", "read_numbers"]

# The third byte of an IDX file's magic number is the type of its elements, the fourth is the number of dimensions.
_UNSIGNED_BYTES = 0x0800


def read_idx(path: Path, shape: tuple[int, ...] | None = None) -> NDArray[np.uint8]:
    """Read a gzip-compressed IDX file of unsigned bytes, the format of MNIST.

    Args:
        path: the file.
        shape: the shape that the file must have; None accepts any.

    Returns:
        A writable array, uint8, of the shape that the file's header gives.

    Raises:
        DataError: the gzip data are truncated or corrupt, the magic number or the shape is another, or the length is
            not the one that the header implies.

    Source: "The IDX file format" on the page of the MNIST database, http://yann.lecun.com/exdb/mnist/
    """
    content = _decompress(path)
    found = _header(path, content, None if shape is None else len(shape))
    if shape is not None and found != shape:
        raise DataError(f"{path} holds an array of shape {found}, expected {shape}")
    start = 4 + 4 * len(found)
    expected, length = math.prod(found), len(content) - start
    if length != expected:
        raise DataError(f"{path} holds {length} bytes of data, expected {expected} for the header's shape {found}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(found).copy()


def _decompress(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            return file.read()
    except EOFError as error:
        raise DataError(f"{path} is truncated: its gzip data end before the end mark") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is not sound gzip data ({error})") from error


def _header(path: Path, content: bytes, dimensions: int | None) -> tuple[int, ...]:
    """The shape in the header; `dimensions` is how many there must be, None for any number from 1."""
    if len(content) < 4:
        raise DataError(f"{path} holds {len(content)} bytes, expected at least the 4 of an IDX magic number")
    magic = int.from_bytes(content[:4], "big")
    if dimensions is None:
        fits = _UNSIGNED_BYTES < magic <= _UNSIGNED_BYTES + 0xFF
        allowed = "0x00000801 to 0x000008ff (unsigned bytes, 1 to 255 dimensions)"
    else:
        fits = magic == _UNSIGNED_BYTES + dimensions
        allowed = f"0x{_UNSIGNED_BYTES + dimensions:08x} (unsigned bytes, {dimensions} dimensions)"
    if not fits:
        raise DataError(f"{path} has the IDX magic number 0x{magic:08x}, expected {allowed}")
    count = magic & 0xFF
    sizes = content[4 : 4 + 4 * count]
    if len(sizes) < 4 * count:
        raise DataError(f"{path} ends within its header: {len(sizes)} bytes of sizes, expected {4 * count}")
    return tuple(int(size) for size in np.frombuffer(sizes, ">u4"))


def read_numbers(path: Path, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Read a text file of numbers between white space, one row per line.

    Args:
        path: the file.
        shape: the number of rows and of columns that it must have.

    Returns:
        An array of that shape, float64.

    Raises:
        DataError: a line has another number of columns or something else than finite numbers (the first such line is
            named), or the number of rows is another.
    """
    rows, columns = shape
    # A byte that is not ASCII becomes a mark that is no number, so the line that holds it is the one that is named.
    lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    table = [_row(path, number, line, columns) for number, line in enumerate(lines, start=1)]
    if len(table) != rows:
        raise DataError(f"{path} has {len(table)} rows, expected {rows}")
    return np.array(table, np.float64)


def _row(path: Path, number: int, line: str, columns: int) -> list[float]:
    words = line.split()
    if len(words) != columns:
        raise DataError(f"{path}, line {number} has {len(words)} numbers, expected {columns}")
    return [_number(path, number, word) for word in words]


def _number(path: Path, line: int, word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{path}, line {line} holds {word!r}, expected a finite number")
    return value
