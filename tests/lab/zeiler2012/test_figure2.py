"""The paper's Fig. 2: what is looked at, that a finished seed is kept, and how its claims are decided."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from torch.nn.functional import cross_entropy

import steprule.lab.zeiler2012.figure2 as figure2
import torch
from steprule.lab.problem import Problem, error_rate
from steprule.lab.results import Metric
from steprule.lab.zeiler2012.figure2 import LAYERS, Course, Figure2, Settings, run
from steprule.lab.zeiler2012.figure2_claims import claims
from steprule.report.zeiler2012.figure2 import section, terminal_table, write_figures
from torch import nn


def small_net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


def small() -> Problem:
    """A problem of 130 batches, whose first input is always 0 as a pixel at an image's edge is."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(1300, 6, generator=generator)
    inputs[:, 0] = 0
    data = inputs, inputs[:, 1:4].argmax(1)
    return Problem(
        "small", "", small_net, data, data, cross_entropy, Metric("test error", "%"), error_rate, batch_size=10
    )


def test_step_sizes_are_equation_14_without_the_gradient(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    (course,) = run(tmp_path, 1, 2, lambda *each: told.append(each), small).courses
    assert told == [(0, 0), (0, 1), (0, 2)]
    assert course.batches.tolist() == [1, 61, 121, 181, 241]
    assert course.epochs.tolist() == [1, 1, 1, 2, 2]
    assert len(course.losses) == 2
    assert 0 <= course.test_error < 60
    for layer in LAYERS:
        assert course.sizes[layer].shape == course.updates[layer].shape == (5, 10)
        assert np.isfinite(course.sizes[layer]).all()

    # Of the first layer's ten dimensions some begin at the input that is always 0: sqrt(eps) over sqrt(eps).
    assert course.without_gradient["0.weight"] > 0
    still = (course.updates["0.weight"] == 0).all(0)
    np.testing.assert_allclose(course.sizes["0.weight"][:, still], 1, rtol=1e-12)

    # The first step, by the paper's equation: sqrt(eps) / sqrt((1 - rho) g² + eps), with g = -update / size.
    size, update = course.sizes["4.weight"][0], course.updates["4.weight"][0]
    expected = np.sqrt(1e-6) / np.sqrt(0.05 * (update / size) ** 2 + 1e-6)
    np.testing.assert_allclose(size, expected, rtol=1e-9)


def test_a_finished_seed_is_kept_and_what_was_made_otherwise_is_not(tmp_path: Path) -> None:
    first = run(tmp_path, 1, 1, problem=small)
    with mock.patch.object(figure2, "_train", wraps=figure2._train) as train:
        again = run(tmp_path, 2, 1, problem=small)
        assert [call.args[2] for call in train.call_args_list] == [1]
        run(tmp_path, 2, 2, problem=small)
        assert train.call_count == 3
    for layer in LAYERS:
        np.testing.assert_array_equal(again.courses[0].sizes[layer], first.courses[0].sizes[layer])
        assert (again.courses[0].sizes[layer] != again.courses[1].sizes[layer]).any()

    (tmp_path / "seed-0.json").write_text("{")
    with pytest.raises(ValueError, match=r"seed-0\.json is no training of Fig\. 2"):
        run(tmp_path, 1, 2, problem=small)
    with pytest.raises(ValueError, match="seeds is 0; allowed is a whole number from 1"):
        run(tmp_path, 0)
    with pytest.raises(ValueError, match="epochs is 0; allowed is a whole number from 1"):
        run(tmp_path, 1, 0)


def course(seed: int, first: tuple[float, ...], last: tuple[float, ...], update: float) -> Course:
    """A training of two epochs, with the step sizes of each layer at the first and the last."""
    sizes = {name: np.array([[one] * 10, [two] * 10]) for name, one, two in zip(LAYERS, first, last, strict=True)}
    updates = {name: np.array([[1e-2, -1e-2] * 5, [update, -update] * 5]) for name in LAYERS}
    return Course(
        seed, np.array([1, 601]), np.array([1, 2]), sizes, updates, dict.fromkeys(LAYERS, 0.1), [1.0, 0.5], 2.0
    )


def test_claims_are_decided_by_their_criteria() -> None:
    as_claimed = course(0, (0.9, 0.5, 0.1), (1.0, 0.9, 0.6), 1e-4)
    not_so = course(1, (0.5, 0.9, 0.1), (1.0, 0.9, 0.4), 5e-3)
    settings = Settings(epochs=2)
    assert [each.verdict for each in claims(Figure2(settings, (as_claimed, as_claimed)))] == ["holds"] * 3
    assert [each.verdict for each in claims(Figure2(settings, (not_so,)))] == ["does not hold"] * 3
    mixed = claims(Figure2(settings, (as_claimed, not_so, as_claimed)))
    assert [each.verdict for each in mixed] == ["holds in 2 of 3 seeds"] * 3
    assert "0.767 ± 0.23, 0.633 ± 0.23, 0.1 ± 0" in mixed[0].says
    assert [len(each.differences) for each in mixed] == [2, 3, 3]


def test_the_figure_is_drawn_and_told(tmp_path: Path) -> None:
    found = Figure2(Settings(epochs=2), (course(0, (0.9, 0.5, 0.1), (1.0, 0.9, 0.6), 1e-4),))
    write_figures(found, tmp_path)
    svg = (tmp_path / "figure2.svg").read_text()
    assert "lowest weights, 784 x 500: step size" in svg
    assert svg.count('aria-roledescription="line mark"') >= 60
    assert (tmp_path / "figure2.png").read_bytes().startswith(b"\x89PNG")
    told = section(found)
    assert told.image == "fig2/figure2.svg"
    assert "Test error at the end: 2.00 %" in told.caption
    assert [each.verdict for each in told.claims] == ["holds"] * 3
    assert terminal_table(found).row_count == 3


def test_what_is_kept_is_plain_json(tmp_path: Path) -> None:
    run(tmp_path, 1, 1, problem=small)
    kept = json.loads((tmp_path / "seed-0.json").read_text())
    assert kept["settings"] == dataclasses.asdict(Settings(epochs=1))
    assert list(tmp_path.iterdir()) == [tmp_path / "seed-0.json"]
