"""Files that are written whole."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from steprule.folders import made_folder, replace, write_json


def test_json_has_null_for_what_is_no_finite_number(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"a": [1.5, math.nan, {"b": (math.inf, "c", None, True)}]})
    assert json.loads(path.read_text()) == {"a": [1.5, None, {"b": [None, "c", None, True]}]}
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_full_disk_has_no_room_for_is_named_and_the_old_file_stays(small_disk: Path) -> None:
    path = small_disk / "page.html"
    replace(path, b"old")
    with pytest.raises(OSError, match=re.escape(f"No space left on device: '{path}'")):
        replace(path, bytes(2 << 20))
    assert path.read_bytes() == b"old"
    assert list(small_disk.iterdir()) == [path]


def test_a_place_that_is_no_folder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "page.html"
    with pytest.raises(FileNotFoundError, match=re.escape(f"'{path}'")):
        replace(path, b"new")


def test_a_folder_is_made_with_those_above_it_and_may_be_there(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    assert made_folder(out) == made_folder(out) == out
    assert out.is_dir()


def test_what_can_be_no_folder_is_told(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for out in (file, file / "below"):
        with pytest.raises(ValueError, match=f"^out is {out}, where no folder can be made: .*"):
            made_folder(out)
