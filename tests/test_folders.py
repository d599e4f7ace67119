"""Files that are written whole."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from steprule.folders import held, made_folder, replace, write_json


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


def test_a_folder_is_held_by_one_process_until_it_ends(tmp_path: Path) -> None:
    code = f"from steprule.folders import Path, held\nwith held(Path({str(tmp_path)!r})): print(flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdin is not None
    assert other.stdout is not None
    other.stdout.readline()
    told = re.escape(f"{tmp_path} is in use by another process; wait for it, or use another folder")
    with pytest.raises(ValueError, match=told), held(tmp_path):
        pass
    other.kill()
    other.communicate()
    with held(tmp_path), pytest.raises(ValueError, match=told), held(tmp_path):
        pass
    with (
        pytest.raises(ValueError, match=r"\.held cannot be made or locked \(unable to open"),
        held(tmp_path / "nowhere"),
    ):
        pass
