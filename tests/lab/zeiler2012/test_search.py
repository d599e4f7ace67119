"""The search for what the paper leaves out: what is tried, how it is judged, and the table of it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.lab import small
from tests.requirements import require_data_set

import steprule.lab.zeiler2012.search as search
import torch
from steprule.lab import compare
from steprule.lab.places import Processes
from steprule.lab.problems.mnist import mnist
from steprule.lab.results import Setting
from steprule.lab.spread import Spread
from steprule.lab.summary import SettingSummary
from steprule.lab.zeiler2012 import parts
from steprule.lab.zeiler2012.candidates import CANDIDATES, EPOCHS, HELD_OUT, Candidate, rectified, tanh
from steprule.lab.zeiler2012.search import DECIDING, DEFAULT, Tried, best, expected, try_out
from steprule.named import load
from steprule.report.zeiler2012.search import terminal_tables, write_search
from torch import nn

PAPER = {"sgd 0.001": 17.01, "sgd 0.0001": 58.10, "adagrad 0.0001": 12.59}


def measured(setting: Setting, error: float | None) -> SettingSummary:
    spread = None if error is None else Spread.of([error])
    return SettingSummary(setting, 1, int(error is not None), int(error is None), 0, spread, spread, spread)


def tried(candidate: Candidate, *errors: float | None) -> Tried:
    settings = (*DECIDING[candidate.units], DEFAULT)
    return Tried(candidate, tuple(measured(*each) for each in zip(settings, errors, strict=True)), 1, EPOCHS)


def test_each_candidate_is_found_by_its_name() -> None:
    assert len({each.problem for each in CANDIDATES}) == len(CANDIDATES) == 28
    for each in CANDIDATES:
        assert load(each.problem) is each


def test_the_usual_ones_of_the_time_are_tried_with_both_scalings() -> None:
    for units, more in (("rectified", set()), ("tanh", {"N(0, 0.2²)"})):
        for inputs in ("in [0, 1]", "standardised"):
            words = [each.words for each in CANDIDATES if each.units == units]
            weights = {weights for weights, biases, scaling in words if biases == "0" and scaling == inputs}
            normal = {f"N(0, {deviation}²)" for deviation in ("0.01", "0.02", "0.05", "0.1")}
            assert weights == normal | more | {"uniform, ±1/√fan-in", "sparse: 15 inputs of a unit, N(0, 1)"}
    assert {each.words[1] for each in CANDIDATES} == {"0", "0.1", "uniform, ±1/√fan-in"}


@pytest.mark.parametrize(
    ("candidate", "deviations"),
    [
        (rectified.normal_0_05, (0.05, 0.05, 0.05)),
        (tanh.normal_0_2, (0.2, 0.2, 0.2)),
        (rectified.uniform, tuple(1 / math.sqrt(3 * inputs) for inputs in (784, 500, 300))),
        (rectified.sparse, tuple(math.sqrt(15 / inputs) for inputs in (784, 500, 300))),
    ],
)
def test_weights_are_spread_as_said(candidate: Candidate, deviations: tuple[float, ...]) -> None:
    net, again, other = candidate.net(0), candidate.net(0), candidate.net(1)
    layers = [layer for layer in net.modules() if isinstance(layer, nn.Linear)]
    for layer, deviation in zip(layers, deviations, strict=True):
        assert float(layer.weight.detach().std()) == pytest.approx(deviation, rel=0.05)
        assert not layer.bias.any()
    assert all(map(torch.equal, net.state_dict().values(), again.state_dict().values()))
    assert not torch.equal(layers[0].weight, other[0].weight)
    units = {type(layer) for layer in net.modules()} & {nn.ReLU, nn.Tanh}
    assert units == {nn.ReLU if candidate.units == "rectified" else nn.Tanh}


def test_a_sparse_unit_has_fifteen_inputs() -> None:
    net = tanh.sparse.net(3)
    for layer in (net[0], net[2], net[4]):
        assert ((layer.weight != 0).sum(dim=1) == 15).all()


def test_biases_are_as_said() -> None:
    assert all(
        (each == 0.1).all()
        for name, each in rectified.normal_0_05_biases_tenth.net(0).named_parameters()
        if "b" in name
    )
    bias = rectified.uniform_biases_uniform.net(0)[0].bias
    assert 0.9 / 28 < float(bias.detach().abs().max()) <= 1 / 28


def test_the_last_images_of_the_training_set_are_held_out() -> None:
    require_data_set("mnist")
    whole, plain, scaled = mnist(), rectified.normal_0_05(), rectified.normal_0_05_standardised()
    assert plain.epochs == EPOCHS
    for problem in (plain, scaled):
        assert problem.validation is not None
        assert (len(problem.train[0]), len(problem.validation[0]), len(problem.test[0])) == (50_000, HELD_OUT, 10_000)
        assert torch.equal(problem.validation[1], whole.train[1][50_000:])
    assert torch.equal(plain.train[0], whole.train[0][:50_000])
    assert torch.equal(plain.test[0], whole.test[0])
    assert abs(float(scaled.train[0].mean())) < 1e-4
    assert float(scaled.train[0].std()) == pytest.approx(1.0, abs=1e-4)
    assert abs(float(scaled.test[0].mean())) < 0.02


def test_the_cells_are_the_papers_and_its_low_rates() -> None:
    assert [expected("rectified", setting) for setting in DECIDING["rectified"]] == list(PAPER.values())
    assert (expected("rectified", DEFAULT), expected("tanh", DEFAULT)) == (1.83, 2.00)
    assert "table1" in parts()


def test_agreement_is_a_factor_to_either_side() -> None:
    half, twice, same = (tried(rectified.uniform, *(f * e for e in PAPER.values()), 2.0) for f in (0.5, 2.0, 1.0))
    assert (half.factor, twice.factor) == (pytest.approx(2.0), pytest.approx(2.0))
    assert (half.median_ratio, twice.median_ratio) == (pytest.approx(0.5), pytest.approx(2.0))
    assert (same.factor, same.median_ratio) == (1.0, 1.0)
    mixed = tried(rectified.uniform, 0.5 * 17.01, 58.10, 2 * 12.59, 2.0)
    assert mixed.median_ratio == 1.0
    assert mixed.factor == pytest.approx(2 ** (2 / 3))


def test_the_nearest_is_chosen_and_what_diverged_never() -> None:
    near, far = (
        tried(each, *(f * e for e in PAPER.values()), 2.0)
        for each, f in ((rectified.uniform, 1.1), (rectified.sparse, 3))
    )
    lost = tried(rectified.normal_0_01, 17.01, None, 12.59, 0.1)
    good, better = tried(tanh.uniform, 2.2), tried(tanh.sparse, 2.1)
    assert (lost.factor, lost.median_ratio) == (None, None)
    found = [far, lost, near, good, better, tried(tanh.normal_0_1, None)]
    assert best(found, "rectified") is near
    assert best(found, "tanh") is better
    assert best([lost], "rectified") is None
    assert best([], "tanh") is None


def test_a_candidate_is_tried_through_compare_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problems: list[str] = []

    def on_a_line(problem: str, **asked: Any) -> Any:
        problems.append(problem)
        return compare(small.named(small.line), **asked)

    monkeypatch.setattr(search, "compare", on_a_line)
    found = try_out(rectified.sparse, seeds=2, epochs=2, on=Processes(1), out=tmp_path)
    assert problems == [rectified.sparse.problem]
    assert tuple(each.setting for each in found.measured) == (*DECIDING["rectified"], DEFAULT)
    assert {(each.state, each.finished) for each in found.measured} == {("finished", 2)}
    assert (found.epochs, found.seeds) == (2, 2)
    for each in found.measured:
        assert found.held_out(each.setting) == each.validation is not None
    assert (tmp_path / "search" / "rectified" / "sparse" / "results.sqlite").is_file()
    again = try_out(rectified.sparse, seeds=2, epochs=2, on=Processes(1), out=tmp_path)
    assert repr(again) == repr(found), "run again, with other numbers"
    assert try_out(tanh.uniform, epochs=1, on=Processes(1), out=tmp_path).measured[0].setting == DEFAULT


def test_the_tables_have_every_cell_and_the_choice(tmp_path: Path) -> None:
    errors = [1.1 * error for error in PAPER.values()]
    found = [
        tried(rectified.normal_0_05, *errors, 1.91),
        tried(rectified.normal_0_01, 60.0, None, 24.0, 1.80),
        tried(tanh.normal_0_1, 2.13),
    ]
    page = write_search(found, tmp_path)
    console = Console(width=200)
    with console.capture() as captured:
        console.print(terminal_tables(found))
    text, table = captured.get(), (tmp_path / "search" / "table.md").read_text()
    for made in (text, table, page.read_text()):
        for each in ("sgd 0.001 (17.01)", "18.71", "63.91", "1.91", "diverged", "1.10", "2.13"):
            assert each.lower() in made.lower()
        assert "its cells are a factor of 1.10 from the paper&#39;s" in made.replace("'", "&#39;")
        assert "2.13 %, where the paper" in made
    assert "| **N(0, 0.05²)** | **0** | **in [0, 1]** | **18.71** |" in table
    assert "| N(0, 0.01²) | 0 | in [0, 1] | 60.00 | diverged |" in table
    assert "after 7 epochs on the other 50,000, 1 seed" in table
    read = json.loads((tmp_path / "search" / "results.json").read_text())
    assert [each["problem"] for each in read] == [each.candidate.problem for each in found]
    assert read[0]["cells"][0] == {
        "rule": "sgd", "at": {"lr": 0.001}, "paper": 17.01, "held out": errors[0], "test": errors[0], "state": "finished"
    }  # fmt: skip
    assert read[1]["cells"][1]["held out"] is None
