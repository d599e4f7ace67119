"""Trials trained as one batched model: the numbers of ordinary trials, and none harms another."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.tolerances import SHARES
from tests.lab import small

import steprule.lab.batched as batched
import torch
from steprule import rule, rules
from steprule.lab import compare
from steprule.lab.batched import Batched
from steprule.lab.grids import find_rule
from steprule.lab.problem import Problem, find_problem
from steprule.lab.results import Epoch
from steprule.lab.training import train
from steprule.lab.workers import Ended, Event, Measured, Started, Task

WITHIN = SHARES["trained as one batch"].amount

BY_GRADIENT = [name for name, each in rules.ALL.items() if not each.curvature]


@rule
def by_size(g, *, lr=0.1, batch_size):  # type: ignore[no-untyped-def]
    """Step by the mean gradient times the size of its batch."""
    return -lr * batch_size * g


def measured(events: list[Event], number: int) -> list[Epoch]:
    return [event.epoch for event in events if isinstance(event, Measured) and event.number == number]


def ended(events: list[Event]) -> dict[int, str]:
    return {event.number: event.status for event in events if isinstance(event, Ended)}


def values(name: str) -> dict[str, float]:
    needed = {"mu": 0.1, "kappa": 0.01, "phi": 0.1, "initial_rate": 0.1}
    declared = find_rule(name).hyperparameters
    return {"lr": 0.01} if "lr" in declared else {each: needed[each] for each in declared if each in needed}


def assert_as_alone(problem: str, tasks: list[Task], events: list[Event]) -> None:
    made = find_problem(problem)()
    for task in tasks:
        alone = list(train(made, find_rule(task.rule), task.hyperparameters, task.seed, task.epochs))
        found = measured(events, task.number)
        assert [epoch.number for epoch in found] == [epoch.number for epoch in alone]
        for ours, theirs in zip(found, alone, strict=True):
            assert ours.loss == pytest.approx(theirs.loss, rel=WITHIN, nan_ok=True), task
            assert ours.test == pytest.approx(theirs.test, rel=WITHIN, nan_ok=True), task
            assert (ours.validation is None) == (theirs.validation is None)


def test_every_rule_trains_as_alone_beside_all_others() -> None:
    names = [*BY_GRADIENT, f"{Path(__file__)}:by_size"]
    tasks = [
        Task(2 * number + seed, name, values(name), seed, small.EPOCHS)
        for number, name in enumerate(names)
        for seed in (0, 1)
    ]
    events = list(Batched("cpu").run(small.named(small.line), tasks))
    assert set(ended(events).values()) == {"finished"}
    assert_as_alone(small.named(small.line), tasks, events)


def test_a_net_trains_as_alone_by_several_settings() -> None:
    tasks = [
        Task(0, "sgd", {"lr": 0.1}, 0, 2),
        Task(1, "sgd", {"lr": 0.01}, 0, 2),
        Task(2, "adadelta", {"rho": 0.9, "eps": 1e-4}, 1, 2),
        Task(3, "adadelta", {"rho": 0.99, "eps": 1e-6}, 0, 2),
        Task(4, "adam", {"lr": 0.01}, 1, 2),
    ]
    assert_as_alone("digits", tasks, list(Batched("cpu").run("digits", tasks)))


def test_a_parameter_without_a_gradient_is_left_alone_as_alone() -> None:
    tasks = [
        Task(0, "adam", {"lr": 0.1}, 0, 3),
        Task(1, "momentum", {"lr": 0.1}, 1, 3),
        Task(2, "adam", {"lr": 0.3}, 1, 3),
    ]
    name = small.named(small.branching)
    assert_as_alone(name, tasks, list(Batched("cpu").run(name, tasks)))


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # which PyTorch says of attention
@pytest.mark.parametrize("problem", [small.centred, small.transforming])
def test_a_model_trains_as_alone_whatever_it_does_to_its_buffers_and_in_evaluation(
    problem: Callable[[], Problem],
) -> None:
    tasks = [Task(number, "sgd", {"lr": 0.1 / (1 + number)}, number, small.EPOCHS) for number in range(2)]
    assert_as_alone(small.named(problem), tasks, list(Batched("cpu").run(small.named(problem), tasks)))


@pytest.mark.parametrize(
    ("problem", "seed", "parameter"), [(small.of_the_seed, 1, "0.weight"), (small.padded, 0, "words.weight")]
)
def test_a_model_whose_gradients_are_others_than_alone_is_told(
    problem: Callable[[], Problem], seed: int, parameter: str
) -> None:
    tasks = [Task(number, "sgd", {"lr": 0.1}, number, small.EPOCHS) for number in range(2)]
    found = [event for event in Batched("cpu").run(small.named(problem), tasks) if isinstance(event, Ended)]
    assert [event.status for event in found] == ["failed", "failed"]
    assert f"with seed {seed}, the gradient of {parameter} in the batched model is not that of" in found[0].cause


def test_what_has_diverged_is_told_and_harms_no_other() -> None:
    kept = [Task(1, "sgd", {"lr": 0.1}, 0, 4), Task(3, "adagrad", {"lr": 0.1}, 1, 4)]
    # All of momentum's trials, and one of SGD's.
    lost = [Task(0, "momentum", {"lr": 1e30}, 0, 4), Task(2, "sgd", {"lr": 1e30}, 1, 4)]
    events = list(Batched("cpu").run(small.named(small.line), [lost[0], kept[0], lost[1], kept[1]]))
    alone = list(Batched("cpu").run(small.named(small.line), kept))
    assert ended(events) == {0: "diverged", 1: "finished", 2: "diverged", 3: "finished"}
    for task in lost:
        (only,) = measured(events, task.number)
        assert not math.isfinite(only.loss)
    for task in kept:
        assert [(e.loss, e.test) for e in measured(events, task.number)] == [
            (e.loss, e.test) for e in measured(alone, task.number)
        ]


def test_a_frozen_trial_steps_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    stacks = []
    made = batched.Stack
    monkeypatch.setattr(batched, "Stack", lambda *given: stacks.append(made(*given)) or stacks[-1])
    # A loss that overflows, of a trial whose parameters are still numbers.
    tasks = [Task(0, "sgd", {"lr": 1e18}, 0, 3), Task(1, "sgd", {"lr": 0.1}, 0, 3)]
    events = Batched("cpu").run(small.named(small.line), tasks)
    at_the_end: list[torch.Tensor] = []
    for event in events:
        if isinstance(event, Measured) and event.number == 0:
            at_the_end = [each.detach().clone() for each in stacks[0]._slices[0]]
    (stack,) = stacks
    for before, after in zip(at_the_end, stack._slices[0], strict=True):
        torch.testing.assert_close(before, after.detach(), rtol=0, atol=0, equal_nan=True)
    assert all(each.grad is None for each in stack._slices[0])


def test_no_more_trials_than_the_memory_holds_are_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [Task(number, "adadelta", {}, number, 1) for number in range(5)]
    each = batched.bytes_per_trial(small.line(), tasks)
    # A parameter of 4 elements, its gradient twice and two slots, in float32, and more.
    assert each > 5 * 4 * 4
    sizes: list[int] = []
    made = batched.Stack
    monkeypatch.setattr(
        batched, "Stack", lambda problem, some, device: sizes.append(len(some)) or made(problem, some, device)
    )
    events = list(Batched("cpu", memory=2 * each).run(small.named(small.line), tasks))
    assert sizes == [2, 2, 1]
    assert len(ended(events)) == 5
    # A batch ends as a whole before the next begins.
    kinds = [(type(event), event.number) for event in events]
    assert kinds.index((Started, 2)) > kinds.index((Ended, 1))
    sizes.clear()
    list(Batched("cpu", memory=1).run(small.named(small.line), tasks[:2]))
    assert sizes == [1, 1]


def test_a_comparison_on_a_device_is_kept_and_is_not_mistaken_for_another(tmp_path: Path) -> None:
    def again(**where: Any) -> Any:
        begun: list[int] = []

        class Counts:
            def begin(self, problem: Any, trials: int, *rest: int) -> None:
                begun.append(trials)

            def started(self, trial: Any) -> None: ...
            def measured(self, trial: Any, epoch: Any) -> None: ...
            def ended(self, outcome: Any) -> None: ...

        usual: Any = {
            "rules": ["sgd", "adadelta"],
            "rates": [0.1, 100.0],
            "seeds": 2,
            "grid": {"adadelta": {"rho": [0.9]}},
        }
        made = compare(small.named(small.line), epochs=40, out=tmp_path, progress=Counts(), **usual, **where)
        return begun[0], made

    first, made = again(on=Batched("cpu"))
    second, found = again(on=Batched("cpu"))
    assert (first, second) == (6, 0)
    assert repr(found.outcomes) == repr(made.outcomes)
    assert [outcome.status for outcome in made.outcomes] == ["finished", "diverged", "finished"] * 2
    assert made.run.machine["device"].startswith("cpu")
    assert again(jobs=1)[0] == 6


@pytest.mark.parametrize("name", sorted(set(rules.ALL) - set(BY_GRADIENT)))
def test_rules_that_need_curvature_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=f"{name} takes (h|g2), which no batched model supplies; allowed with a device are"
    ):
        compare(small.named(small.line), rules=[name], on=Batched("cpu"), out=tmp_path)
    assert not (tmp_path / "results.sqlite").exists()


def test_a_problem_with_a_trainer_of_its_own_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="is trained in a way of its own, which batched training does not follow; allowed are"
    ):
        compare("digits@2", rules=["sgd"], on=Batched("cpu"), out=tmp_path)
    assert not (tmp_path / "results.sqlite").exists()


def test_a_failure_is_told_of_each_trial_of_the_batch() -> None:
    tasks = [Task(0, "sgd", {"lr": 0.1}, 0, 1), Task(1, "sgd", {"lr": -1.0}, 0, 1)]
    events = list(Batched("cpu").run(small.named(small.line), tasks))
    assert ended(events) == {0: "failed", 1: "failed"}
    cause = "in a batch of 2: ValueError: lr is -1.0; allowed is a number in [0, inf)"
    assert events[-1] == Ended(1, "failed", cause)


def test_a_loss_that_raises_is_told_of_each_trial() -> None:
    tasks = [Task(number, "sgd", {"lr": 0.1}, number, 1) for number in range(2)]
    events = list(Batched("cpu").run(small.named(small.always_failing), tasks))
    assert ended(events) == {0: "failed", 1: "failed"}


def test_a_problem_that_cannot_be_made_is_told() -> None:
    with pytest.raises(RuntimeError, match="could not be made: LookupError: there are no data here .*small.py, line"):
        list(Batched("cpu").run(small.named(small.unmakeable), [Task(0, "sgd", {"lr": 0.1}, 0, 1)]))


def test_the_callers_random_numbers_are_left_alone() -> None:
    before = torch.get_rng_state()
    list(Batched("cpu").run(small.named(small.line), [Task(0, "sgd", {"lr": 0.1}, 0, 1)]))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU that PyTorch can use")
def test_a_gpu_trains_as_the_processor() -> None:
    tasks = [
        Task(number, name, values(name), 0, 2) for number, name in enumerate(("sgd", "adagrad", "adadelta", "adam"))
    ]
    events = list(Batched("cuda").run(small.named(small.line), tasks))
    assert_as_alone(small.named(small.line), tasks, events)
