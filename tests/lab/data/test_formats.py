"""IDX and text files: read back exactly, and what is wrong with one is said."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from steprule.lab.data import DataError, read_idx, read_numbers


def _idx(array: NDArray[np.uint8]) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.tobytes()


def _packed(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content, compresslevel=1))
    return path


SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=6)


@given(array=hnp.arrays(np.uint8, SHAPES))
def test_idx_round_trip(array: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = _packed(tmp_path_factory.getbasetemp() / "round.gz", _idx(array))
    for found in (read_idx(path), read_idx(path, array.shape)):
        assert found.dtype == np.uint8 and found.flags.writeable
        np.testing.assert_array_equal(found, array)
        assert (found.shape, found.dtype) == (array.shape, array.dtype)


@given(array=hnp.arrays(np.uint8, SHAPES), data=st.data())
def test_no_other_length_is_read(
    array: NDArray[np.uint8], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = _idx(array)
    length = data.draw(st.integers(0, len(content) + 8).filter(lambda length: length != len(content)))
    path = _packed(tmp_path_factory.getbasetemp() / "length.gz", (content + bytes(8))[:length])
    with pytest.raises(DataError, match=r"length\.gz"):
        read_idx(path)


@given(data=st.data())
def test_a_gzip_file_that_is_cut_or_corrupt_is_an_error(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(gzip.compress(_idx(np.arange(200, dtype=np.uint8).reshape(10, 20)), mtime=0))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        # The last 8 bytes are the checksum and the length of what was packed.
        content[-data.draw(st.integers(1, 8))] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.getbasetemp() / "broken.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"broken\.gz"):
        read_idx(path)


MATRIX = np.arange(6, dtype=np.uint8).reshape(2, 3)
SHORT = "holds 5 bytes of data, expected 6 for the header's shape (2, 3)"
LONG = "holds 7 bytes of data, expected 6 for the header's shape (2, 3)"


@pytest.mark.parametrize(
    ("content", "shape", "message"),
    [
        (_idx(MATRIX)[:-1], None, SHORT),
        (_idx(MATRIX) + b"x", None, LONG),
        (_idx(MATRIX)[:7], None, "ends within its header: 3 bytes of sizes, expected 8"),
        (b"\0\0", None, "holds 2 bytes, expected at least the 4 of an IDX magic number"),
        (
            b"\0\0\x0d\x02" + _idx(MATRIX)[4:],
            None,
            (
                "has the IDX magic number 0x00000d02, expected 0x00000801 to 0x000008ff "
                "(unsigned bytes, 1 to 255 dimensions)"
            ),
        ),
        (
            _idx(MATRIX),
            (6,),
            "has the IDX magic number 0x00000802, expected 0x00000801 (unsigned bytes, 1 dimensions)",
        ),
        (_idx(MATRIX), (3, 2), "holds an array of shape (2, 3), expected (3, 2)"),
    ],
)
def test_what_is_wrong_with_an_idx_file_is_said(
    content: bytes, shape: tuple[int, ...] | None, message: str, tmp_path: Path
) -> None:
    path = _packed(tmp_path / "some.gz", content)
    with pytest.raises(DataError) as caught:
        read_idx(path, shape)
    assert str(caught.value) == f"{path} {message}"


def test_corrupt_packed_data_are_an_error(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(_idx(MATRIX)))
    # The first byte after the 10 of gzip's header tells the kind of the block; both of its bits set is no kind.
    content[10] |= 0b110
    path = tmp_path / "corrupt.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"corrupt\.gz is not sound gzip data \(.*invalid block type\)"):
        read_idx(path)


def test_an_idx_file_must_be_packed(tmp_path: Path) -> None:
    path = tmp_path / "plain"
    path.write_bytes(_idx(MATRIX))
    with pytest.raises(DataError, match="not sound gzip data"):
        read_idx(path)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_numbers_are_read(end: str, tmp_path: Path) -> None:
    path = tmp_path / "table"
    path.write_bytes(f"1\t-2.5 3e2{end}4 5 6{end}".encode())
    found = read_numbers(path, (2, 3))
    assert found.dtype == np.float64
    assert found.tolist() == [[1, -2.5, 300], [4, 5, 6]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"1 2\n3\nx\n", ", line 2 has 1 numbers, expected 2"),
        (b"1 2\n3 4 5\n", ", line 2 has 3 numbers, expected 2"),
        (b"1 2\n\n3 4\n", ", line 2 has 0 numbers, expected 2"),
        (b"1 2\n3 x\n", ", line 2 holds 'x', expected a finite number"),
        (b"1 nan\n", ", line 1 holds 'nan', expected a finite number"),
        (b"1 1e999\n", ", line 1 holds '1e999', expected a finite number"),
        (b"1 2\xff\n", ", line 1 holds '2\N{REPLACEMENT CHARACTER}', expected a finite number"),
        (b"1 2\n", " has 1 rows, expected 3"),
        (b"1 2\n" * 4, " has 4 rows, expected 3"),
        (b"", " has 0 rows, expected 3"),
    ],
)
def test_the_first_bad_line_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "table"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_numbers(path, (3, 2))
    assert str(caught.value) == f"{path}{message}"
