"""What the paper's text says, sentence by sentence: each claim of `expected.toml` has a function of its name here.

A function yields the figures that decide its claim, with differences that are below 0 where the claim holds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..numerals import numeral
from ..spread import Spread
from .errors import Errors, best
from .figure2 import LAYERS, Course, Trainings
from .judging import Asked, Evidence, Function, Judged, judge
from .parts import Result
from .protocol import claims

__all__ = ["judged"]


def _less(one: Mapping[int, float], other: Mapping[int, float], times: float = 1.0) -> tuple[float, ...]:
    """Return `one` less `times` the `other`, for each seed that both have; 0 where both are infinite."""
    return tuple(
        0.0 if math.isinf(one[seed]) and math.isinf(other[seed]) else one[seed] - times * other[seed]
        for seed in sorted(one.keys() & other.keys())
    )


def _mean(errors: Mapping[int, float]) -> str:
    """The mean over the seeds that finished, and how many did not."""
    finished = [error for error in errors.values() if math.isfinite(error)]
    lost = len(errors) - len(finished)
    note = f"{lost} of {len(errors)} diverged"
    return f"{_percent(fmean(finished))}{f' ({note})' if lost else ''}" if finished else note


def _percent(value: float) -> str:
    return f"{value:.2f} %" if math.isfinite(value) else "diverged"


def _times(one: float, other: float) -> str:
    return f"{one / other:.1f} times" if math.isfinite(one) and math.isfinite(other) else "diverged"


def _at(errors: Errors) -> str:
    return ", ".join(f"{name}={numeral(value)}" for name, value in errors.setting.hyperparameters.items())


def tanh_below_schaul(asked: Asked) -> Iterable[Evidence]:
    (errors,) = asked.errors("tanh").values()
    limit = dict.fromkeys(errors.last(), asked.limit)
    yield Evidence(f"{_mean(errors.last())} (the paper: 2.00 %)", (_less(errors.last(), limit),))


def rectified_better_than_tanh(asked: Asked) -> Iterable[Evidence]:
    ((setting, tanh),) = asked.errors("tanh").items()
    rectified = asked.errors("table2")[setting]
    says = f"rectified {_mean(rectified.last())}, tanh {_mean(tanh.last())} (the paper: 1.83 %, 2.00 %)"
    yield Evidence(says, (_less(rectified.last(), tanh.last()),))


def sgd_worst(asked: Asked) -> Iterable[Evidence]:
    curves = asked.curves()
    sgd = curves.pop("sgd").last()
    yield Evidence(f"sgd {_mean(sgd)}", ())
    for rule, other in curves.items():
        yield Evidence(f"{rule} {_mean(other.last())}", (_less(other.last(), sgd),))


def momentum_improves(asked: Asked) -> Iterable[Evidence]:
    sgd, momentum = (asked.curves()[rule].last() for rule in ("sgd", "momentum"))
    yield Evidence(f"momentum {_mean(momentum)}, sgd {_mean(sgd)}", (_less(momentum, sgd),))


def momentum_best(asked: Asked) -> Iterable[Evidence]:
    curves = asked.curves()
    momentum = curves.pop("momentum").last()
    yield Evidence(f"momentum {_mean(momentum)}", ())
    for rule, other in curves.items():
        yield Evidence(f"{rule} {_mean(other.last())}", (_less(momentum, other.last()),))


def adagrad_fast_at_first(asked: Asked) -> Iterable[Evidence]:
    curves, epochs = asked.curves(), int(asked.limit)
    adagrad = curves["adagrad"].over(epochs)
    yield Evidence(f"adagrad {_mean(adagrad)}", ())
    for rule in ("sgd", "momentum"):
        other = curves[rule].over(epochs)
        yield Evidence(f"{rule} {_mean(other)}", (_less(adagrad, other),))


def adagrad_slows(asked: Asked) -> Iterable[Evidence]:
    falls = {rule: _fall(errors, int(asked.limit)) for rule, errors in asked.curves().items()}
    adagrad = falls.pop("adagrad")
    yield Evidence(f"adagrad falls by {_mean(adagrad)}", ())
    for rule, fall in falls.items():
        yield Evidence(f"{rule} by {_mean(fall)}", (_less(adagrad, fall),))


def _fall(errors: Errors, epoch: int) -> dict[int, float]:
    """Return by how much each seed's error falls from this epoch to the last; a seed that diverged rises without end."""
    before = errors.after(epoch)
    return {seed: before[seed] - last if math.isfinite(last) else -math.inf for seed, last in errors.last().items()}


def adadelta_as_fast_as_adagrad(asked: Asked) -> Iterable[Evidence]:
    adadelta, adagrad = (asked.curves()[rule].over(10) for rule in ("adadelta", "adagrad"))
    yield Evidence(f"adadelta {_mean(adadelta)}, adagrad {_mean(adagrad)}", (_less(adadelta, adagrad, asked.limit),))


def adadelta_goes_on(asked: Asked) -> Iterable[Evidence]:
    errors, epoch = asked.curves()["adadelta"], int(asked.limit)
    says = f"{_mean(errors.after(epoch))} after {epoch} epochs, {_mean(errors.last())} at the end"
    yield Evidence(says, (_less(errors.last(), errors.after(epoch)),))


def adadelta_near_momentum(asked: Asked) -> Iterable[Evidence]:
    adadelta, momentum = (asked.curves()[rule].last() for rule in ("adadelta", "momentum"))
    says = f"adadelta {_mean(adadelta)}, momentum {_mean(momentum)}"
    yield Evidence(says, (_less(adadelta, momentum, asked.limit),))


def best_settings(asked: Asked) -> Iterable[Evidence]:
    for part in asked.claim.needs:
        printed = asked.printed(part)
        for rule, tried in asked.methods(part).items():
            lowest = min((cell for cell in printed if cell.setting.rule == rule), key=lambda cell: cell.error).setting
            (papers,) = (each for each in tried if each.setting == lowest)
            next_to_it = best([each for each in tried if each.setting != lowest])
            says = f"{rule} {_at(papers)}: {_mean(papers.last())}, {_at(next_to_it)}: {_mean(next_to_it.last())}"
            yield Evidence(says, (_less(papers.last(), next_to_it.last()),))


def others_vary(asked: Asked) -> Iterable[Evidence]:
    for rule, tried in asked.methods("table1").items():
        low, high = best(tried), max(tried, key=lambda each: each.typical)
        says = f"{rule} {_mean(low.last())} to {_mean(high.last())}, {_times(high.typical, low.typical)}"
        yield Evidence(says, (tuple(-each for each in _worst(tried, asked.limit)),))


def _worst(tried: Sequence[Errors], times: float) -> tuple[float, ...]:
    """Return, for each seed, the highest error of the settings less `times` the lowest."""
    seeds = sorted(set.intersection(*(set(each.courses) for each in tried)))
    own = [[each.last()[seed] for each in tried] for seed in seeds]
    return tuple(max(errors) - times * min(errors) for errors in own)


def diverge_above(asked: Asked) -> Iterable[Evidence]:
    for rule, tried in asked.methods("table1").items():
        low, largest = best(tried), max(tried, key=_rate)
        if low is largest:
            yield Evidence(f"{rule}'s best is the largest that was tried", ())
            continue
        says = f"{rule} lr={_rate(largest):g}: {_mean(largest.last())}, {_times(largest.typical, low.typical)}"
        yield Evidence(says, (tuple(-each for each in _less(largest.last(), low.last(), asked.limit)),))


def slow_below(asked: Asked) -> Iterable[Evidence]:
    for rule, tried in asked.methods("table1").items():
        falling = sorted((each for each in tried if _rate(each) <= _rate(best(tried))), key=_rate, reverse=True)
        pairs = itertools.pairwise(falling)
        says = f"{rule} {', '.join(_mean(each.last()) for each in falling)}"
        yield Evidence(says, tuple(_less(one.last(), smaller.last()) for one, smaller in pairs))


def _rate(errors: Errors) -> float:
    return errors.setting.hyperparameters["lr"]


def adadelta_varies_little(asked: Asked) -> Iterable[Evidence]:
    (tried,) = asked.methods("table2").values()
    low, high = best(tried), max(tried, key=lambda each: each.typical)
    printed = [cell.error for cell in asked.printed("table2")]
    says = f"{_range(low.typical, high.typical)} (the paper: {_range(min(printed), max(printed))})"
    yield Evidence(says, (_worst(tried, asked.limit),))


def _range(low: float, high: float) -> str:
    return f"{_percent(low)} to {_percent(high)}" + (f", {high - low:.2f} points apart" if math.isfinite(high) else "")


def larger_below(asked: Asked) -> Iterable[Evidence]:
    found = asked.trainings()
    medians = _by_layer(found, partial(_size, epoch=1))
    falls = tuple(_differences(above - below) for below, above in itertools.pairwise(medians))
    yield Evidence(f"medians, the lowest layer first: {_told(medians)}", falls)
    measured = _by_layer(found, partial(_size, epoch=1, limits=False))
    yield Evidence(f"without the points whose gradient is 0, whose step size is a limit: {_told(measured)}")


def towards_one(asked: Asked) -> Iterable[Evidence]:
    found = asked.trainings()
    medians = _by_layer(found, partial(_size, epoch=found.settings.epochs))
    away = tuple(_differences(np.abs(np.log(each)) - math.log(asked.limit)) for each in medians)
    yield Evidence(f"medians, the lowest layer first: {_told(medians)}", away)


def to_zero(asked: Asked) -> Iterable[Evidence]:
    found = asked.trainings()
    first, last = (_by_layer(found, partial(_update, epoch=epoch)) for epoch in (1, found.settings.epochs))
    shares = [late / early for early, late in zip(first, last, strict=True)]
    above = tuple(_differences(each - asked.limit) for each in shares)
    yield Evidence(f"shares, the lowest layer first: {_told(shares)}", above)


def _by_layer(found: Trainings, measure: Callable[[Course, str], float]) -> list[NDArray[np.float64]]:
    """Return a number for each seed, (seeds,), of each layer, the lowest first; NaN where the seed has none."""
    return [np.array([measure(course, layer) for course in found.courses]) for layer in LAYERS]


def _size(course: Course, layer: str, epoch: int, *, limits: bool = True) -> float:
    sizes, updates = (each[layer][course.epochs == epoch] for each in (course.sizes, course.updates))
    sizes = sizes if limits else sizes[updates != 0]
    return float(np.median(sizes)) if sizes.size else math.nan


def _update(course: Course, layer: str, epoch: int) -> float:
    updates = course.updates[layer][course.epochs == epoch]
    return float(np.sqrt(np.mean(updates**2))) if updates.size else math.nan


def _differences(seeds: NDArray[np.float64]) -> tuple[float, ...]:
    """Return them with an infinite one, which does not hold, where a seed diverged before it had a number."""
    return tuple(np.where(np.isnan(seeds), math.inf, seeds).tolist())


def _told(layers: Iterable[NDArray[np.float64]]) -> str:
    return ", ".join(map(_spread, layers))


def _spread(seeds: NDArray[np.float64]) -> str:
    there = seeds[np.isfinite(seeds)].tolist()
    if not there:
        return "none"
    spread = Spread.of(there)
    note = f" ({len(seeds) - len(there)} of {len(seeds)} without)" if len(there) < len(seeds) else ""
    return f"{spread.mean:.3g}" + ("" if spread.sd is None else f" ± {spread.sd:.2g}") + note


_FUNCTIONS: Final[Mapping[str, Function]] = {
    function.__name__: function
    for function in (
        tanh_below_schaul,
        rectified_better_than_tanh,
        sgd_worst,
        momentum_improves,
        momentum_best,
        adagrad_fast_at_first,
        adagrad_slows,
        adadelta_as_fast_as_adagrad,
        adadelta_goes_on,
        adadelta_near_momentum,
        best_settings,
        others_vary,
        diverge_above,
        slow_below,
        adadelta_varies_little,
        larger_below,
        towards_one,
        to_zero,
    )
}
"""What decides each claim, by the claim's name."""


def judged(results: Iterable[Result]) -> tuple[Judged, ...]:
    """Return every claim that has a part among `results`, in the paper's order, with its verdict."""
    by_name = {result.part.name: result for result in results}
    return tuple(
        judge(_FUNCTIONS[claim.name], Asked(claim, by_name)) for claim in claims() if by_name.keys() & set(claim.needs)
    )
