"""Comparisons made by hand, for the tests of the summary and of the report."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from itertools import product

from steprule.lab.results import Comparison, Epoch, Metric, Outcome, Run, Setting, Trial

__all__ = [
    "LOSS",
    "TEST_ERROR",
    "all_diverged",
    "comparison",
    "hostile",
    "interrupted",
    "large",
    "long_names",
    "mean_scores",
    "outcome",
    "realistic",
    "three_hyperparameters",
]

TEST_ERROR = Metric("test error", "%")
LOSS = Metric("loss")
RUN = Run(
    command="steprule compare mnist --epochs 20 --seeds 3",
    started="2025-11-24 05:36",
    seconds=4391.0,
    machine={"processor": "x86-64, 2 cores", "memory": "16 GB"},
    versions={"steprule": "0.1.0", "numpy": "2.4.6", "python": "3.11"},
)
RATES = (1.0, 0.1, 0.01, 0.001, 0.0001)


def outcome(
    setting: Setting,
    seed: int,
    tests: Sequence[float],
    *,
    losses: Sequence[float] | None = None,
    validations: Sequence[float] | None = None,
    seconds: float = 0.5,
    status: str = "finished",
    cause: str = "",
) -> Outcome:
    """A trial with one epoch for each of `tests`."""
    losses = losses or [0.1] * len(tests)
    epochs = tuple(
        Epoch(i + 1, losses[i], tests[i], validations[i] if validations else None, seconds) for i in range(len(tests))
    )
    return Outcome(Trial(setting, seed), status, epochs, cause)  # type: ignore[arg-type]


def comparison(
    outcomes: Iterable[Outcome],
    grids: Mapping[str, Mapping[str, tuple[float, ...]]],
    *,
    metric: Metric = TEST_ERROR,
    epochs: int = 1,
    seeds: int = 1,
    problem: str = "mnist",
    description: str = "A net of 784-500-300-10 rectified linear units on MNIST, in mini-batches of 100.",
) -> Comparison:
    return Comparison(problem, description, metric, epochs, seeds, grids, tuple(outcomes), RUN)


def mean_scores(
    table: Mapping[str, Mapping[float, Sequence[float] | str]], *, metric: Metric = TEST_ERROR, name: str = "lr"
) -> Comparison:
    """One epoch: rule -> rate -> the scores of its seeds, or "diverged", "failed", "unfinished" for all of them."""
    seeds = max(len(own) for rates in table.values() for own in rates.values() if not isinstance(own, str))
    outcomes = []
    for rule, rates in table.items():
        for rate, own in rates.items():
            setting = Setting(rule, {name: rate})
            if isinstance(own, str):
                outcomes += [outcome(setting, seed, [math.nan], losses=[math.nan], status=own) for seed in range(seeds)]
            else:
                outcomes += [outcome(setting, seed, [score]) for seed, score in enumerate(own)]
    grids = {rule: {name: tuple(rates)} for rule, rates in table.items()}
    return comparison(outcomes, grids, metric=metric, seeds=seeds)


# Final test errors by rate, after Table 1 of the paper; None diverges.
TABLE_1: dict[str, Sequence[float | None]] = {
    "sgd": (1.96, 2.21, 4.02, 9.01, 21.1),
    "momentum": (None, 1.83, 2.08, 4.18, 9.16),
    "nesterov": (None, 1.78, 2.02, 4.11, 9.02),
    "adagrad": (43.76, 2.42, 1.79, 3.61, 8.90),
    "rmsprop": (None, 88.65, 2.61, 1.77, 2.92),
    "rmsprop_nesterov": (None, None, 3.32, 1.92, 2.13),
    "adam": (None, 89.68, 3.01, 1.71, 2.02),
}
TABLE_2: dict[float, Sequence[float]] = {
    1e-2: (2.19, 2.08, 2.02),
    1e-4: (1.85, 1.82, 1.98),
    1e-6: (1.80, 1.76, 1.85),
    1e-8: (2.09, 1.93, 1.83),
}


def realistic(seeds: int = 3, epochs: int = 20) -> Comparison:
    """Eight rules on MNIST with the grids of the paper's tables; some settings diverge, one trial fails."""
    grids: dict[str, dict[str, tuple[float, ...]]] = {rule: {"lr": RATES} for rule in TABLE_1}
    grids["adadelta"] = {"rho": (0.9, 0.95, 0.99), "eps": tuple(TABLE_2)}
    finals = {
        Setting(rule, {"lr": rate}): e for rule, own in TABLE_1.items() for rate, e in zip(RATES, own, strict=True)
    }
    for (eps, row), i in product(TABLE_2.items(), range(3)):
        finals[Setting("adadelta", {"rho": grids["adadelta"]["rho"][i], "eps": eps})] = row[i]
    outcomes = []
    for setting, final in finals.items():
        for seed in range(seeds):
            outcomes.append(_trial(setting, seed, final, epochs))
    broken = next(i for i, o in enumerate(outcomes) if o.trial.setting == Setting("sgd", {"lr": 0.0001}))
    outcomes[broken] = outcome(
        outcomes[broken].trial.setting, 0, [80.0], status="failed", cause="MemoryError: could not allocate 2.1 GB"
    )
    return comparison(outcomes, grids, epochs=epochs, seeds=seeds)


def _trial(setting: Setting, seed: int, final: float | None, epochs: int) -> Outcome:
    draw = random.Random(f"{setting} {seed}")
    # At rates on the edge only some seeds diverge.
    if final is None or (setting == Setting("rmsprop", {"lr": 0.1}) and seed == 1):
        stop = draw.randint(1, 3)
        return outcome(
            setting, seed, [90.2] * stop, losses=[2.4] * (stop - 1) + [math.nan], status="diverged", seconds=0.8
        )
    speed = {"sgd": 0.55, "momentum": 0.8, "nesterov": 0.85}.get(setting.rule, 1.2)
    start = 7.5 / speed
    tests, losses = [], []
    for number in range(1, epochs + 1):
        left = (1 / number ** (speed + 0.35)) - 1 / epochs ** (speed + 0.35)
        error = final * (1 + draw.gauss(0, 0.025)) + (start * left if final < 30 else 0)
        tests.append(round(min(error, 90.2), 2))
        losses.append(
            0.4 * (final / 2 if final > 2 else 1) * number ** -(0.9 * speed + 0.3) * (1 + draw.gauss(0, 0.04))
        )
    seconds = 0.62 + 0.05 * len(setting.rule) / 4 + draw.random() * 0.02
    return outcome(setting, seed, tests, losses=losses, seconds=seconds)


def three_hyperparameters() -> Comparison:
    """A loss without a unit; one rule varies three hyperparameters, one varies one that is not the rate."""
    grids: dict[str, dict[str, tuple[float, ...]]] = {
        "adam": {"lr": (0.1, 0.01, 0.001), "beta1": (0.9, 0.99), "eps": (1e-8, 1e-4)},
        "rmsprop": {"rho": (0.9, 0.95, 0.99)},
    }
    settings = [
        Setting(rule, dict(zip(grid, values, strict=True)))
        for rule, grid in grids.items()
        for values in product(*grid.values())
    ]
    outcomes = [
        outcome(settings[i], seed, [0.5 + 1 / n + 0.01 * i + 0.001 * seed for n in range(1, 4)])
        for i in range(len(settings))
        for seed in range(2)
    ]
    return comparison(outcomes, grids, metric=LOSS, epochs=3, seeds=2, problem="airfoil")


def large() -> Comparison:
    """Twelve rules by fifteen rates by ten seeds by fifty epochs."""
    rates = tuple(10.0 ** (-i / 2) for i in range(15))
    outcomes = [
        outcome(Setting(f"rule_{i}", {"lr": rate}), seed, [1 + i / 10 + seed / 100 + 10 / n for n in range(1, 51)])
        for i in range(12)
        for rate in rates
        for seed in range(10)
    ]
    return comparison(outcomes, {f"rule_{i}": {"lr": rates} for i in range(12)}, epochs=50, seeds=10)


def hostile() -> Comparison:
    """Every text that a comparison holds, as someone would write it who wants to break the page."""
    rule, other = "</script><b>x", "a'b\"c & d"
    trials = [
        outcome(Setting(rule, {"lr<i>": 1.0}), 0, [2.0, 1.0]),
        outcome(
            Setting(other, {"lr<i>": 1.0}), 0, [], status="failed", cause="<img src=x onerror=alert(1)> {{ 7 * 7 }}"
        ),
    ]
    return comparison(
        trials,
        {rule: {"lr<i>": (1.0,)}, other: {"lr<i>": (1.0,)}},
        metric=Metric("er]ro.r'\"<b>", "%"),
        epochs=2,
        problem="<script>alert(1)</script>",
        description="</style><h1>no",
    )


def long_names() -> Comparison:
    """Two variants of one rule, whose names differ at their ends."""
    name = "adadelta_with_the_decoupled_decay_of_weights_and_the_weight_of_parts"
    metric = Metric("mean absolute error on the test set", "dB")
    trials = [
        outcome(Setting(f"{name}_{end}", {"lr": rate}), 0, [2.0, 1.0 + rate])
        for end in ("a", "b")
        for rate in (0.1, 1.0)
    ]
    grids = {f"{name}_{end}": {"lr": (0.1, 1.0)} for end in ("a", "b")}
    return comparison(trials, grids, metric=metric, epochs=2)


def all_diverged() -> Comparison:
    """Nothing to rank and nothing to draw."""
    trials = [outcome(Setting("sgd", {"lr": 1.0}), 0, [9.0], losses=[math.nan], status="diverged")]
    return comparison(trials, {"sgd": {"lr": (1.0,)}})


def interrupted() -> Comparison:
    """The first half of the trials of `realistic`."""
    whole = realistic()
    return comparison(whole.outcomes[:70], whole.grids, epochs=20, seeds=3)
