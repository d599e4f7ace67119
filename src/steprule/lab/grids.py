"""The settings that a comparison tries: for each rule, every combination of some values of its hyperparameters."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from .. import around, named, rules
from ..specification import Rule
from .results import Setting

__all__ = ["RATES", "Grid", "find_rule", "grids", "parse_grid", "parse_numbers", "parse_values", "settings"]

Grid = Mapping[str, tuple[float, ...]]
"""The values to try of each hyperparameter of one rule."""

RATES: Final = (1.0, 0.1, 0.01, 0.001, 0.0001)
"""The rates of the paper's Table 1."""

ADADELTA: Final[Grid] = {"eps": (1e-2, 1e-4, 1e-6, 1e-8), "rho": (0.9, 0.95, 0.99)}
"""The settings of the paper's Table 2."""

_SWITCH: Final = "decoupled_weight_decay"
"""What is no number of a step, and yet may be tried both ways: 0 or 1, with a `weight_decay`."""

_NEEDED: Final[Mapping[Rule, Grid]] = {
    rules.delta_bar_delta: {"initial_rate": (1.0, 0.1, 0.01), "kappa": (0.1, 0.01, 0.001), "phi": (0.1,)},
    rules.diagonal_newton: {"mu": (10.0, 1.0, 0.1, 0.01, 0.001)},
}
"""Settings of the rules whose papers leave other numbers than a rate to the user."""


def find_rule(name: str) -> Rule:
    """Return a built-in rule by its name, or the user's as `package.module:name` or `path/to/file.py:name`.

    Raises `ValueError` where there is none and `TypeError` where it is no rule.
    """
    if name in rules.ALL:
        return rules.ALL[name]
    if ":" not in name:
        raise ValueError(
            f"there is no rule {name!r}; allowed are {', '.join(rules.ALL)}, and your own as package.module:name or "
            "path/to/file.py:name"
        )
    found = named.load(name)
    if not isinstance(found, Rule):
        raise TypeError(f"{name} is of type {type(found).__name__}; allowed is a rule, a function under @rule")
    return found


def grids(
    chosen: Sequence[Rule],
    rates: Sequence[float] = RATES,
    asked: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
) -> dict[str, dict[str, tuple[float, ...]]]:
    """Return the grid of each rule, by the rule's name.

    What is `asked` for a rule replaces its grid; else a rule with a rate of its own is tried with `rates`, ADADELTA with the
    settings of the paper's Table 2, a rule whose paper leaves something else to the user with values of that, and any other
    with its defaults. Raises `ValueError` for a rule, a hyperparameter or a
    value that cannot be.
    """
    asked = asked or {}
    names = [rule.name for rule in chosen]
    for name in asked:
        if name not in names:
            raise ValueError(f"the grid names the rule {name!r}; the comparison has {', '.join(names)}")
    if len(set(names)) < len(names):
        raise ValueError(f"two of the rules have one name: {', '.join(names)}")
    found = {}
    for rule in chosen:
        grid = asked[rule.name] if rule.name in asked else _usual(rule, rates)
        if not isinstance(grid, Mapping):
            raise TypeError(
                f"grid: {rule.name} is {grid!r}; allowed are lists of numbers, by the hyperparameter's name"
            )
        declared, tried = around.hyperparameters(rule), dict[str, tuple[float, ...]]()
        for name, values in grid.items():
            if name not in (*declared, _SWITCH):
                raise ValueError(
                    f"{rule.name} has no hyperparameter {name!r}; it has: {', '.join(declared)}, {_SWITCH}"
                )
            if isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
                raise TypeError(f"grid: {rule.name}.{name} is {values!r}; allowed is a list of numbers")
            checked = tried[name] = tuple(
                _switch(value) if name == _SWITCH else declared[name].validated(value) for value in values
            )
            if not checked:
                raise ValueError(f"{rule.name}.{name} has no value to try")
            if len(set(checked)) < len(checked):
                raise ValueError(
                    f"{rule.name}.{name} has a value twice: {', '.join(f'{value:g}' for value in checked)}"
                )
        missing = [name for name, each in declared.items() if each.default is None and name not in grid]
        if missing:
            raise ValueError(
                f"{rule.name} needs values of {missing[0]}, which has no default: --grid {rule.name}.{missing[0]}=..."
            )
        found[rule.name] = tried
    return found


def _switch(value: Any) -> bool:
    """Return a truth as which a grid may have a number: 0 or 1."""
    return around.switched(_SWITCH, bool(value) if value in (0, 1) else value)


def _usual(rule: Rule, rates: Sequence[float]) -> Mapping[str, Sequence[float]]:
    if "lr" in rule.hyperparameters:
        return {"lr": rates}
    return ADADELTA if rule is rules.adadelta else _NEEDED.get(rule, {})


def settings(of: Mapping[str, Grid]) -> list[Setting]:
    """Return every setting of every rule's grid, rules in order, the first hyperparameter varying slowest."""
    return [
        Setting(rule, dict(zip(grid, values, strict=True)))
        for rule, grid in of.items()
        for values in itertools.product(*grid.values())
    ]


def parse_grid(texts: Iterable[str]) -> dict[str, dict[str, tuple[float, ...]]]:
    """Read grids as a command line gives them, `rule.name=a,b,c` each. Raises `ValueError` for what is none."""
    grid: dict[str, dict[str, tuple[float, ...]]] = {}
    for text in texts:
        target, equals, values = text.partition("=")
        rule, dot, name = target.partition(".")
        if not (equals and dot and rule and name):
            raise ValueError(f"{text!r} is no grid; allowed is rule.name=a,b,c, such as adadelta.rho=0.9,0.95")
        if name in grid.get(rule, {}):
            raise ValueError(f"the grid of {target} is given twice")
        grid.setdefault(rule, {})[name] = parse_numbers(values, text)
    return grid


def parse_numbers(text: str, context: Any = None) -> tuple[float, ...]:
    """Read numbers with commas between them. Raises `ValueError`, which names `context`, for anything else."""
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{context or text!r} holds {text!r}; allowed are numbers with commas between them") from None
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"{context or text!r} holds a number twice")
    return numbers


def parse_values(texts: Iterable[str]) -> dict[str, float]:
    """Read hyperparameters as `--set` gives them, `name=value` each. Raises `ValueError` for what is none."""
    values = {}
    for each in texts:
        name, equals, value = each.partition("=")
        if name in values:
            raise ValueError(f"--set {name} is given twice")
        try:
            values[name] = float(value)
        except ValueError:
            equals = ""
        if not (name and equals):
            raise ValueError(f"--set is {each!r}; allowed is name=value with a number, such as rho=0.9")
    return values
