"""Every rule by which a comparison is summed up, on comparisons whose answers are known by hand."""

from __future__ import annotations

import math
import sys

import pytest
from tests.report.comparisons import LOSS, comparison, mean_scores, outcome

from steprule.lab.results import Comparison, Metric, Setting
from steprule.lab.summary import RuleSummary, SettingSummary, summarise

ACCURACY = Metric("accuracy", "%", lower_is_better=False)


def rule_of(made: Comparison, name: str) -> RuleSummary:
    return next(rule for rule in summarise(made).rules if rule.rule == name)


def setting_of(made: Comparison, rate: float, rule: str = "sgd") -> SettingSummary:
    found = rule_of(made, rule).settings
    return next(setting for setting in found if setting.setting.hyperparameters == {"lr": rate})


class TestScore:
    def test_is_the_last_epochs_metric_and_loss(self) -> None:
        trial = outcome(Setting("sgd", {"lr": 0.1}), 0, [9.0, 1.0, 3.0], losses=[0.9, 0.1, 0.3])
        setting = setting_of(comparison([trial], {"sgd": {"lr": (0.1,)}}, epochs=3), 0.1)
        assert setting.score.mean == 3.0
        assert setting.loss is not None
        assert setting.loss.mean == 0.3

    def test_is_mean_and_sample_standard_deviation_over_seeds(self) -> None:
        score = setting_of(mean_scores({"sgd": {0.1: [2.0, 4.0, 6.0]}}), 0.1).score
        assert (score.mean, score.sd, score.low, score.high, score.seeds) == (4.0, 2.0, 2.0, 6.0, 3)

    def test_of_one_seed_has_no_deviation(self) -> None:
        score = setting_of(mean_scores({"sgd": {0.1: [2.0]}}), 0.1).score
        assert (score.mean, score.sd, score.seeds) == (2.0, None, 1)

    def test_of_numbers_whose_sum_is_beyond_all_floats_is_their_mean(self) -> None:
        most = sys.float_info.max
        score = setting_of(mean_scores({"sgd": {0.1: [most, most, most]}}), 0.1).score
        assert (score.mean, score.sd) == (most, 0.0)

    def test_of_a_setting_without_finished_seeds_is_an_error_that_names_it(self) -> None:
        with pytest.raises(ValueError, match=r"sgd\(lr=0.1\) has no finished seed"):
            _ = setting_of(mean_scores({"sgd": {0.1: "diverged", 1.0: [1.0]}}), 0.1).score


class TestChoice:
    def test_is_by_the_test_data_where_nothing_is_held_out(self) -> None:
        made = mean_scores({"sgd": {0.1: [3.0], 0.01: [2.0]}})
        assert summarise(made).chosen_on == "test"
        assert summarise(made).best.setting.hyperparameters == {"lr": 0.01}

    def test_is_by_the_validation_data_where_there_are_some_and_reports_the_test_data(self) -> None:
        trials = [
            outcome(Setting("sgd", {"lr": 0.1}), 0, [3.0], validations=[1.0]),
            outcome(Setting("sgd", {"lr": 0.01}), 0, [2.0], validations=[5.0]),
        ]
        summary = summarise(comparison(trials, {"sgd": {"lr": (0.1, 0.01)}}))
        assert summary.chosen_on == "validation"
        assert summary.best.setting.hyperparameters == {"lr": 0.1}
        assert summary.best.score.mean == 3.0

    def test_takes_the_highest_where_more_is_better(self) -> None:
        made = mean_scores({"sgd": {0.1: [90.0], 0.01: [95.0]}, "adam": {0.1: [97.0]}}, metric=ACCURACY)
        assert [rule.rule for rule in summarise(made).rules] == ["adam", "sgd"]
        assert summarise(made).best.score.mean == 97.0

    def test_of_equal_settings_takes_the_grids_first(self) -> None:
        made = mean_scores({"sgd": {0.1: [2.0], 0.01: [2.0]}, "adam": {0.1: [2.0]}})
        assert summarise(made).best.setting == Setting("sgd", {"lr": 0.1})

    def test_is_refused_where_only_some_trials_hold_data_out(self) -> None:
        trials = [
            outcome(Setting("sgd", {"lr": 0.1}), 0, [3.0], validations=[1.0]),
            outcome(Setting("sgd", {"lr": 0.01}), 0, [2.0]),
        ]
        with pytest.raises(ValueError, match="some finished trials have a validation metric and some have none"):
            summarise(comparison(trials, {"sgd": {"lr": (0.1, 0.01)}}))


class TestTrialsThatDidNotFinish:
    def test_one_diverged_seed_keeps_a_setting_from_being_best(self) -> None:
        trials = [
            outcome(Setting("sgd", {"lr": 1.0}), 0, [1.0]),
            outcome(Setting("sgd", {"lr": 1.0}), 1, [90.0, 90.0], losses=[2.0, math.nan], status="diverged"),
            outcome(Setting("sgd", {"lr": 0.1}), 0, [2.0]),
            outcome(Setting("sgd", {"lr": 0.1}), 1, [2.0]),
        ]
        made = comparison(trials, {"sgd": {"lr": (1.0, 0.1)}}, seeds=2)
        setting = setting_of(made, 1.0)
        assert (setting.state, setting.finished, setting.diverged, setting.diverged_at) == ("diverged", 1, 1, (2,))
        assert summarise(made).best.setting.hyperparameters == {"lr": 0.1}
        assert rule_of(made, "sgd").diverged == 1

    def test_one_failed_seed_does_too_and_its_cause_is_kept_once(self) -> None:
        trials = [
            outcome(Setting("sgd", {"lr": 1.0}), 0, [1.0]),
            outcome(Setting("sgd", {"lr": 1.0}), 1, [], status="failed", cause="MemoryError"),
            outcome(Setting("sgd", {"lr": 1.0}), 2, [], status="failed", cause="MemoryError"),
        ]
        made = comparison(trials, {"sgd": {"lr": (1.0,)}}, seeds=3)
        setting = setting_of(made, 1.0)
        assert (setting.state, setting.failed, setting.causes) == ("failed", 2, ("MemoryError",))
        assert rule_of(made, "sgd").best is None

    def test_a_metric_that_is_not_a_number_counts_as_diverged(self) -> None:
        setting = setting_of(mean_scores({"sgd": {1.0: [math.nan, 2.0], 0.1: [3.0, 3.0]}}), 1.0)
        assert (setting.state, setting.diverged, setting.finished) == ("diverged", 1, 1)

    def test_a_rule_without_a_finished_setting_comes_last(self) -> None:
        made = mean_scores({"adam": {1.0: "diverged", 0.1: "failed"}, "sgd": {1.0: [5.0]}})
        assert [rule.rule for rule in summarise(made).rules] == ["sgd", "adam"]
        adam = rule_of(made, "adam")
        assert (adam.best, adam.ended, adam.near_best, adam.near_own_best, adam.seconds) == (None, 2, 0, 0, None)

    def test_without_any_finished_trial_there_is_no_winner(self) -> None:
        trials = [outcome(Setting("sgd", {"lr": 1.0}), 0, [9.0], losses=[math.inf], status="diverged")]
        summary = summarise(comparison(trials, {"sgd": {"lr": (1.0,)}}))
        assert summary.winner is None
        with pytest.raises(ValueError, match="no rule has a best setting"):
            _ = summary.best

    def test_settings_of_the_grid_without_trials_are_unfinished(self) -> None:
        trials = [outcome(Setting("sgd", {"lr": 1.0}), 0, [2.0]), outcome(Setting("sgd", {"lr": 1.0}), 1, [4.0])]
        made = comparison(trials, {"sgd": {"lr": (1.0, 0.1)}, "adam": {"lr": (1.0,), "eps": (1e-8, 1e-4)}}, seeds=2)
        assert setting_of(made, 0.1).state == "unfinished"
        assert rule_of(made, "sgd").ended == 1
        assert [len(rule.settings) for rule in summarise(made).rules] == [2, 2]
        assert summarise(made).unfinished == 6

    def test_a_setting_is_judged_by_the_seeds_that_it_has(self) -> None:
        setting_one = Setting("sgd", {"lr": 1.0})
        trials = [outcome(setting_one, 0, [2.0]), outcome(setting_one, 1, [99.0], status="unfinished")]
        setting = setting_of(comparison(trials, {"sgd": {"lr": (1.0,)}}, epochs=2, seeds=3), 1.0)
        assert (setting.state, setting.score.mean, setting.score.seeds, setting.unfinished) == ("finished", 2.0, 1, 2)

    def test_a_finished_trial_without_epochs_is_an_error_that_names_it(self) -> None:
        with pytest.raises(ValueError, match=r"sgd\(lr=1\), seed 0, is finished but has no epochs"):
            summarise(comparison([outcome(Setting("sgd", {"lr": 1.0}), 0, [])], {"sgd": {"lr": (1.0,)}}))


class TestShareNearTheBest:
    def test_is_within_ten_per_cent_of_any_rules_best_and_of_the_rules_own(self) -> None:
        table = {"adadelta": {1.0: [2.0], 0.1: [2.2], 0.01: [2.21], 0.001: "diverged"}, "sgd": {1.0: [3.0], 0.1: [3.3]}}
        adadelta, sgd = summarise(mean_scores(table)).rules
        assert (adadelta.near_best, adadelta.near_own_best, adadelta.ended) == (2, 2, 4)
        assert (sgd.near_best, sgd.near_own_best, sgd.ended) == (0, 2, 2)

    def test_counts_a_setting_that_tests_better_than_the_chosen_one(self) -> None:
        trials = [
            outcome(Setting("sgd", {"lr": 0.1}), 0, [3.0], validations=[1.0]),
            outcome(Setting("sgd", {"lr": 0.01}), 0, [2.0], validations=[5.0]),
        ]
        assert rule_of(comparison(trials, {"sgd": {"lr": (0.1, 0.01)}}), "sgd").near_best == 2

    def test_is_the_same_for_an_accuracy_and_its_error(self) -> None:
        errors = {0.1: 2.0, 0.01: 2.19, 0.001: 2.3, 0.0001: 13.0}
        by_error = mean_scores({"sgd": {rate: [error] for rate, error in errors.items()}})
        by_accuracy = mean_scores({"sgd": {rate: [100 - error] for rate, error in errors.items()}}, metric=ACCURACY)
        assert rule_of(by_error, "sgd").near_best == rule_of(by_accuracy, "sgd").near_best == 2
        assert summarise(by_accuracy).limit() == pytest.approx(97.8)

    def test_is_of_the_score_itself_where_more_is_better_without_a_unit(self) -> None:
        score = Metric("R squared", lower_is_better=False)
        made = mean_scores({"sgd": {0.1: [0.9], 0.01: [0.82], 0.001: [0.8]}}, metric=score)
        assert rule_of(made, "sgd").near_best == 2
        assert summarise(made).limit() == pytest.approx(0.81)

    def test_reaches_upwards_from_a_negative_score(self) -> None:
        made = mean_scores({"sgd": {0.1: [-10.0], 0.01: [-9.0], 0.001: [-8.9]}}, metric=LOSS)
        assert rule_of(made, "sgd").near_best == 2

    def test_near_zero_reaches_a_thousandth_of_the_median_distance(self) -> None:
        table = {"sgd": {1.0: [0.0], 0.1: [1e-9], 0.01: [0.01], 0.001: [1.0], 0.0001: [2.0]}}
        made = mean_scores(table, metric=LOSS)
        assert summarise(made).limit() == pytest.approx(0.01 / 1000)
        assert rule_of(made, "sgd").near_best == 2

    def test_of_a_single_perfect_setting_is_all(self) -> None:
        assert rule_of(mean_scores({"sgd": {1.0: [0.0]}}), "sgd").near_best == 1


class TestSecondsAndGrids:
    def test_seconds_are_the_median_over_epochs_of_finished_trials(self) -> None:
        trials = [
            outcome(Setting("sgd", {"lr": 1.0}), 0, [2.0, 2.0], seconds=0.5),
            outcome(Setting("sgd", {"lr": 0.1}), 0, [2.0], seconds=0.9),
            outcome(Setting("sgd", {"lr": 0.01}), 0, [2.0] * 9, seconds=30.0, status="diverged"),
        ]
        made = comparison(trials, {"sgd": {"lr": (1.0, 0.1, 0.01)}}, epochs=2)
        assert rule_of(made, "sgd").seconds == 0.5

    def test_a_rule_without_hyperparameters_has_one_setting(self) -> None:
        made = comparison([outcome(Setting("adadelta", {}), 0, [2.0])], {"adadelta": {}})
        assert [setting.score.mean for setting in rule_of(made, "adadelta").settings] == [2.0]

    def test_a_setting_outside_the_grid_is_kept(self) -> None:
        trials = [outcome(Setting("sgd", {"lr": 1.0}), 0, [2.0]), outcome(Setting("sgd", {"lr": 7.0}), 0, [1.0])]
        assert len(rule_of(comparison(trials, {"sgd": {"lr": (1.0,)}}), "sgd").settings) == 2
