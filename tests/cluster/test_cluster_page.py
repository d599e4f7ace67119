"""The program of the page on the parameter server runs as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.serial]

PAGE = Path(__file__).parents[2] / "docs" / "cluster.md"


def test_its_program_runs(tmp_path: Path):
    (program,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (tmp_path / "bowl.py").write_text(program, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "bowl.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "RAY_worker_niceness": "0"},
    )
    assert done.returncode == 0, done.stderr
    assert abs(float(done.stdout.split()[0]) - 3) < 0.1
