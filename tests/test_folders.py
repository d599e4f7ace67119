"""Files that are written whole."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from steprule.folders import write_json


def test_json_has_null_for_what_is_no_finite_number(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"a": [1.5, math.nan, {"b": (math.inf, "c", None, True)}]})
    assert json.loads(path.read_text()) == {"a": [1.5, None, {"b": [None, "c", None, True]}]}
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert list(tmp_path.iterdir()) == [path]
