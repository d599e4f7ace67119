"""Exercise 1: adjust the value of rho."""

from __future__ import annotations

from typing import Final

from ...numerals import numeral
from ...spread import Spread
from .regression import EPOCHS, course, traces
from .series import Chart, Exercise, Series, points

__all__ = ["answer"]

RHOS: Final = (0.0, 0.3, 0.5, 0.7, 0.9, 0.95, 0.98, 0.99, 0.999)
DRAWN: Final = (0.0, 0.5, 0.9, 0.99, 0.999)


def answer(seeds: int) -> Exercise:
    """Train with each rho."""
    trained = {rho: traces(seeds, rho=rho) for rho in RHOS}
    finals = {rho: [trace.final for trace in own] for rho, own in trained.items()}
    spreads = {rho: Spread.of(own) for rho, own in finals.items()}
    best = min(spreads, key=lambda rho: spreads[rho].mean)
    about = f"{EPOCHS} epochs, eps 1e-5; mean and range of {seeds} seeds."
    return Exercise(
        "rho",
        "Adjust the value of rho. What happens?",
        (
            f"The lowest mean loss is {spreads[best].mean:.4f}, with rho {numeral(best)}.",
            "Mean and range: "
            + "; ".join(f"rho {numeral(r)}: {s.mean:.4f} ({s.low:.4f} to {s.high:.4f})" for r, s in spreads.items())
            + ".",
        ),
        (
            Chart(
                "rho-final",
                "Final loss by the memory of the averages",
                f"1/(1 - rho) is the number of steps that an average remembers. {about}",
                "1 / (1 - rho), steps",
                "loss",
                (Series("adadelta", points([1 / (1 - rho) for rho in RHOS], finals.values())),),
                log_x=True,
            ),
            Chart(
                "rho-course",
                "Loss by examples seen, for each rho",
                about.capitalize(),
                "examples",
                "loss",
                tuple(course(f"rho {numeral(rho)}", trained[rho]) for rho in DRAWN),
            ),
        ),
    )
