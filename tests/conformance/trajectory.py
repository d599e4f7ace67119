"""Two hundred steps on a small real problem: how far an engine goes from the float64 oracle.

The problem is softmax regression on scikit-learn's handwritten digits, in mini-batches. Its gradients are computed in
float64 along the oracle's way and rounded to the engine's type, and every engine is given the same: what it is off by is its
own. In a second run the engine's own parameters make the gradients, and the losses at the end are compared. What a rule
takes beside the gradient is made of the gradient's numbers (`cases.beside`).

The oracle is `steprule.reference` in float64 on NumPy. For types below float32 it rounds what it keeps to the type after
each step; else an engine would answer for what the type cannot hold.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from steprule import reference

from .cases import RULES, Arrays, Form, beside, hyper
from .engines import ENGINES
from .tolerances import rounded, ulps
from .twins import Twin

__all__ = ["STEPS", "Way", "loss_apart", "oracle", "twin_apart", "ulps_apart"]

STEPS: Final = 200
_BATCH: Final = 64
_EVERY: Final = 20  # steps from one comparison to the next

_FORM: Final = Form()


@functools.cache
def _digits() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return images / 16.0, np.eye(10)[labels]


def _start(dtype: str) -> Arrays:
    rng = np.random.default_rng(0)
    return [rounded(0.1 * rng.standard_normal(shape), dtype) for shape in ((64, 10), (10,))]


def _logarithms(images: NDArray[np.float64], parameters: Arrays) -> NDArray[np.float64]:
    scores = images @ parameters[0] + parameters[1]
    scores -= scores.max(axis=1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))


def _loss(parameters: Arrays) -> float:
    images, labels = _digits()
    return float(-(labels * _logarithms(images, parameters)).sum() / len(images))


def _gradients(parameters: Arrays, step: int, dtype: str) -> Arrays:
    images, labels = _digits()
    # Each pass over the digits takes them in the same order, which is that of nothing: 1797 is no multiple of the batch.
    chosen = np.arange(step * _BATCH, (step + 1) * _BATCH) % len(images)
    apart = (np.exp(_logarithms(images[chosen], parameters)) - labels[chosen]) / _BATCH
    return [rounded(gradient, dtype) for gradient in (images[chosen].T @ apart, apart.sum(axis=0))]


@dataclass(frozen=True)
class Way:
    """The oracle's way: each step's gradients, the state at each comparison, and the loss before the first and at the end.

    `largest` is, for each state, the largest that each element has been up to it.
    """

    gradients: list[Arrays]
    states: list[list[dict[str, NDArray[np.float64]]]]
    largest: list[list[dict[str, NDArray[np.float64]]]]
    loss_before: float
    loss: float


def oracle(rule_name: str, dtype: str, values: Mapping[str, float] | None = None) -> Way:
    """Return the way of the oracle of the rule, in elements of `dtype`; `values` are those of `cases.hyper` or others."""
    return _oracle(rule_name, dtype, tuple((hyper(rule_name) if values is None else values).items()))


@functools.cache
def _oracle(rule_name: str, dtype: str, listed: tuple[tuple[str, float], ...]) -> Way:
    rule, values = RULES[rule_name], dict(listed)
    kept = "float64" if dtype in ("float32", "float64") else dtype
    xs = _start(dtype)
    states: list[dict[str, Any]] = [reference.init(rule, x) for x in xs]
    way = Way([], [], [], _loss(xs), 0.0)
    largest = [{name: np.zeros(x.shape) for name in ("x", *rule.slots)} for x in xs]
    for step in range(STEPS):
        way.gradients.append(_gradients(xs, step, dtype))
        with np.errstate(divide="ignore", invalid="ignore"):  # a `where` computes both of its sides
            made = [
                reference.step(rule, x, g, state, **beside(rule, g), **values)
                for x, g, state in zip(xs, way.gradients[-1], states, strict=True)
            ]
        xs = [rounded(x, kept) for x, _ in made]
        states = [
            {name: value if name == "step" else rounded(value, kept) for name, value in state.items()}
            for _, state in made
        ]
        full = [{"x": x, **{name: state[name] for name in rule.slots}} for x, state in zip(xs, states, strict=True)]
        largest = [
            {name: np.maximum(seen[name], np.abs(arrays[name])) for name in arrays}
            for seen, arrays in zip(largest, full, strict=True)
        ]
        if (step + 1) % _EVERY == 0:
            way.states.append(full)
            way.largest.append(largest)
    return replace(way, loss=_loss(xs))


def ulps_apart(engine: str, dtype: str, rule_name: str) -> float:
    """Return the largest distance of a parameter or slot from the oracle's, in ulps of the largest that it has been."""
    kind, way = ENGINES[engine], oracle(rule_name, dtype)
    assert kind.begin is not None
    with kind.within():
        begun = kind.begin(RULES[rule_name], hyper(rule_name), _FORM, dtype, _start(dtype))
        return _farthest(begun, way, dtype, ("x", *RULES[rule_name].slots))


def twin_apart(twin: Twin, dtype: str, values: Mapping[str, float]) -> float:
    """Return the largest distance of a twin's parameter from the oracle's, as `ulps_apart` has it."""
    return _farthest(twin.begin(values, dtype, _start(dtype)), oracle(twin.rule, dtype, values), dtype, ("x",))


def _farthest(begun: Any, way: Way, dtype: str, names: tuple[str, ...]) -> float:
    farthest = 0.0
    for step, gradients in enumerate(way.gradients):
        begun.step(gradients)
        if (step + 1) % _EVERY:
            continue
        place = step // _EVERY
        for found, expected, seen in zip(begun.state(), way.states[place], way.largest[place], strict=True):
            assert found.keys() == set(names)
            for name in names:
                farthest = max(farthest, float(ulps(found[name], expected[name], dtype, seen[name]).max()))
    return farthest


def loss_apart(engine: str, dtype: str, rule_name: str) -> float:
    """Return how far the engine's loss at the end of its own way is from the oracle's, as a share of it."""
    kind, expected = ENGINES[engine], oracle(rule_name, dtype).loss
    assert kind.begin is not None
    with kind.within():
        begun = kind.begin(RULES[rule_name], hyper(rule_name), _FORM, dtype, _start(dtype))
        xs = _start(dtype)
        for step in range(STEPS):
            begun.step(_gradients(xs, step, dtype))
            xs = [arrays["x"] for arrays in begun.state()]
    return abs(_loss(xs) - expected) / expected
