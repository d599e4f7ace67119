"""What a comparison says: each setting's score over its seeds, each rule's best setting, and how much tuning it needs.

The terminal table and the page both print from these dataclasses, so that each number is computed once.

The score of a trial is the metric of its last epoch. A setting's score is the mean over its finished seeds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from . import grids
from .results import Comparison, Metric, Outcome, Setting, Status
from .spread import Spread

__all__ = [
    "NEAR",
    "RuleSummary",
    "SettingSummary",
    "Summary",
    "is_finished",
    "order",
    "reach",
    "scale",
    "summarise",
    "worse_by",
]

NEAR = 0.10
"""A setting is near the best within this share of the best score: 10 %."""


@dataclass(frozen=True)
class SettingSummary:
    """One setting over its seeds: how many ended how, and their last epoch's metric and training loss.

    `test`, `validation` and `loss` cover the finished seeds and are None where no seed finished; `validation` is
    None as well where the problem holds nothing out. `causes` says why seeds failed, each cause once;
    `diverged_at` holds the number of the last epoch of every diverged seed; `unmeasured` counts those of them whose loss
    was finite, and whose metric alone was NaN or infinite.
    """

    setting: Setting
    seeds: int
    finished: int
    diverged: int
    failed: int
    test: Spread | None
    validation: Spread | None
    loss: Spread | None
    causes: tuple[str, ...] = ()
    diverged_at: tuple[int, ...] = ()
    unmeasured: int = 0

    @property
    def score(self) -> Spread:
        """The test metric over the finished seeds; ValueError where there are none."""
        if self.test is None:
            raise ValueError(f"{self.setting} has no finished seed")
        return self.test

    @property
    def unfinished(self) -> int:
        """Seeds that were planned and have not ended."""
        return self.seeds - self.finished - self.diverged - self.failed

    @property
    def state(self) -> Status:
        """One diverged seed makes the setting diverged, else one failed seed makes it failed.

        Otherwise it is finished as soon as one seed is: an interrupted run is judged by the seeds that it has.
        """
        if self.diverged:
            return "diverged"
        if self.failed:
            return "failed"
        return "finished" if self.finished else "unfinished"


@dataclass(frozen=True)
class RuleSummary:
    """One rule: its settings in the grid's order, the best of them, and how many come near the best.

    `best` is None where no setting is finished. `near_best` counts the settings whose mean test metric is near the
    best of any rule, `near_own_best` those near this rule's own best (see `reach`); a diverged or failed setting
    is never near. `ended` counts the settings that are not unfinished: the shares are out of these.
    `seconds` is the median wall time of an epoch over all epochs of the rule's finished trials.
    """

    rule: str
    settings: tuple[SettingSummary, ...]
    best: SettingSummary | None
    ended: int
    near_best: int
    near_own_best: int
    seconds: float | None

    @property
    def diverged(self) -> int:
        """Diverged trials, over all settings and seeds."""
        return sum(setting.diverged for setting in self.settings)

    @property
    def unmeasured(self) -> int:
        """Diverged trials whose loss was finite, over all settings and seeds."""
        return sum(setting.unmeasured for setting in self.settings)

    @property
    def failed(self) -> int:
        """Failed trials, over all settings and seeds."""
        return sum(setting.failed for setting in self.settings)

    @property
    def unfinished(self) -> int:
        """Trials that were planned and have not ended."""
        return sum(setting.unfinished for setting in self.settings)

    @property
    def trials(self) -> int:
        """Trials that were planned."""
        return sum(setting.seeds for setting in self.settings)


@dataclass(frozen=True)
class Summary:
    """All rules, best first by the mean test metric of their best settings; rules without one come last.

    `chosen_on` says which data chose each rule's best setting: the validation data where the problem holds some out,
    otherwise the test data, and then the reported number flatters.
    """

    metric: Metric
    epochs: int
    seeds: int
    chosen_on: Literal["validation", "test"]
    rules: tuple[RuleSummary, ...]

    @property
    def winner(self) -> RuleSummary | None:
        """The first rule, or None where no rule has a best setting."""
        return self.rules[0] if self.rules and self.rules[0].best is not None else None

    @property
    def best(self) -> SettingSummary:
        """The best setting of any rule; ValueError where no rule has one."""
        if self.winner is None or self.winner.best is None:
            raise ValueError("no rule has a best setting")
        return self.winner.best

    def is_best(self, rule: RuleSummary) -> bool:
        """Whether no rule has a better score, though others may have the same."""
        return rule.best is not None and rule.best.score.mean == self.best.score.mean

    @property
    def scores(self) -> tuple[float, ...]:
        """The mean test metric of every finished setting of every rule."""
        return _scores([setting for rule in self.rules for setting in rule.settings])

    def limit(self, times: float = 1.0) -> float:
        """The worst score that is near the best of any rule, or `times` as far from it (see `reach`)."""
        best = self.best.score.mean
        far = times * reach(self.metric, best, self.scores)
        return best + far if self.metric.lower_is_better else best - far

    @property
    def unfinished(self) -> int:
        """Trials that were planned and have not ended."""
        return sum(rule.unfinished for rule in self.rules)


def reach(metric: Metric, best: float, scores: Sequence[float]) -> float:
    """The distance from `best`, in the metric's unit, up to which a score is near it: 10 % of |best|.

    Two cases where a share of |best| would say nothing:

    - A percentage of which more is better, such as accuracy: 10 % of what `best` lacks to 100 %, so that an accuracy
      and the error that belongs to it count the same settings.
    - A best score at or near 0: the reach is never less than a thousandth of the median distance of `scores` (those
      of all finished settings of all rules) from `best`, so that the last digits of a 0 do not decide.
    """
    return max(NEAR * scale(metric, best), median(abs(score - best) for score in scores) / 1000)


def scale(metric: Metric, best: float) -> float:
    """What a share of `best` is taken of: |best|, and of a percentage of which more is better what it lacks to 100 %."""
    is_share = metric.unit == "%" and not metric.lower_is_better and best <= 100
    return 100 - best if is_share else abs(best)


def worse_by(metric: Metric, score: float, best: float) -> float:
    """How much worse than `best` a score is, in the metric's unit; negative where it is better."""
    return score - best if metric.lower_is_better else best - score


def summarise(comparison: Comparison) -> Summary:
    """Reduce a comparison to what its table, its sentence and its figures print.

    A setting of the grids without outcomes counts as unfinished, so that a report can be made of an interrupted run.

    Raises:
        ValueError: a finished trial has no epochs, or some finished trials have a validation metric and some not.
    """
    chosen_on = _chosen_on(comparison.outcomes)
    outcomes: dict[str, list[Outcome]] = {rule: [] for rule in comparison.grids}
    for outcome in comparison.outcomes:
        outcomes.setdefault(outcome.trial.setting.rule, []).append(outcome)
    settings = {rule: _settings(comparison, rule, own) for rule, own in outcomes.items()}
    bests = {rule: _best(own, comparison.metric, chosen_on) for rule, own in settings.items()}
    ranked = sorted(settings, key=lambda rule: order(bests[rule], "test", comparison.metric))
    scores = [score for own in settings.values() for score in _scores(own)]

    def near(rule: str, target: SettingSummary | None) -> int:
        if target is None:
            return 0
        best, limit = target.score.mean, reach(comparison.metric, target.score.mean, scores)
        gaps = [worse_by(comparison.metric, score, best) for score in _scores(settings[rule])]
        return sum(gap <= limit or math.isclose(gap, limit, rel_tol=1e-9) for gap in gaps)

    rules = tuple(
        RuleSummary(
            rule=rule,
            settings=settings[rule],
            best=bests[rule],
            ended=sum(setting.state != "unfinished" for setting in settings[rule]),
            near_best=near(rule, bests[ranked[0]]),
            near_own_best=near(rule, bests[rule]),
            seconds=_seconds(outcomes[rule]),
        )
        for rule in ranked
    )
    return Summary(comparison.metric, comparison.epochs, comparison.seeds, chosen_on, rules)


def is_finished(outcome: Outcome) -> bool:
    """Whether a trial has a score; one that ends on a NaN or an infinite metric has diverged, whatever its status."""
    if outcome.status != "finished":
        return False
    last = outcome.epochs[-1]
    return all(map(math.isfinite, (last.loss, last.test, last.validation or 0.0)))


def _chosen_on(outcomes: Iterable[Outcome]) -> Literal["validation", "test"]:
    held_out = set()
    for outcome in outcomes:
        if outcome.status == "finished":
            if not outcome.epochs:
                raise ValueError(f"{outcome.trial.setting}, seed {outcome.trial.seed}, is finished but has no epochs")
            held_out.add(outcome.epochs[-1].validation is not None)
    if len(held_out) == 2:
        raise ValueError("some finished trials have a validation metric and some have none")
    return "validation" if True in held_out else "test"


def _settings(comparison: Comparison, rule: str, outcomes: Iterable[Outcome]) -> tuple[SettingSummary, ...]:
    planned = grids.settings({rule: comparison.grids[rule]}) if rule in comparison.grids else []
    own: dict[Setting, list[Outcome]] = {setting: [] for setting in planned}
    for outcome in outcomes:
        own.setdefault(outcome.trial.setting, []).append(outcome)
    return tuple(_setting(setting, found, comparison.seeds) for setting, found in own.items())


def _setting(setting: Setting, outcomes: Sequence[Outcome], seeds: int) -> SettingSummary:
    last = [outcome.epochs[-1] for outcome in outcomes if is_finished(outcome)]
    held_out = [epoch.validation for epoch in last if epoch.validation is not None]
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    diverged = [o for o in outcomes if o.status == "diverged" or (o.status == "finished" and not is_finished(o))]
    return SettingSummary(
        setting=setting,
        seeds=max(seeds, len(outcomes)),
        finished=len(last),
        diverged=len(diverged),
        failed=len(failed),
        test=Spread.of([epoch.test for epoch in last]) if last else None,
        validation=Spread.of(held_out) if held_out else None,
        loss=Spread.of([epoch.loss for epoch in last]) if last else None,
        causes=tuple(dict.fromkeys(outcome.cause or "no cause was recorded" for outcome in failed)),
        diverged_at=tuple(outcome.epochs[-1].number for outcome in diverged if outcome.epochs),
        unmeasured=sum(not outcome.epochs[-1].diverged for outcome in diverged if outcome.epochs),
    )


def _scores(settings: Iterable[SettingSummary]) -> tuple[float, ...]:
    return tuple(setting.score.mean for setting in settings if setting.state == "finished")


def order(setting: SettingSummary | None, data: Literal["validation", "test"], metric: Metric) -> float:
    """A key that sorts settings best first by their score on `data`, and those without one last."""
    score = None if setting is None or setting.state != "finished" else getattr(setting, data)
    return math.inf if score is None else worse_by(metric, score.mean, 0.0)


def _best(
    settings: Iterable[SettingSummary], metric: Metric, data: Literal["validation", "test"]
) -> SettingSummary | None:
    finished = (setting for setting in settings if setting.state == "finished")
    return min(finished, key=lambda setting: order(setting, data, metric), default=None)


def _seconds(outcomes: Iterable[Outcome]) -> float | None:
    seconds = [epoch.seconds for outcome in outcomes if is_finished(outcome) for epoch in outcome.epochs]
    return median(seconds) if seconds else None
