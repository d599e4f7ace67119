"""A monitor's table as a chart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.requirements import require_installed

import torch
from steprule.report.rates import draw
from steprule.torch import Adadelta, RateMonitor


def table() -> dict[str, np.ndarray]:
    torch.manual_seed(0)
    one, other = torch.nn.Parameter(torch.ones(5)), torch.nn.Parameter(torch.ones(3))
    optimizer = Adadelta([("one", one), ("other", other)])
    monitor = RateMonitor(optimizer, every=1)
    for step in range(6):
        one.grad, other.grad = torch.randn(5), torch.randn(3)
        if step in (2, 4):
            one.grad[0] = 0  # gaps, with a single point between them and one after
        if step == 3:
            other.grad = None
        optimizer.step()
    return monitor.table()


@pytest.mark.parametrize(
    ("ending", "begins"), [("svg", b"<svg"), ("png", b"\x89PNG"), ("html", b"<!DOCTYPE html>"), ("json", b"{")]
)
def test_each_layer_has_a_row_of_two_panels_in_every_format(tmp_path: Path, ending: str, begins: bytes):
    chart = draw(table(), tmp_path / f"rates.{ending}")
    content = (tmp_path / f"rates.{ending}").read_bytes()
    assert content.startswith(begins)
    assert len(chart.vconcat) == 2
    if ending in ("svg", "html"):
        assert b"other: update" in content
    if ending == "html":
        assert b"<script src=" not in content, "it asks for a script elsewhere"


def test_a_rate_without_gradient_is_a_gap_and_a_point_between_two_is_seen():
    left = draw(table(), layers=["one"]).vconcat[0].hconcat[0]
    lines, dots = (each.data.values for each in left.layer)
    gaps = [(each["step"], each["dimension"]) for each in lines if each["value"] is None]
    assert gaps == [(3, 0), (5, 0)]
    assert [(each["step"], each["dimension"]) for each in dots] == [(4, 0), (6, 0)]


def test_the_example_of_the_documentation_runs():
    require_installed("sklearn")
    from examples.torch.rate_monitor import monitored

    assert [each.layer for each in monitored(1).summary()] == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_what_cannot_be_drawn_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="there is no layer 'three'; recorded are one, other"):
        draw(table(), layers=["three"])
    with pytest.raises(ValueError, match=r"allowed are the endings \.svg, \.png, \.html and \.json"):
        draw(table(), tmp_path / "rates.gif")
    with pytest.raises(ValueError, match="the table is empty"):
        draw({name: column[:0] for name, column in table().items()})
