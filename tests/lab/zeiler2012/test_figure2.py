"""The paper's Fig. 2: what is looked at, that a finished seed is kept, and how its claims are decided."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from rich.console import Console
from tests.lab.zeiler2012.made import reproduced
from torch.nn.functional import cross_entropy

import steprule.lab.zeiler2012.figure2 as figure2
import torch
from steprule.lab.display import Display
from steprule.lab.problem import Problem, error_rate
from steprule.lab.results import Epoch, Metric, Setting
from steprule.lab.zeiler2012 import Reproduced, published
from steprule.lab.zeiler2012.claims import judged
from steprule.lab.zeiler2012.figure2 import LAYERS, Course, Figure2, Settings, Trainings
from steprule.lab.zeiler2012.parts import Options, Work
from steprule.lab.zeiler2012.reproduction import parts
from steprule.report.zeiler2012.page import write_reproduction
from steprule.report.zeiler2012.sections import section
from steprule.report.zeiler2012.table import as_text
from torch import nn


def small_net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()


def small() -> Problem:
    """A problem of 130 batches, whose first input is always 0 as a pixel at an image's edge is."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(1300, 6, generator=generator, dtype=torch.float64)
    inputs[:, 0] = 0
    data = inputs, inputs[:, 1:4].argmax(1)
    return Problem(
        "small", "", small_net, data, data, cross_entropy, Metric("test error", "%"), error_rate, batch_size=10
    )


SMALL = Figure2(small)


def options(folder: Path, seeds: int, epochs: int) -> Options:
    return Options(seeds, epochs, out=folder)


def test_step_sizes_are_equation_14_without_the_gradient(tmp_path: Path) -> None:
    console = Console(record=True)
    with Display(console) as display:
        (course,) = SMALL.run(options(tmp_path, 1, 2), display).courses
    assert "small: 1 trial of 2 epochs in 1 process" in console.export_text()
    assert course.batches.tolist() == [1, 61, 121, 181, 241]
    assert course.epochs.tolist() == [1, 1, 1, 2, 2]
    assert [each.number for each in course.measured] == [1, 2]
    assert 0 <= course.measured[-1].test < 60
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
    work = Work(f"{__name__}:small", Setting("adadelta", {"eps": 1e-6, "rho": 0.95}), 1)
    assert list(SMALL.work(options(tmp_path, 2, 1))) == [work, work]
    first = SMALL.run(options(tmp_path, 1, 1))
    assert list(SMALL.work(options(tmp_path, 2, 1))) == [work]
    assert list(SMALL.work(dataclasses.replace(options(tmp_path, 2, 1), fresh=True))) == [work, work]
    unfinished = SMALL.run(dataclasses.replace(options(tmp_path, 2, 1), train=False))
    assert unfinished.missing == "1 of 2 trainings are not finished"
    with mock.patch.object(figure2, "_train", wraps=figure2._train) as train:
        again = SMALL.run(options(tmp_path, 2, 1))
        assert [call.args[2] for call in train.call_args_list] == [1]
        SMALL.run(options(tmp_path, 2, 2))
        assert train.call_count == 3
        # What another number of epochs has trained is kept beside it.
        SMALL.run(options(tmp_path, 2, 1))
        assert train.call_count == 3
    assert not again.missing
    for layer in LAYERS:
        np.testing.assert_allclose(again.courses[0].sizes[layer], first.courses[0].sizes[layer], rtol=1e-5)
        assert (again.courses[0].sizes[layer] != again.courses[1].sizes[layer]).any()

    files = {file: file.read_text() for file in (tmp_path / "fig2").glob("seed-0-*.json")}
    for broken in (lambda _: "{", lambda text: json.dumps(json.loads(text) | {"sizes": 1})):
        for file, text in files.items():
            file.write_text(broken(text))
        with pytest.raises(ValueError, match=r"seed-0-\w+\.json is no training of Fig\. 2"):
            SMALL.run(options(tmp_path, 1, 2))
    with pytest.raises(ValueError, match="seeds is 0; allowed is a whole number from 1"):
        SMALL.run(options(tmp_path, 0, 1))
    with pytest.raises(ValueError, match="epochs is 0; allowed is a whole number from 1"):
        SMALL.run(options(tmp_path, 1, 0))


def course(seed: int, first: tuple[float, ...], last: tuple[float, ...], update: float) -> Course:
    """A training of 25 epochs that was looked at in three of them, with the step sizes of each layer at first and last."""
    sizes = {
        name: np.array([[one] * 10, [0.3] * 10, [two] * 10]) for name, one, two in zip(LAYERS, first, last, strict=True)
    }
    updates = {name: np.array([[1e-2, -1e-2] * 5, [1e-3] * 10, [update, -update] * 5]) for name in LAYERS}
    measured = tuple(Epoch(number, 0.5, 2.0, None, 1.0) for number in range(1, 26))
    facts = {"processor": "a", "system": "Linux 1"}
    without = dict.fromkeys(LAYERS, 0.1)
    return Course(
        seed, np.array([1, 7201, 14401]), np.array([1, 13, 25]), sizes, updates, without, measured, facts, {}, ""
    )


def shifted(seed: int) -> Course:
    """One as the paper claims; seeds differ a little."""
    return course(seed, (0.9 + seed / 100, 0.5, 0.1), (1.0, 0.9 + seed / 100, 0.6), 1e-4)


def trainings(*courses: Course) -> Trainings:
    return Trainings(Figure2(), Settings(), len(courses), courses)


def test_claims_are_decided_by_their_criteria() -> None:
    not_so = [course(seed, (0.5, 0.9 + seed / 100, 0.1), (1.0, 0.9, 0.4), 5e-3) for seed in range(3)]

    def verdicts(*courses: Course) -> list[str]:
        return [each.verdict for each in judged([trainings(*courses)])]

    assert verdicts(*map(shifted, range(3))) == ["holds"] * 3
    assert verdicts(*not_so) == ["does not hold"] * 3
    assert verdicts(shifted(0), not_so[1], shifted(2)) == ["within noise"] * 3
    assert verdicts(shifted(0)) == ["one seed"] * 3
    assert verdicts() == ["not run"] * 3
    others = Trainings(Figure2(), Settings(epochs=2), 2, (shifted(0), shifted(1)))
    assert [each.verdict for each in judged([others])] == ["not run"] * 3
    first, *_ = judged([trainings(shifted(0), not_so[1], shifted(2))])
    assert first.evidence[0].says == "medians, the lowest layer first: 0.773 ± 0.24, 0.637 ± 0.24, 0.1 ± 0"
    assert [len(each.evidence[0].differences) for each in judged([trainings(shifted(0))])] == [2, 3, 3]


def test_the_first_claim_tells_what_is_left_without_the_limits_of_step_sizes() -> None:
    def still(seed: int) -> Course:
        """Nine of the lowest layer's ten dimensions have no gradient, and the rest has a step size of 0.2."""
        found = shifted(seed)
        sizes, updates = (dict(each) | {LAYERS[0]: each[LAYERS[0]].copy()} for each in (found.sizes, found.updates))
        sizes[LAYERS[0]][0, 0], updates[LAYERS[0]][0, 1:] = 0.2, 0.0
        return dataclasses.replace(found, sizes=sizes, updates=updates)

    first, *_ = judged([trainings(*map(still, range(3)))])
    assert first.verdict == "holds"
    assert [each.says.split(": ")[1] for each in first.evidence] == [
        "0.91 ± 0.01, 0.5 ± 0, 0.1 ± 0",
        "0.2 ± 0, 0.5 ± 0, 0.1 ± 0",
    ]


def test_a_seed_that_diverged_does_not_bear_out_what_it_has_not_reached() -> None:
    whole = shifted(1)
    sizes, updates = ({name: each[:2] for name, each in of.items()} for of in (whole.sizes, whole.updates))
    lost = dataclasses.replace(
        whole,
        batches=whole.batches[:2],
        epochs=whole.epochs[:2],
        sizes=sizes,
        updates=updates,
        measured=(*whole.measured[:13], Epoch(14, math.nan, 90.0, None, 1.0)),
    )
    first, *others = judged([trainings(shifted(0), lost, shifted(2))])
    assert first.verdict == "holds"
    assert [each.verdict for each in others] == ["within noise"] * 2
    assert "1 ± 0 (1 of 3 without)" in others[0].evidence[0].says


def test_results_are_committed_as_a_small_file_and_read_again(tmp_path: Path) -> None:
    found = trainings(*map(shifted, range(3)))
    path = tmp_path / "results.json"
    path.write_text(published.as_text([found]), encoding="utf-8")
    assert "Linux" not in path.read_text()
    (again,) = published.read(path)
    assert isinstance(again, Trainings)
    assert [len(each.batches) for each in again.courses] == [3, 2, 2]
    assert [each.measured for each in again.courses] == [each.measured for each in found.courses]
    assert judged([again]) == judged([found])
    assert parts()["fig2"] == found.part


def test_parts_take_the_place_of_the_committed_ones(tmp_path: Path) -> None:
    committed, new = tmp_path / "results.json", tmp_path / "new.json"
    new.write_text(published.as_text([trainings(shifted(0)), reproduced("tanh", seeds=3)]), encoding="utf-8")
    published.take(new, committed)
    assert [each.part.name for each in published.read(committed)] == ["tanh", "fig2"]
    committed.write_text(published.as_text([reproduced("tanh", seeds=2), reproduced("fig1", seeds=1)]), "utf-8")
    published.take(new, committed)
    fig1, tanh, fig2 = published.read(committed)
    assert [each.part.name for each in (fig1, tanh, fig2)] == ["fig1", "tanh", "fig2"]
    assert isinstance(tanh, Reproduced)
    assert tanh.comparisons[0].seeds == 3


def test_the_figure_is_drawn_and_told(tmp_path: Path) -> None:
    found = trainings(shifted(0), shifted(1))
    page = write_reproduction([found], tmp_path).read_text()
    svg = (tmp_path / "figures" / "fig2.svg").read_text()
    assert "lowest weights, 784 x 500: step size" in svg
    assert svg.count('aria-roledescription="line mark"') >= 60
    assert 'id="chart-fig2"' in page
    text = " ".join(as_text([found]).split())
    assert "Test error after 25 epochs in float64: 2.00 ± 0.00 %; adadelta(eps=1e-06, rho=0.95)." in text
    assert "Near the end step sizes converge to 1" in text
    empty = as_text([trainings()])
    assert "Fig. 2" in empty


@pytest.mark.parametrize(("epochs", "given"), [(25, ""), (2, " --epochs 2")])
def test_its_command_makes_it_again(epochs: int, given: str) -> None:
    found = section(Trainings(Figure2(), Settings(epochs=epochs), 2, (shifted(0), shifted(1))))
    assert dict(found.facts)["Command"] == [f"steprule reproduce zeiler2012 fig2 --seeds 2{given}"]


def test_what_diverged_is_told_and_is_not_in_the_mean() -> None:
    lost = dataclasses.replace(
        shifted(1), measured=(Epoch(1, 0.5, 4.0, None, 1.0), Epoch(2, math.nan, 90.0, None, 1.0))
    )
    text = " ".join(as_text([trainings(shifted(0), lost)]).split())
    assert "Test error after 25 epochs in float64: 2.00 %;" in text
    assert "Seed 1 diverged in epoch 2." in text
    assert "Test error after" not in " ".join(as_text([trainings(lost)]).split())


def test_what_is_kept_is_plain_json(tmp_path: Path) -> None:
    SMALL.run(options(tmp_path, 1, 1))
    (file,) = (tmp_path / "fig2").iterdir()
    kept = json.loads(file.read_text())
    assert kept["settings"] == dataclasses.asdict(Settings(epochs=1))
