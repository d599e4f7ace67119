"""The speech problem: its inputs beside frames stacked one by one, its nets, and a comparison on a folder of a user's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.lab.speech.tones import write_corpus

import torch
from steprule import rules
from steprule.lab import compare
from steprule.lab.problem import Problem, find_problem, with_corpus
from steprule.lab.problems.speech import corpus_data
from steprule.lab.speech.stacking import BEFORE, STACKED, Stack, padded
from steprule.lab.training import train
from torch import nn


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "speech", speakers=4, takes=3)


@pytest.fixture(autouse=True)
def _cache(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPRULE_CACHE", str(root.parent / "cache"))


def made(name: str, root: Path) -> Problem:
    return find_problem(with_corpus(name, root))()


def stacked(utterance: np.ndarray) -> np.ndarray:
    places = np.arange(len(utterance))[:, None] + np.arange(STACKED) - BEFORE
    return utterance[places.clip(0, len(utterance) - 1)].reshape(len(utterance), -1)


def test_stacks_are_the_frames_around_each_and_stay_in_their_utterance() -> None:
    random = np.random.default_rng(0)
    utterances = [random.standard_normal((frames, 5)).astype(np.float32) for frames in (40, 1, 13, 30)]
    rows, firsts = padded(utterances)
    stack = Stack(rows)
    for utterance, first in zip(utterances, firsts, strict=True):
        np.testing.assert_array_equal(stack(first).numpy(), stacked(utterance))
    assert not list(stack.state_dict()), "a checkpoint would hold the corpus"


@pytest.mark.parametrize(
    ("name", "units", "hidden"),
    [
        ("speech", 256, nn.ReLU),
        ("speech_logistic", 256, nn.Sigmoid),
        ("speech_full", 2560, nn.ReLU),
        ("speech_full_logistic", 2560, nn.Sigmoid),
    ],
)
def test_the_nets_have_the_papers_four_hidden_layers(name: str, units: int, hidden: type, root: Path) -> None:
    problem = made(name, root)
    senones = 3 + 3 * 4
    assert f"1040-{units}-{units}-{units}-{units}-{senones} units" in problem.description
    net = problem.model(0)
    layers = [type(each) for each in net]  # type: ignore[attr-defined]
    assert layers == [Stack, *[nn.Linear, hidden] * 4, nn.Linear]
    weights = [each.weight for each in net if isinstance(each, nn.Linear)]  # type: ignore[attr-defined]
    assert [tuple(each.shape) for each in weights] == [(units, 1040), *[(units, units)] * 3, (senones, units)]
    assert torch.equal(weights[1], next(w for i, w in enumerate(problem.model(0).parameters()) if i == 2))
    assert problem.name == name and problem.metric.unit == "%" and not problem.metric.lower_is_better


def test_each_speaker_is_in_one_part_and_every_frame_in_one_place(root: Path) -> None:
    problem, data = made("speech", root), corpus_data(str(root.resolve()))
    assert problem.validation is not None
    parts = {"train": problem.train, "validation": problem.validation, "test": problem.test}
    for name, (inputs, targets) in parts.items():
        numbers = data.of(getattr(data.split, name))
        assert {data.recordings[each].speaker for each in numbers} == set(getattr(data.split, name))
        expected = np.concatenate([stacked(data.energies[each]) for each in numbers])
        net = problem.model(0)
        np.testing.assert_array_equal(net[0](inputs).numpy(), expected)  # type: ignore[index]
        np.testing.assert_array_equal(targets.numpy(), np.concatenate([data.states(each) for each in numbers]))
    assert sum(len(inputs) for inputs, _ in parts.values()) == sum(map(len, data.energies))


@pytest.mark.parametrize("name", ["speech", "speech_logistic"])
def test_adadelta_learns_the_frames_of_a_speaker_that_it_has_not_heard(name: str, root: Path) -> None:
    *_, last = train(made(name, root), rules.adadelta, {}, 0, 6)
    assert last.test > 60


@pytest.mark.parametrize("rule", [rules.vsgd, rules.diagonal_newton], ids=str)
def test_rules_that_use_curvature_train_it_too(rule: rules.Rule, root: Path) -> None:
    settings = {"mu": 100.0} if rule is rules.diagonal_newton else {}
    (epoch,) = train(made("speech", root), rule, settings, 0, 1)
    assert np.isfinite(epoch.loss)


def test_a_folder_of_the_users_is_compared_on(root: Path, tmp_path: Path) -> None:
    done = compare(
        with_corpus("speech", root),
        rules=["adadelta"],
        grid={"adadelta": {"eps": [1e-6]}},
        epochs=1,
        seeds=1,
        jobs=1,
        out=tmp_path,
    )
    assert [each.status for each in done.outcomes] == ["finished"]
    assert done.metric.name == "frame accuracy" and done.outcomes[0].epochs[0].validation is not None


def test_a_corpus_is_for_speech_alone(root: Path) -> None:
    allowed = "allowed are speech, speech_logistic, speech_full, speech_full_logistic"
    for name in ("digits", "my.py:problem"):
        with pytest.raises(ValueError, match=f"is given with the problem {name}; {allowed}"):
            with_corpus(name, root)
