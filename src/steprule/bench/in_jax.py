"""One step in JAX: our transformations and steps beside optax's, in one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jax
import numpy as np
import optax
from rich.table import Table

from .. import jax as ours
from .. import rules
from ..program import lower
from .steps import REPEATS, SIZES
from .tables import made_with, shown, step_as_json
from .timing import Times, interleaved

__all__ = ["JAX_SIZES", "OPTAX", "JaxBench", "jax_as_json", "jax_tables", "measure_jax"]

JAX_SIZES: Final = {name: SIZES[name] for name in ("mnist", "small", "large")}

OPTAX: Final[Mapping[str, tuple[Callable[..., Any], Mapping[str, Any]]]] = {
    "sgd": (optax.sgd, {"learning_rate": 0.01}),
    "adagrad": (optax.adagrad, {"learning_rate": 0.01}),
    "rmsprop": (optax.rmsprop, {"learning_rate": 1e-3}),
    "adadelta": (optax.adadelta, {"learning_rate": 1.0, "rho": 0.95}),
    "adam": (optax.adam, {"learning_rate": 1e-3}),
}
"""For each rule optax's function, and the arguments that both take."""


@dataclass(frozen=True)
class JaxBench:
    """The times of one rule at one size. `moved` is what a step must read and write, in bytes per element."""

    size: str
    rule: str
    tensors: int
    elements: int
    moved: int
    times: Mapping[str, Times]

    def ratio(self, theirs: str, mine: str) -> float:
        """Return how many times as long as `mine` the other takes, by the medians."""
        return self.times[theirs].median / self.times[mine].median


def measure_jax(size: str, name: str) -> JaxBench:
    """Time one step of the rule `name` for the parameters of `JAX_SIZES[size]`, float32, on JAX's default device.

    "together" is `update` and `optax.apply_updates` compiled as one, parameters and state donated; "apart" each compiled by
    itself; "apply" our `steprule.jax.apply`.
    """
    shapes, (theirs, arguments) = JAX_SIZES[size], OPTAX[name]
    mine = ours.transformation(rules.ALL[name])
    calls: dict[str, Callable[[], object]] = {}
    for who, made in (("steprule", mine(**arguments)), ("optax", theirs(**arguments))):
        calls[f"{who} together"] = _together(made, shapes)
        calls[f"{who} apart"] = _apart(made, shapes)
    calls["steprule apply"] = _applied(ours.apply(mine, **arguments), shapes)
    elements = sum(int(np.prod(shape)) for shape in shapes)
    rounds, steps = next((rounds, steps) for most, rounds, steps in REPEATS if elements <= most)
    times = interleaved(calls, rounds, steps)
    moved = lower(rules.ALL[name]).bytes_per_element(4)
    return JaxBench(size, name, len(shapes), elements, moved, times)


def _arrays(shapes: Sequence[tuple[int, ...]], seed: int) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [jax.numpy.asarray(rng.standard_normal(shape, np.float32)) for shape in shapes]


def _repeated(
    step: Callable[[Any, Any, Any], tuple[Any, Any]], init: Any, shapes: Sequence[Any]
) -> Callable[[], object]:
    """Return a call that goes on from where the last one ended, and waits until the step is done."""
    params, grads = _arrays(shapes, 0), _arrays(shapes, 1)
    held = [params, init(params)]

    def call() -> None:
        held[:] = step(held[0], grads, held[1])
        jax.block_until_ready(held)

    return call


def _together(made: Any, shapes: Sequence[Any]) -> Callable[[], object]:
    def step(params: Any, grads: Any, state: Any) -> tuple[Any, Any]:
        updates, state = made.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return _repeated(jax.jit(step, donate_argnums=(0, 2)), made.init, shapes)


def _apart(made: Any, shapes: Sequence[Any]) -> Callable[[], object]:
    update = jax.jit(made.update, donate_argnums=(1,))
    add = jax.jit(optax.apply_updates, donate_argnums=(0,))

    def step(params: Any, grads: Any, state: Any) -> tuple[Any, Any]:
        updates, state = update(grads, state, params)
        return add(params, updates), state

    return _repeated(step, made.init, shapes)


def _applied(step: ours.Step, shapes: Sequence[Any]) -> Callable[[], object]:
    return _repeated(step, step.init, shapes)


def jax_tables(benches: Sequence[JaxBench]) -> list[Table]:
    """Return the tables of what was measured; times are medians with quartiles."""
    names = list(benches[0].times)
    times = Table("rule", "size", title="One step in JAX, ms: median (quartiles)", title_justify="left")
    for name in names:
        times.add_column(name, justify="right")
    ratios = Table("rule", "size", title="Ratios of the medians", title_justify="left")
    pairs = {
        "optax / ours, together": ("optax together", "steprule together"),
        "optax / ours, apart": ("optax apart", "steprule apart"),
        "optax together / apply": ("optax together", "steprule apply"),
        "optax apart / apply": ("optax apart", "steprule apply"),
    }
    for heading in (*pairs, "GB/s of apply"):
        ratios.add_column(heading, justify="right")
    for bench in benches:
        size = f"{bench.size}: {bench.tensors} tensors, {bench.elements:,}"
        times.add_row(bench.rule, size, *(shown(bench.times[name]) for name in names))
        speed = bench.moved * bench.elements / bench.times["steprule apply"].median / 1e9
        ratios.add_row(
            bench.rule, bench.size, *(f"{bench.ratio(*pair):.2f}" for pair in pairs.values()), f"{speed:.1f}"
        )
    return [times, ratios]


def jax_as_json(benches: Sequence[JaxBench]) -> dict[str, Any]:
    """Return all measurements, every repetition included, in seconds, and what they were made with."""
    return {
        "made": made_with(jax=jax.__version__, optax=optax.__version__, device=str(jax.devices()[0])),
        "steps": [step_as_json(bench) for bench in benches],
    }
