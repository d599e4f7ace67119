"""The page on curvature: its examples run, and its list of layers is the table's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import steprule.torch
from steprule.curvature.layers import LAYERS

TEXT = (Path(__file__).parents[2] / "docs" / "curvature.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_its_examples_run_as_they_stand(number: int) -> None:
    missing = [
        name for name in re.findall(r"steprule\.torch\.(\w+)", BLOCKS[number]) if not hasattr(steprule.torch, name)
    ]
    if missing:
        pytest.skip(f"steprule.torch has no {missing[0]}")
    exec(compile(BLOCKS[number], f"docs/curvature.md, example {number + 1}", "exec"), {"__name__": f"page_{number}"})


def test_it_names_every_layer() -> None:
    (layers,) = re.findall(r"^The chain of .*?$\n\n", TEXT, re.MULTILINE | re.DOTALL)
    named = {kind.__name__ for kind in LAYERS if not re.search(r"Pool|Dropout\dd", kind.__name__)}
    assert set(re.findall(r"`([A-Z]\w+)`", layers)) - {"Sequential"} == named
