"""Exercise 4: against Adagrad and RMSProp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ....rules import adadelta, adagrad, rmsprop
from ...numerals import numeral
from ...spread import Spread
from .regression import EPOCHS, course, traces
from .series import Chart, Exercise, Series, points

__all__ = ["answer"]

RATES: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
RULES: Final = (adagrad, rmsprop, adadelta)
EPSILONS: Final = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
RHOS: Final = (0.9, 0.95, 0.99)
NEAR: Final = 0.25
"""A loss that counts as near the best, which is 0.242."""


def answer(seeds: int) -> Exercise:
    """Train by each rule with each rate; for ADADELTA the rate is the multiplier, 1 in the paper."""
    trained = {rule.name: {rate: traces(seeds, rule, lr=rate) for rate in RATES} for rule in RULES}
    finals = {
        name: {rate: [trace.final for trace in own] for rate, own in tried.items()} for name, tried in trained.items()
    }
    best = {name: _best(own) for name, own in finals.items()}
    by_rho = {rho: [[t.final for t in traces(seeds, rho=rho, eps=eps)] for eps in EPSILONS] for rho in RHOS}
    about = f"{EPOCHS} epochs; mean and range of {seeds} seeds. ADADELTA: rho 0.9, eps 1e-5; the others' defaults."
    return Exercise(
        "family",
        "Compare Adadelta to Adagrad and RMS prop to discuss their convergence behavior.",
        (*(_finding(name, own, best[name]) for name, own in finals.items()), _grid_finding(by_rho)),
        (
            Chart(
                "family-rates",
                "Final loss by rate",
                f"For ADADELTA the rate is the multiplier around the rule, which its paper does not have (1). {about}",
                "lr",
                "loss",
                tuple(Series(name, points(own, own.values())) for name, own in finals.items()),
                log_x=True,
            ),
            Chart(
                "family-grid",
                "ADADELTA's final loss by its own settings",
                f"The multiplier is 1. {EPOCHS} epochs; mean and range of {seeds} seeds.",
                "eps",
                "loss",
                tuple(Series(f"adadelta, rho {numeral(rho)}", points(EPSILONS, own)) for rho, own in by_rho.items()),
                log_x=True,
            ),
            Chart(
                "family-course",
                "Loss by examples seen, each rule at its best rate",
                f"The rate was chosen by the loss that is drawn, so it flatters. {about}",
                "examples",
                "loss",
                tuple(course(f"{name}, lr {numeral(best[name])}", own[best[name]]) for name, own in trained.items()),
            ),
        ),
    )


def _best(finals: Mapping[float, list[float]]) -> float:
    means = {rate: Spread.of(own).mean for rate, own in finals.items()}
    return min(means, key=means.__getitem__)


def _finding(name: str, finals: Mapping[float, list[float]], best: float) -> str:
    near = sum(Spread.of(own).mean <= NEAR for own in finals.values())
    text = f"{name}: best with lr {numeral(best)}, {_told(finals[best])}; at most {NEAR} with {near} of {len(finals)} rates"
    return f"{text}; with lr 1, as in the paper, {_told(finals[1.0])}." if name == "adadelta" else f"{text}."


def _grid_finding(by_rho: Mapping[float, list[list[float]]]) -> str:
    means = [Spread.of(own).mean for tried in by_rho.values() for own in tried]
    near = sum(mean <= NEAR for mean in means)
    return (
        f"adadelta with lr 1: from {min(means):.4f} to {max(means):.4f} over {len(means)} settings of rho and eps, at most "
        f"{NEAR} with {near} of them."
    )


def _told(values: list[float]) -> str:
    return f"{Spread.of(values):.4f}"
