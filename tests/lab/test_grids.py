"""Which settings are tried, and what is said of those that cannot be."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import steprule.torch
import torch
from steprule import NonNegative, rule, rules
from steprule.lab import Setting
from steprule.lab.grids import find_rule, grids, parse_grid, parse_numbers, settings

RATES = (1.0, 0.1)


@rule
def rateless(g, *, eps: float = 1e-6):
    return -g


@rule
def choosy(g, *, lr: NonNegative, eps: float):
    return -lr * g


class TestFindingRules:
    @pytest.mark.parametrize("name", rules.ALL)
    def test_built_in_rules_go_by_their_names(self, name: str) -> None:
        assert find_rule(name) is rules.ALL[name]

    def test_a_users_rule_goes_by_its_module(self) -> None:
        assert find_rule("steprule.rules.adam:adam") is rules.adam

    @pytest.mark.parametrize("name", ["Adam", "", "adamw", "adam "])
    def test_an_unknown_name_lists_those_that_are_known(self, name: str) -> None:
        with pytest.raises(ValueError) as caught:
            find_rule(name)
        assert str(caught.value) == (
            f"there is no rule {name!r}; allowed are {', '.join(rules.ALL)}, and your own as package.module:name or "
            "path/to/file.py:name"
        )

    def test_what_is_no_rule_is_told(self) -> None:
        with pytest.raises(
            TypeError, match=r"^json:dumps is of type function; allowed is a rule, a function under @rule$"
        ):
            find_rule("json:dumps")


class TestTheUsualGrids:
    def test_a_rule_with_a_rate_is_tried_with_the_rates(self) -> None:
        with_rate = [each for each in rules.ALL.values() if "lr" in each.hyperparameters]
        assert len(with_rate) == 7
        assert grids(with_rate, RATES) == {each.name: {"lr": RATES} for each in with_rate}

    def test_adadelta_is_tried_with_the_papers_table_2(self) -> None:
        assert grids([rules.adadelta], RATES) == {
            "adadelta": {"eps": (1e-2, 1e-4, 1e-6, 1e-8), "rho": (0.9, 0.95, 0.99)}
        }

    def test_another_rule_is_tried_with_its_defaults(self) -> None:
        assert grids([rateless], RATES) == {"rateless": {}}
        assert settings(grids([rateless])) == [Setting("rateless", {})]

    def test_the_usual_rates_are_those_of_the_papers_table_1(self) -> None:
        assert grids([rules.sgd]) == {"sgd": {"lr": (1.0, 0.1, 0.01, 0.001, 0.0001)}}


class TestGridsThatAreAskedFor:
    def test_replace_the_rules_own_and_no_others(self) -> None:
        asked = {"momentum": {"lr": [1, 0.5], "rho": [0.9]}}
        found = grids([rules.sgd, rules.momentum], RATES, asked)
        assert found == {"sgd": {"lr": RATES}, "momentum": {"lr": (1.0, 0.5), "rho": (0.9,)}}
        assert all(type(value) is float for values in found["momentum"].values() for value in values)

    def test_may_hold_what_is_around_a_rule(self) -> None:
        asked = {"adadelta": {"lr": [0.5], "weight_decay": [0.0, 1e-4]}}
        assert grids([rules.adadelta], RATES, asked) == {"adadelta": {"lr": (0.5,), "weight_decay": (0.0, 1e-4)}}

    def test_may_try_weight_decay_both_ways(self) -> None:
        asked = {"adam": {"weight_decay": [0.1], **parse_grid(["adam.decoupled_weight_decay=0,1"])["adam"]}}
        found = grids([rules.adam], RATES, asked)
        assert found["adam"]["decoupled_weight_decay"] == (False, True)
        # What is tried is what the optimizer takes.
        for setting in settings(found):
            steprule.torch.Adam([torch.ones(1, requires_grad=True)], **setting.hyperparameters)

    @pytest.mark.parametrize(
        ("asked", "says"),
        [
            ({"adam": {"lr": [1.0]}}, "the grid names the rule 'adam'; the comparison has sgd, adadelta"),
            (
                {"sgd": {"rho": [1.0]}},
                "sgd has no hyperparameter 'rho'; it has: lr, weight_decay, lr_decay, decoupled_weight_decay",
            ),
            ({"sgd": {"weight_decay": [0.1]}}, "sgd needs values of lr, which has no default: --grid sgd.lr=..."),
            ({"adadelta": {"rho": [0.9, 1.0]}}, "rho is 1.0; allowed is a number in [0, 1)"),
            ({"adadelta": {"eps": [-1e-6]}}, "eps is -1e-06; allowed is a number in [0, inf)"),
            ({"sgd": {"lr": [math.nan]}}, "lr is nan; allowed is a number in [0, inf)"),
            ({"sgd": {"lr": [math.inf]}}, "lr is inf; allowed is a number in [0, inf)"),
            (
                {"adadelta": {"decoupled_weight_decay": [0.5]}},
                "decoupled_weight_decay is 0.5; allowed is False or True",
            ),
        ],
    )
    def test_say_what_cannot_be(self, asked: Any, says: str) -> None:
        with pytest.raises(ValueError) as caught:
            grids([rules.sgd, rules.adadelta], RATES, asked)
        assert str(caught.value) == says

    def test_name_the_first_value_that_is_missing(self) -> None:
        with pytest.raises(
            ValueError, match=r"^choosy needs values of eps, which has no default: --grid choosy.eps=\.\.\.$"
        ):
            grids([choosy], RATES)

    @pytest.mark.parametrize("value", ["0.1", None, True, [0.1]])
    def test_take_numbers_alone(self, value: Any) -> None:
        with pytest.raises(TypeError, match="lr is .*; allowed is a number in"):
            grids([rules.sgd], RATES, {"sgd": {"lr": [value]}})

    @pytest.mark.parametrize(("rates", "asked"), [((), {}), (RATES, {"sgd": {"lr": ()}})])
    def test_hold_at_least_one_value(self, rates: Any, asked: Any) -> None:
        with pytest.raises(ValueError, match="lr"):
            grids([rules.sgd], rates, asked)

    @pytest.mark.parametrize(("rates", "asked"), [((0.1, 0.1), {}), (RATES, {"sgd": {"lr": (0.1, 0.1)}})])
    def test_hold_no_value_twice(self, rates: Any, asked: Any) -> None:
        with pytest.raises(ValueError, match="twice"):
            grids([rules.sgd], rates, asked)

    def test_two_rules_of_one_name_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"^two of the rules have one name: sgd, adam, sgd$"):
            grids([rules.sgd, rules.adam, rules.sgd])


def test_settings_vary_the_first_hyperparameter_slowest() -> None:
    found = settings({"a": {"p": (1.0, 2.0), "q": (3.0, 4.0)}, "b": {"r": (5.0,)}})
    assert [(each.rule, dict(each.hyperparameters)) for each in found] == [
        ("a", {"p": 1.0, "q": 3.0}),
        ("a", {"p": 1.0, "q": 4.0}),
        ("a", {"p": 2.0, "q": 3.0}),
        ("a", {"p": 2.0, "q": 4.0}),
        ("b", {"r": 5.0}),
    ]


class TestReadingFromTheCommandLine:
    def test_grids_are_gathered_by_rule(self) -> None:
        found = parse_grid(["adadelta.rho=0.9, 0.95", "adam.lr=1e-3", "adadelta.eps=1e-6"])
        assert found == {"adadelta": {"rho": (0.9, 0.95), "eps": (1e-6,)}, "adam": {"lr": (1e-3,)}}

    def test_a_grid_of_nothing_is_the_defaults(self) -> None:
        assert grids([rules.adadelta], asked={"adadelta": {}}) == {"adadelta": {}}
        assert [dict(each.hyperparameters) for each in settings({"adadelta": {}})] == [{}]

    def test_what_has_no_names_is_told(self) -> None:
        with pytest.raises(TypeError, match=r"grid: adadelta is \[0.9\]; allowed are lists of numbers, by"):
            grids([rules.adadelta], asked={"adadelta": [0.9]})  # type: ignore[dict-item]

    def test_no_grid_is_none(self) -> None:
        assert parse_grid([]) == {}

    @pytest.mark.parametrize(
        "text", ["", "adadelta", "rho=1", "adadelta.rho", ".rho=1", "adadelta.=1", "adadelta.rho:1"]
    )
    def test_what_is_no_grid_is_told(self, text: str) -> None:
        with pytest.raises(ValueError) as caught:
            parse_grid([text])
        assert str(caught.value) == f"{text!r} is no grid; allowed is rule.name=a,b,c, such as adadelta.rho=0.9,0.95"

    @pytest.mark.parametrize("values", ["", "a", "1,", "1;2", "1,,2", "1 2", "0.1,x"])
    def test_what_are_no_numbers_are_told(self, values: str) -> None:
        with pytest.raises(ValueError) as caught:
            parse_grid([f"sgd.lr={values}"])
        assert str(caught.value) == f"'sgd.lr={values}' holds {values!r}; allowed are numbers with commas between them"

    def test_a_number_twice_is_told(self) -> None:
        with pytest.raises(ValueError, match=r"^'--rates' holds a number twice$"):
            parse_numbers("0.1,1e-1", "--rates")

    def test_a_hyperparameter_twice_is_told(self) -> None:
        with pytest.raises(ValueError, match="adadelta.rho"):
            parse_grid(["adadelta.rho=0.9", "adadelta.rho=0.95"])

    @given(st.lists(st.floats(allow_nan=False), min_size=1, unique=True))
    def test_numbers_come_back_as_they_were_written(self, numbers: list[float]) -> None:
        assert parse_numbers(",".join(map(repr, numbers))) == tuple(numbers)
