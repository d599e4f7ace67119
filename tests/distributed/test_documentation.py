"""The programs of the page on several processes run as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.serial

PAGE = Path(__file__).parents[2] / "docs" / "distributed.md"
PATIENCE = 240


def _run(program: str, folder: Path, *launcher: str) -> None:
    (folder / "train.py").write_text(program, encoding="utf-8")
    command = [sys.executable, *launcher, "train.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr


def test_its_programs_run(tmp_path: Path) -> None:
    sharded, in_backward = re.findall(
        r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    for ranks in ("2", "1"):  # the second time from the checkpoint of the first
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", ranks]
        _run(sharded, tmp_path, *launcher)
        assert (tmp_path / "checkpoint" / ".metadata").exists()
    _run(in_backward, tmp_path)
    assert (tmp_path / "checkpoint.pt").exists()
