"""A step of an optimizer, compared with what the reference makes of what the optimizer had before it."""

from __future__ import annotations

from typing import Any

import numpy as np
from tests.conformance import rounding
from tests.conformance.paths import paths
from tests.conformance.tolerances import ROUNDINGS, rounded

import torch
from steprule import Rule, around
from steprule.around import Around
from steprule.torch import RuleOptimizer

__all__ = ["checked_step", "parameter", "paths"]


def parameter(*shape: int, dtype: torch.dtype = torch.float64, grad: bool = True, seed: int = 0) -> torch.nn.Parameter:
    """Return a parameter of random numbers, with curvature and squares, and a gradient where `grad` says so."""
    generator = torch.Generator().manual_seed(seed)
    made = torch.nn.Parameter(torch.randn(shape, dtype=dtype, generator=generator))
    if not dtype.is_complex:
        beside = torch.Generator().manual_seed(seed + 1)
        made.h = torch.randn(shape, dtype=dtype, generator=beside)
        made.g2 = torch.randn(shape, dtype=dtype, generator=beside).abs()
    if grad:
        made.grad = torch.randn(shape, dtype=dtype, generator=generator)
    return made


def _exactly(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach().resolve_conj()
    return (torch.view_as_real(tensor) if tensor.is_complex() else tensor).to(torch.float64, copy=True).numpy()


def _form_and_values(rule: Rule, group: dict[str, Any]) -> tuple[Around, dict[str, float]]:
    parts = dict(zip(("beta1", "beta2"), group.get("betas", ()), strict=False))
    values = around.validated(rule, {name: {**group, **parts}[name] for name in around.hyperparameters(rule)})
    return Around.of(values, decoupled=group["decoupled_weight_decay"], maximize=group["maximize"]), values


def checked_step(optimizer: RuleOptimizer, *arguments: Any) -> Any:
    """Step, assert that each parameter, slot and count is what the reference makes of it, and return what `step` does."""
    rule = optimizer.rule
    before = []
    for group in optimizer.param_groups:
        for each in group["params"]:
            state = optimizer.state.get(each, {})
            dtype = str(each.dtype.to_real()).removeprefix("torch.")
            starts = {name: optimizer.keywords.start(name, group) for name in rule.slots}
            slots = {
                name: _exactly(state[name]) if name in state else np.full(_exactly(each).shape, rounded(initial, dtype))
                for name, initial in starts.items()
            }
            given = None if each.grad is None else {"g": _exactly(each.grad)}
            if given is not None:
                given |= {name: _exactly(getattr(each, name)) for name in rule.curvature}
            before.append((group, each, dtype, _exactly(each), given, slots, int(state.get("step", 0))))

    returned = optimizer.step(*arguments)

    for group, each, dtype, x, given, slots, count in before:
        if given is None:
            assert np.array_equal(_exactly(each), x, equal_nan=True), "a parameter without gradient moved"
            assert int(optimizer.state.get(each, {}).get("step", 0)) == count
            continue
        form, values = _form_and_values(rule, group)
        expected = rounding.step(rule, form, {"x": x, "t": count + 1, **given}, slots, values, dtype)
        engine = "steprule.torch, plain" if dtype in ("float32", "float64") else "steprule.torch, lower types"
        state = optimizer.state.get(each, {})
        for name, value in expected.items():
            found = _exactly(each if name == "x" else state[name])
            times = rounding.times_too_far(found, value)
            assert times.max(initial=0.0) <= ROUNDINGS[engine, dtype].amount, name
        if rule.slots or "t" in rule.inputs or form.lr_decay:
            assert int(state["step"]) == count + 1
    return returned
