"""How near a table comes to the paper's, and which of its claims the runs bear out."""

from __future__ import annotations

import math
from typing import Any

import pytest
from tests.lab.zeiler2012.made import curve, experiment, papers, reproduced

from steprule.lab.results import Setting
from steprule.lab.zeiler2012 import Reproduced
from steprule.lab.zeiler2012.agreement import agreement
from steprule.lab.zeiler2012.claims import judged
from steprule.lab.zeiler2012.confidence import further_run, mean, sign
from steprule.lab.zeiler2012.protocol import claims

ALL = ("table1", "table2", "fig1", "tanh")


def verdicts(*results: Reproduced) -> dict[str, str]:
    return {each.claim.name: each.verdict for each in judged(results)}


class TestConfidence:
    def test_intervals_are_students(self) -> None:
        # By hand: mean 2, deviation 1, t(2, 0.975) = 4.302653.
        assert mean([1.0, 2.0, 3.0]) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))
        assert further_run([1.0, 2.0, 3.0], 0.95)[1] == pytest.approx(2 + 4.302653 * (4 / 3) ** 0.5)
        assert mean([1.0]) == (-math.inf, math.inf)

    @pytest.mark.parametrize(
        ("values", "found"),
        [
            ((-1.0, -1.1, -0.9), "below"),
            ((1.0, 1.1, 0.9), "above"),
            ((-1.0, 1.1, -0.9), "undecided"),
            ((-1.0, -math.inf), "below"),
            ((1.0, -math.inf), "undecided"),
            ((0.0, 0.0), "undecided"),
        ],
    )
    def test_the_sign_of_a_mean_is_told_where_it_is_sure(self, values: tuple[float, ...], found: str) -> None:
        assert sign(values) == found


class TestAgreement:
    def test_the_papers_own_numbers_agree(self) -> None:
        for name, cells in (("table1", 15), ("table2", 12)):
            found = agreement(reproduced(name, seeds=1))
            assert (found.cells, found.difference, found.ratio, found.judged) == (cells, 0.0, 1.0, 0)
            assert found.rank == pytest.approx(1.0)

    def test_the_three_figures_are_those_of_the_cells(self) -> None:
        own = papers(experiment("table2"))
        found = agreement(reproduced("table2", lambda *at: 1.5 * own(*at)))
        printed = [cell.error for cell in experiment("table2").printed.cells]
        # Three seeds, at 0, 1 and 2 % above: 1 % on average.
        assert found.difference == pytest.approx(sum(0.515 * each for each in printed) / 12, abs=1e-4)
        assert found.ratio == pytest.approx(1.515, abs=1e-4)
        assert (found.plausible, found.judged) == (0, 12)
        assert agreement(reproduced("table2")).plausible == 12

    def test_a_setting_that_diverged_is_the_worst_and_has_no_difference(self) -> None:
        own = papers(experiment("table1"))
        worst = Setting("momentum", {"lr": 1.0})
        found = agreement(
            reproduced("table1", lambda setting, *at: math.nan if setting == worst else own(setting, *at), seeds=1)
        )
        assert (found.cells, found.difference, found.ratio) == (15, 0.0, 1.0)
        assert found.rank == pytest.approx(1.0)

    def test_nothing_can_be_said_of_nothing(self) -> None:
        found = agreement(reproduced("table1", there=0))
        assert (found.cells, found.difference, found.ratio, found.rank) == (0, None, None, None)


class TestClaims:
    def test_each_holds_where_everything_is_as_the_paper_says(self) -> None:
        found = verdicts(*map(reproduced, ALL))
        assert list(found) == [claim.name for claim in claims() if claim.needs != ("fig2",)]
        assert set(found.values()) == {"holds"}

    @pytest.mark.parametrize(
        ("part", "changed", "fails"),
        [
            ("fig1", {"sgd": 1.0}, {"sgd_worst", "momentum_improves", "momentum_best"}),
            ("fig1", {"momentum": 3.0}, {"sgd_worst", "momentum_improves", "momentum_best", "adagrad_slows"}),
            ("fig1", {"adagrad": 1.0}, {"momentum_best", "adagrad_slows"}),
            ("fig1", {"adadelta": 3.0}, {"sgd_worst", "adagrad_slows", "adadelta_goes_on", "adadelta_near_momentum"}),
        ],
    )
    def test_one_fails_where_a_method_ends_elsewhere(
        self, part: str, changed: dict[str, float], fails: set[str]
    ) -> None:
        def course(setting: Setting, seed: int, epoch: int) -> float:
            usual = curve(setting, seed, epoch)
            return changed.get(setting.rule, usual) + 0.01 * seed if epoch == 50 else usual

        found = verdicts(reproduced(part, course))
        assert {name for name, verdict in found.items() if verdict == "does not hold"} == fails

    @pytest.mark.parametrize(
        ("part", "setting", "error", "fails"),
        [
            ("table1", Setting("momentum", {"lr": 1.0}), 4.0, {"others_vary", "diverge_above"}),
            ("table1", Setting("adagrad", {"lr": 1e-4}), 2.0, {"slow_below"}),
            ("table1", Setting("sgd", {"lr": 1e-1}), 2.0, {"best_settings", "diverge_above"}),
            ("table2", Setting("adadelta", {"eps": 1e-2, "rho": 0.9}), 4.0, {"adadelta_varies_little"}),
            ("tanh", Setting("adadelta", {"eps": 1e-6, "rho": 0.95}), 2.3, {"tanh_below_schaul"}),
            ("tanh", Setting("adadelta", {"eps": 1e-6, "rho": 0.95}), 1.7, {"rectified_better_than_tanh"}),
        ],
    )
    def test_one_fails_where_a_setting_ends_elsewhere(
        self, part: str, setting: Setting, error: float, fails: set[str]
    ) -> None:
        own = papers(experiment(part))

        def course(each: Setting, seed: int, epoch: int) -> float:
            return error + 0.001 * seed if each == setting else own(each, seed, epoch)

        found = verdicts(*(reproduced(name, course if name == part else None) for name in ALL))
        assert {name for name, verdict in found.items() if verdict == "does not hold"} == fails

    def test_a_setting_that_diverged_is_infinitely_bad(self) -> None:
        own = papers(experiment("table1"))

        def course(setting: Setting, seed: int, epoch: int) -> float:
            return math.nan if setting.hyperparameters["lr"] == 1.0 else own(setting, seed, epoch)

        (found,) = [each for each in judged([reproduced("table1", course)]) if each.claim.name == "others_vary"]
        assert found.verdict == "holds"
        assert all("diverged" in each.says for each in found.evidence)

    def test_a_seed_that_diverged_is_not_in_the_mean_fall_of_the_error(self) -> None:
        def course(setting: Setting, seed: int, epoch: int) -> float:
            return math.nan if (setting.rule, seed) == ("sgd", 1) else curve(setting, seed, epoch)

        (found,) = [each for each in judged([reproduced("fig1", course)]) if each.claim.name == "adagrad_slows"]
        says = {each.says for each in found.evidence}
        assert {"adagrad falls by 0.30 %", "sgd by 1.10 % (1 of 3 diverged)"} <= says
        assert found.verdict == "within noise"

    def test_seeds_that_differ_more_than_the_methods_leave_it_within_noise(self) -> None:
        def course(setting: Setting, seed: int, epoch: int) -> float:
            return 2.0 + (seed - 1) * (0.5 if setting.rule == "sgd" else -0.5)

        assert verdicts(reproduced("fig1", course))["sgd_worst"] == "within noise"

    def test_one_seed_decides_nothing_and_missing_runs_are_told(self) -> None:
        assert set(verdicts(reproduced("fig1", seeds=1)).values()) == {"one seed"}
        found = verdicts(reproduced("tanh"))
        assert found == {"tanh_below_schaul": "holds", "rectified_better_than_tanh": "not run"}
        assert set(verdicts(reproduced("fig1", there=0)).values()) == {"not run"}

    def test_runs_of_other_length_than_the_papers_decide_nothing(self) -> None:
        made: Any = reproduced("fig1")
        shorter = made.comparisons[0].__class__(**vars(made.comparisons[0]) | {"epochs": 20})
        assert set(verdicts(Reproduced(made.part, (shorter,))).values()) == {"not run"}
