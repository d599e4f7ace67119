"""`examples/jax/`: nets that train."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from tests.requirements import require_installed

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("name", "package"), [("flax_digits", "flax"), ("equinox_digits", "equinox")])
def test_a_net_learns_to_read_digits(name: str, package: str) -> None:
    require_installed("sklearn", package)
    example = importlib.import_module(f"examples.jax.{name}")
    # Linear models reach 0.96 on these images, at most.
    assert example.main() >= 0.97


@pytest.mark.parametrize("file", sorted((ROOT / "examples/jax").glob("*.py")), ids=lambda file: file.name)
def test_the_command_in_a_files_text_is_its_own(file: Path) -> None:
    commands = re.findall(r"^    python (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    assert commands == [str(file.relative_to(ROOT))]
