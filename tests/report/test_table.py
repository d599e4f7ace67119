"""The table in the terminal, and the words and numbers that it shares with the page."""

from __future__ import annotations

import math
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console
from tests.report.comparisons import all_diverged, comparison, interrupted, mean_scores, realistic

from steprule.lab.results import Comparison, Metric
from steprule.lab.summary import summarise
from steprule.report import words
from steprule.report.contents import facts, failures, rule_rows
from steprule.report.table import terminal_table

FLATTERS = "chosen on the test data, as in the paper's tables, so it flatters"


class TestTheWords:
    @pytest.mark.parametrize(
        ("made", "sentence"),
        [
            (
                mean_scores(
                    {"adadelta": {1.0: [1.8, 1.9], 0.1: [1.9, 1.9]}, "sgd": {1.0: [2.0, 2.4], 0.1: [9.0, 9.0]}}
                ),
                """adadelta reached the lowest test error, 1.85 ± 0.07 % (lr=1; 2 seeds); sgd came next with 2.20 ± 0.28 %;
                adadelta needed the least tuning, with 2 of 2 settings near the best.""",
            ),
            (
                mean_scores({"adam": {1.0: [1.8, 2.0]}, "sgd": {1.0: [1.9, 2.0]}}),
                """adam reached the lowest test error, 1.90 ± 0.14 % (lr=1; 2 seeds); sgd came next with 1.95 ± 0.07 %,
                less than a standard deviation away.""",
            ),
            (
                mean_scores({"adam": {1.0: [2.0]}, "sgd": {1.0: [2.0]}, "momentum": {1.0: [2.0]}}),
                "adam reached the lowest test error, 2.00 % (lr=1; 1 seed); sgd and momentum reached the same.",
            ),
            (
                mean_scores({"adam": {1.0: [0.2431]}}, metric=Metric("loss")),
                "adam reached a loss of 0.243 (lr=1; 1 seed).",
            ),
            (
                mean_scores({"adam": {1.0: [98.0]}, "sgd": {1.0: "diverged"}}, metric=Metric("accuracy", "%", False)),
                "adam reached the highest accuracy, 98.00 % (lr=1; 1 seed); no other rule has a result.",
            ),
            (all_diverged(), "Every setting of every rule diverged or failed."),
            (comparison([], {"sgd": {"lr": (1.0,)}}), "No trial has ended yet."),
        ],
    )
    def test_opens_with_one_sentence_computed_from_the_numbers(self, made: Comparison, sentence: str) -> None:
        assert words.verdict(summarise(made)).split() == sentence.split()

    @pytest.mark.parametrize(
        ("value", "digits", "text"),
        [(1.834, 2, "1.83"), (-0.5, 2, "−0.50"), (0.0, 2, "0.00"), (0.0004, 2, "4.00e-4"), (123456.0, 1, "1.23e5")]
        + [(7873.163, 5, "7873.2"), (-31.35597, 5, "−31.356"), (99999.7, 2, "100000"), (0.00817, 5, "0.00817")],
    )
    def test_a_number_neither_rounds_to_nothing_nor_runs_on(self, value: float, digits: int, text: str) -> None:
        assert words.number(value, digits) == text

    @pytest.mark.parametrize(
        ("value", "text"), [(1e-6, "1e-6"), (0.95, "0.95"), (0.99999, "0.99999"), (10**-2.5, "0.00316"), (1.0, "1")]
    )
    def test_hyperparameters_read_as_in_the_papers(self, value: float, text: str) -> None:
        assert words.hyperparameter(value) == text

    def test_labels_of_different_values_differ(self) -> None:
        assert len(set(words.labels([1 / 3, 1 / 3 + 1e-9]).values())) == 2

    def test_nearness_is_said_as_it_is_measured(self) -> None:
        accuracy = mean_scores({"sgd": {1.0: [98.0], 0.1: [90.0]}}, metric=Metric("accuracy", "%", False))
        assert "97.80 %, which is within 10 % of what the best score" in plain(words.nearness(summarise(accuracy)))
        zero = mean_scores({"sgd": {1.0: [0.0], 0.1: [4.0]}}, metric=Metric("loss"))
        assert "within a thousandth of the median distance" in plain(words.nearness(summarise(zero)))

    def test_the_choice_is_named(self) -> None:
        assert words.choice(summarise(mean_scores({"sgd": {1.0: [2.0], 0.1: [3.0]}}))) == FLATTERS
        assert words.choice(summarise(mean_scores({"sgd": {1.0: [2.0]}}))) == "the only one tried"


class TestInTheTerminal:
    def shown(self, made: Comparison, width: int = 80) -> str:
        console = Console(width=width, record=True, file=StringIO(), color_system=None)
        console.print(terminal_table(made))
        return console.export_text()

    def test_it_fits_eighty_columns_and_marks_the_best_row_without_colour(self) -> None:
        text = self.shown(realistic())
        lines = text.splitlines()
        assert max(map(len, lines)) <= 80
        assert [line for line in lines if line.startswith("* ") and "best" not in line] == [
            next(line for line in lines if line.startswith("* adam"))
        ]
        assert "rmsprop_nesterov" in text
        assert FLATTERS in " ".join(text.split())

    def test_rules_that_reached_the_same_are_all_marked(self) -> None:
        made = mean_scores({"adam": {1.0: [2.0]}, "sgd": {1.0: [2.0]}, "momentum": {1.0: [3.0]}})
        starred = [
            line.split()[1] for line in self.shown(made).splitlines() if line.startswith("* ") and "best" not in line
        ]
        assert starred == ["adam", "sgd"]
        assert [row["is_best"] for row in rule_rows(summarise(made), {})] == [True, True, False]

    def test_its_title_is_bold(self) -> None:
        file = StringIO()
        Console(file=file, force_terminal=True, color_system="standard").print(terminal_table(realistic()))
        assert file.getvalue().splitlines()[0].startswith("\x1b[1m")

    def test_names_are_not_markup(self) -> None:
        made = mean_scores({"[red]x[/red]": {1.0: [2.0]}}, metric=Metric("[bold]error", "%"))
        assert "[red]x[/red]" in self.shown(made)
        assert "[bold]error" in " ".join(self.shown(made, 120).split())

    def test_a_metric_that_is_no_number_is_told_from_a_loss_that_is_none(self) -> None:
        made = mean_scores({"adam": {1.0: [math.nan]}, "sgd": {1.0: [math.inf]}, "momentum": {1.0: "diverged"}})
        said = "2 trials with a finite loss, and a metric that is NaN or infinite."
        assert f"Among the diverged are {said}" in " ".join(self.shown(made).split())
        assert [plain(each["cause"]) for each in failures(summarise(made))] == [
            "Diverged in epoch 1: 1 trial with a finite loss, and a metric that is NaN or infinite",
            "Diverged in epoch 1: 1 trial with a finite loss, and a metric that is NaN or infinite",
            "Diverged in epoch 1",
        ]
        assert "Among" not in self.shown(all_diverged())

    def test_no_column_is_lost_where_every_name_is_long(self) -> None:
        values = {1e-4: [1.23e-12, 1.41e-12], 1e-6: [1.31e-12, 1.5e-12]}
        made = mean_scores(
            dict.fromkeys(("adadelta_with_decoupled_weight_decay", "sgd"), values),
            metric=Metric("mean absolute error on the test set", "dB"),
            name="weight_of_the_second_term",
        )
        lines = self.shown(replace(made, problem="a_problem_of_a_long_name_" * 4)).splitlines()
        assert max(map(len, lines)) <= 80
        assert any(line.rstrip().endswith("diverged") for line in lines)
        assert "a_problem_of_a_long_name_" * 4 in "".join(line.strip() for line in lines)

    def test_an_interrupted_run_says_so(self) -> None:
        assert "The run is not complete: 71 of 141 trials have not ended." in " ".join(
            self.shown(interrupted()).split()
        )


def plain(text: str) -> str:
    return text.replace(words.NO_BREAK_SPACE, " ")


@pytest.mark.parametrize(
    ("value", "epoch", "whole"),
    [(0.0123, "12 ms", "0.0 s"), (0.0997, "0.10 s", "0.1 s"), (0.41, "0.41 s", "0.4 s"), (59.7, "60 s", "1 min 0 s")],
)
def test_times_are_told_in_the_unit_that_suits_them(value: float, epoch: str, whole: str) -> None:
    assert (plain(words.seconds(value)), plain(words.duration(value))) == (epoch, whole)


def test_a_duration_tells_of_what_it_leaves_out() -> None:
    made = mean_scores({"adam": {1.0: [2.0, 3.0]}})
    assert dict(facts(made, summarise(made)))["Duration"] == ["1 h 13 min"]
    later = replace(made, run=replace(made.run, taken_over=2))
    assert dict(facts(later, summarise(later)))["Duration"] == ["1 h 13 min; 2 trials had been finished before"]
