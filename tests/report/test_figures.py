"""The figures: which cells a heat map has and what stands in them, and whether colours and lines can be told apart."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import pytest
from tests.report.comparisons import comparison, mean_scores, outcome, realistic, three_hyperparameters

from steprule.lab.results import Comparison, Metric, Setting
from steprule.report import theme
from steprule.report.axes import epoch_ticks, value_scale
from steprule.report.figures import figures


class TestTheHeatMaps:
    def test_of_the_rate_holds_every_rule_that_varies_it_alone(self) -> None:
        cells = data_of(realistic(), "heat-map-lr")
        assert len(cells) == 7 * 5
        by_place = {(cell["row"], cell["column"]): cell for cell in cells}
        assert by_place["adam", "1"]["text"] == "diverged"
        assert by_place["rmsprop", "0.1"]["text"] == "diverged\n1 of 3"
        assert by_place["sgd", "0.0001"]["text"] == "failed\n1 of 3"
        assert [cell["setting"] for cell in cells if cell["chosen"]][0] == "adam, lr=0.001"

    def test_of_two_hyperparameters_stands_as_table_2(self) -> None:
        cells = data_of(realistic(), "heat-map-adadelta")
        assert {cell["row"] for cell in cells} == {"0.01", "0.0001", "1e-6", "1e-8"}
        assert {cell["column"] for cell in cells} == {"0.9", "0.95", "0.99"}

    def test_of_three_shows_the_best_over_the_third_and_says_so(self) -> None:
        made = three_hyperparameters()
        cells = data_of(made, "heat-map-adam")
        assert len(cells) == 3 * 2
        assert cells[0]["setting"] == "adam, lr=0.1, beta1=0.9, eps=1e-8"
        found = next(figure for figure in figures(made) if figure.name == "heat-map-adam")
        assert "Each cell is the best over eps (2 values)." in found.caption

    def test_of_one_hyperparameter_other_than_the_rate_is_one_row(self) -> None:
        cells = data_of(three_hyperparameters(), "heat-map-rmsprop")
        assert [(cell["row"], cell["column"]) for cell in cells] == [("rmsprop", v) for v in ("0.9", "0.95", "0.99")]

    def test_of_rules_whose_names_differ_in_case_alone_have_names_of_their_own(self) -> None:
        tried = {"adadelta": (0.9, 0.95), "Adadelta": (0.5, 0.1)}
        trials = [outcome(Setting(rule, {"rho": rho}), 0, [rho]) for rule, values in tried.items() for rho in values]
        made = comparison(trials, {rule: {"rho": values} for rule, values in tried.items()}, epochs=1, seeds=1)
        drawn = [figure.name for figure in figures(made) if figure.name.startswith("heat")]
        assert drawn == ["heat-map-adadelta", "heat-map-adadelta-2"]
        assert {cell["row"] for cell in data_of(made, drawn[0])} == {"Adadelta"}
        assert {cell["row"] for cell in data_of(made, drawn[1])} == {"adadelta"}

    def test_has_cells_as_wide_as_their_scores(self) -> None:
        rates = [1 / number for number in range(1, 21)]
        widths = []
        for score in (0.8, 0.00812, 0.000123):
            made = mean_scores({"sgd": {rate: [score] for rate in rates}}, metric=Metric("loss"))
            found = next(figure for figure in figures(made) if figure.name == "heat-map-lr")
            longest = max(len(row["text"]) for row in data_of(made, "heat-map-lr"))
            assert found.least_width >= 8 * longest * len(rates)
            widths.append(found.least_width)
        assert widths == sorted(set(widths))

    def test_shades_are_strongest_near_the_best(self) -> None:
        rates = {10.0**-i: [score] for i, score in enumerate((2.0, 2.2, 2.5, 3.0, 4.0, 8.0, 20.0, 21.0))}
        cells = data_of(mean_scores({"sgd": rates}), "heat-map-lr")
        assert [cell["shade"] for cell in cells] == [6, 6, 5, 4, 3, 2, 1, 0]


class TestTheCurves:
    def test_give_mean_and_range_of_the_finished_seeds_of_the_best_setting(self) -> None:
        best, worse = Setting("sgd", {"lr": 0.1}), Setting("sgd", {"lr": 1.0})
        trials = [outcome(best, 0, [5.0, 1.0]), outcome(best, 1, [7.0, 3.0]), outcome(worse, 0, [9.0, 9.0])]
        made = comparison(trials, {"sgd": {"lr": (1.0, 0.1)}}, epochs=2, seeds=2)
        rows = data_of(made, "test-metric")
        assert [(row["epoch"], row["mean"], row["low"], row["high"]) for row in rows] == [(1, 6, 5, 7), (2, 2, 1, 3)]

    def test_break_where_a_loss_is_infinite(self) -> None:
        made = comparison(
            [outcome(Setting("sgd", {"lr": 1.0}), 0, [5.0, 4.0], losses=[math.inf, 0.1])],
            {"sgd": {"lr": (1.0,)}},
            epochs=2,
        )
        assert [row["mean"] for row in data_of(made, "training-loss")] == [None, 0.1]

    def test_say_which_rules_have_no_curve(self) -> None:
        made = mean_scores({"sgd": {1.0: [2.0]}, "adam": {1.0: "diverged"}})
        assert figures(made)[0].caption.endswith("Not drawn, for want of a finished setting: adam.")


class TestTheAxes:
    @pytest.mark.parametrize(
        ("last", "ticks"),
        [(1, [1]), (2, [1, 2]), (6, [1, 2, 3, 4, 5, 6]), (20, [1, 5, 10, 15, 20]), (50, [1, 10, 20, 30, 40, 50])],
    )
    def test_epochs_have_round_ticks_and_both_ends(self, last: int, ticks: list[int]) -> None:
        assert epoch_ticks(last) == ticks

    def test_are_logarithmic_only_for_positive_values_far_apart(self) -> None:
        assert value_scale("loss", [0.01, 1.0], may_be_log=True).title == "loss (log scale)"
        assert value_scale("loss", [0.01, 0.02], may_be_log=True).title == "loss"
        assert value_scale("loss", [0.0, 1.0], may_be_log=True).title == "loss"
        assert value_scale("accuracy", [1.0, 99.0], may_be_log=False).title == "accuracy"

    @pytest.mark.parametrize("low", [1.0, sys.float_info.max])
    def test_end_where_floats_do(self, low: float) -> None:
        domain = value_scale("loss", [low, sys.float_info.max], may_be_log=True).scale.to_dict()["domain"]
        assert json.loads(json.dumps(domain, allow_nan=False))[-1] == sys.float_info.max

    @pytest.mark.parametrize("span", [(1.5, 15.0), (0.3, 90.0), (1e-12, 1e3), (1e-300, 1e300)])
    def test_logarithmic_ones_have_two_to_eight_ticks(self, span: tuple[float, float]) -> None:
        assert 2 <= len(value_scale("loss", span, may_be_log=True).ticks) <= 8


class TestTheLook:
    @pytest.mark.parametrize("colours", [theme.LIGHT, theme.DARK], ids=["light", "dark"])
    def test_texts_and_lines_stand_out(self, colours: Mapping[str, str]) -> None:
        paper = colours["paper"]
        assert all(contrast(colours[name], paper) >= 4.5 for name in ("ink", "muted", "accent", "warn"))
        assert all(contrast(colour, paper) >= 3 for name, colour in colours.items() if name.startswith("rule-"))
        for shade in range(theme.SHADES):
            text = colours["strong" if shade >= theme.STRONG else "ink"]
            assert contrast(text, colours[f"heat-{shade}"]) >= 4.5

    def test_the_two_sets_name_the_same_colours(self) -> None:
        assert theme.LIGHT.keys() == theme.DARK.keys()

    def test_24_rules_differ_in_two_of_colour_dash_and_symbol(self) -> None:
        looks = theme.looks([f"rule {i}" for i in range(24)], []).values()
        for one, two in combinations(looks, 2):
            assert sum(one[part] != two[part] for part in one) >= 2


def data_of(made: Comparison, name: str) -> list[dict[str, Any]]:
    found = next(figure for figure in figures(made) if figure.name == name)
    return next(iter(found.chart.to_dict()["datasets"].values()))


def contrast(one: str, two: str) -> float:
    """The ratio of luminances by WCAG 2.2, from 1 to 21."""

    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    darker, lighter = sorted((luminance(one), luminance(two)))
    return (lighter + 0.05) / (darker + 0.05)
