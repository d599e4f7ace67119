"""Committed trials that are run again: which are chosen, and when one does not come out."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from tests.lab import small
from tests.lab.zeiler2012.made import reproduced

from steprule.lab.places import Processes
from steprule.lab.results import Outcome
from steprule.lab.zeiler2012 import Experiment, Options, Printed, Reproduced, Run
from steprule.lab.zeiler2012.checking import Checked, Sampled, check, sample

GRIDS = {"sgd": {"lr": (0.1, 100.0)}}
PART = Experiment("lines", "a title", "lines", (Run(small.named(small.line), 30, GRIDS),), Printed())


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Reproduced:
    """Of two settings, the second of which diverges."""
    return PART.run(Options(3, on=Processes(1), out=tmp_path_factory.mktemp("out")))


def altered(made: Reproduced, more: float, **versions: str) -> Reproduced:
    """Return results whose last test metrics are larger by `more`, of other versions where given."""

    def change(outcome: Outcome) -> Outcome:
        last = outcome.epochs[-1]
        return replace(outcome, epochs=(*outcome.epochs[:-1], replace(last, test=last.test + more)))

    (comparison,) = made.comparisons
    run = replace(comparison.run, versions={**comparison.run.versions, **versions})
    return Reproduced(PART, (replace(comparison, run=run, outcomes=tuple(map(change, comparison.outcomes))),))


def checked(made: Reproduced) -> list[Checked]:
    return list(check(sample([made], 100, 0), jobs=1))


def test_the_choice_is_random_and_repeatable() -> None:
    results = [reproduced("table1"), reproduced("table2")]
    chosen = sample(results, 10, choice=1)
    assert len(chosen) == len({(each.part, each.outcome.trial) for each in chosen}) == 10
    assert [each.outcome.trial for each in sample(results, 10, choice=1)] == [each.outcome.trial for each in chosen]
    assert [each.outcome.trial for each in sample(results, 10, choice=2)] != [each.outcome.trial for each in chosen]
    assert len(sample(results, 1000, choice=1)) == 3 * 27
    with pytest.raises(ValueError, match="the number of trials to check is 0"):
        sample(results, 0, choice=1)
    with pytest.raises(ValueError, match="there are no committed results"):
        sample([reproduced("table1", there=0)], 1, choice=1)


def test_here_a_trial_must_give_the_same_number(committed: Reproduced) -> None:
    same = checked(committed)
    assert len(same) == 6
    assert all(each.same and each.agrees for each in same)
    assert {each.now == math.inf for each in same} == {True, False}
    other = [each for each in checked(altered(committed, 1e-6)) if math.isfinite(each.before)]
    assert [each.agrees for each in other] == [False] * 3


def test_elsewhere_it_must_lie_where_a_further_run_would(committed: Reproduced) -> None:
    near = checked(altered(committed, 0.0, torch="1.0"))
    assert not any(each.same for each in near)
    assert all(each.agrees for each in near)
    far = [each for each in checked(altered(committed, 100.0, torch="1.0")) if math.isfinite(each.before)]
    assert [each.agrees for each in far] == [False] * 3


def test_one_committed_seed_decides_nothing_elsewhere(committed: Reproduced) -> None:
    (comparison,) = altered(committed, 0.0, torch="1.0").comparisons
    alone = replace(comparison, outcomes=comparison.outcomes[:1])
    (found,) = checked(Reproduced(PART, (alone,)))
    assert found.agrees is None


def test_a_trial_that_fails_is_no_agreement(committed: Reproduced) -> None:
    (each, *_) = sample([committed], 1, 0)
    broken: list[Sampled] = [replace(each, problem=small.named(small.failing))]
    broken[0] = replace(broken[0], outcome=replace(each.outcome, trial=replace(each.outcome.trial, seed=1)))
    (found,) = check(broken, jobs=1)
    assert (found.now, found.agrees) == (None, False)
    assert "there is no second epoch" in found.cause
