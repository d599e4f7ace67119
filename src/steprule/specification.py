"""A rule's signature is its specification; `@rule` reads it.

- A positional parameter without a default is an **input** that the engine supplies: `g` (gradient), `x` (parameter), `t`
  (step count, from 1), `h` (diagonal curvature), `g2` (mean of per-example squared gradients).
- A positional parameter with a default is a **state slot**, and the default is the number that it starts with.
- A keyword-only parameter is a **hyperparameter**; its annotation is the range of its values (`Decay`, `Positive`, ...),
  its default the paper's, and it has none where the paper leaves the choice to the user.

The function returns the update of `x`, then the new slots in their order.
"""

from __future__ import annotations

import functools
import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, overload

from . import named, notation

__all__ = [
    "CURVATURE",
    "INPUTS",
    "Decay",
    "Hyperparameter",
    "NonNegative",
    "Positive",
    "Range",
    "Real",
    "Rule",
    "check_rule",
    "rule",
]

INPUTS: Final[Mapping[str, str]] = {
    "g": "gradient",
    "x": "parameter",
    "t": "step count, from 1",
    "h": "diagonal curvature",
    "g2": "mean of per-example squared gradients",
}
CURVATURE: Final[tuple[str, ...]] = ("h", "g2")
"""The inputs that a step may need beside the gradient, the parameter and the step count."""


@dataclass(frozen=True)
class Range:
    """The values that a hyperparameter may take: from `low` to `high`, each end included unless said otherwise."""

    low: float = -math.inf
    high: float = math.inf
    without_low: bool = False
    without_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = self.low < value if self.without_low else self.low <= value
        below = value < self.high if self.without_high else value <= self.high
        return math.isfinite(value) and above and below

    def __str__(self) -> str:
        left = "(" if self.without_low or math.isinf(self.low) else "["
        right = ")" if self.without_high or math.isinf(self.high) else "]"
        return f"{left}{self.low:g}, {self.high:g}{right}"


Real = Annotated[float, Range()]
"""Any finite number."""
NonNegative = Annotated[float, Range(low=0)]
"""A finite number from 0."""
Positive = Annotated[float, Range(low=0, without_low=True)]
"""A finite number above 0."""
Decay = Annotated[float, Range(low=0, high=1, without_high=True)]
"""The decay of a moving average: from 0, below 1."""


@dataclass(frozen=True)
class Hyperparameter:
    """A hyperparameter's name, its range, and its default (None: the user must choose)."""

    name: str
    range: Range
    default: float | None

    def __str__(self) -> str:
        default = "the user's choice" if self.default is None else f"default {self.default:g}"
        return f"{self.name} in {self.range}, {default}"

    def validated(self, value: Any) -> float:
        """Return `value` as a float.

        Raises `TypeError` if it is no real number and `ValueError` if it is outside the range, NaN or infinite.
        """
        said = f"{self.name} is {value!r}, a {type(value).__name__}; allowed is a number in {self.range}"
        # NumPy's truths, like Python's, are numbers to float() and none to us.
        if type(value).__name__.startswith("bool") or not hasattr(value, "__float__"):
            raise TypeError(said)
        try:
            number = float(value)
        except OverflowError:
            raise ValueError(f"{self.name} is beyond the numbers of float64; allowed is one in {self.range}") from None
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(said) from None
        if number not in self.range:
            raise ValueError(f"{self.name} is {number!r}; allowed is a number in {self.range}")
        return number


class Rule:
    """An update rule: the function as its paper prints it, and what its signature says.

    Calling it calls the function, on numbers or on the arrays of any library.
    """

    def __init__(self, function: Callable[..., Any], source: str, url: str) -> None:
        if not callable(function) or not hasattr(function, "__name__"):
            raise TypeError(
                f"a rule is made of {function!r}; allowed is a function that has a name: write @rule above it, or "
                '@rule(source="...")'
            )
        functools.update_wrapper(self, function)
        self.function: Final = function
        self.name: Final[str] = function.__name__
        self.source: Final = source
        self.url: Final = url
        parameters = inspect.signature(function).parameters.values()
        _refuse_variadic(self.name, parameters)
        positional = [p for p in parameters if p.kind is not p.KEYWORD_ONLY]
        self.inputs: Final = tuple(p.name for p in positional if p.default is p.empty)
        self.curvature: Final = tuple(name for name in CURVATURE if name in self.inputs)
        self.slots: Final[Mapping[str, float]] = {p.name: p.default for p in positional if p.default is not p.empty}
        self.hyperparameters: Final[Mapping[str, Hyperparameter]] = {
            p.name: _hyperparameter(function, p) for p in parameters if p.kind is p.KEYWORD_ONLY
        }
        _check(self)

    @property
    def class_name(self) -> str:
        """The name of its class in a framework: its own, in CamelCase."""
        return "".join(part[:1].upper() + part[1:] for part in re.split("_+", self.name))

    @property
    def introduction(self) -> str:
        """The rule's words and its source, with which the docstring of its class in a framework begins."""
        words = inspect.cleandoc(self.__doc__ or f"Step by the rule {self.name}.")
        return f"{words}\n\nSource: {self.source} {self.url}"

    @property
    def numbers(self) -> list[str]:
        """What each slot starts at, then the range and the default of each hyperparameter, in words."""
        starts = [f"{name} starts at {start:g}" for name, start in self.slots.items()]
        return starts + [str(each) for each in self.hyperparameters.values()]

    def __call__(self, /, *operands: Any, **hyperparameters: Any) -> Any:
        return self.function(*operands, **hyperparameters)

    def __repr__(self) -> str:
        return f"<rule {self.name}: {self.source}>" if self.source else f"<rule {self.name}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        if named.is_file(self.__module__ or ""):  # what exec has made may be of no module
            return named.load, (named.name_of(self),)  # which another process finds without the module
        own: str = self.__qualname__  # type: ignore[attr-defined]  # set by update_wrapper
        return named.name_within(self) or own  # of what no module has, pickle says so in its own words

    def __deepcopy__(self, memo: object) -> Rule:
        return self


def _refuse_variadic(name: str, parameters: Any) -> None:
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise TypeError(
                f"rule {name} takes {parameter}; a rule names each of its inputs, slots and hyperparameters"
            )


def _range(hint: Any) -> Range | None:
    """Return the range within an annotation: in `Annotated`, also beside None (`Decay | None`) or under a name (`type`)."""
    if isinstance(hint, Range):
        return hint
    inner = [*getattr(hint, "__metadata__", ()), *getattr(hint, "__args__", ())]
    if hasattr(hint, "__value__"):
        inner.append(hint.__value__)
    return next((found for found in map(_range, inner) if found is not None), None)


def _hyperparameter(function: Callable[..., Any], parameter: inspect.Parameter) -> Hyperparameter:
    hint = parameter.annotation
    for _ in range(2):  # under `from __future__ import annotations`, and once more where it was in quotes
        if not isinstance(hint, str):
            break
        try:
            hint = eval(hint, inspect.unwrap(function).__globals__)
        except Exception as error:
            raise TypeError(
                f"rule {function.__name__}: the range of {parameter.name} is {hint!r}, which cannot be read ({error}); "
                "allowed is what is there when the module runs, such as Decay of steprule"
            ) from None
    found = _range(hint)
    if found is None and (hint is Range or isinstance(hint, (str, int, float, list, tuple))):
        raise TypeError(
            f"rule {function.__name__}: the range of {parameter.name} is {hint!r}; allowed is one such as Decay or "
            "Range(low=0, high=0.5), and float for any finite number"
        )
    allowed = found or Range()
    bare = Hyperparameter(parameter.name, allowed, None)
    if parameter.default is parameter.empty:
        return bare
    try:
        return Hyperparameter(parameter.name, allowed, bare.validated(parameter.default))
    except (TypeError, ValueError) as error:
        raise type(error)(f"rule {function.__name__}: the default of {error}") from None


def _check(made: Rule) -> None:
    unknown = [name for name in made.inputs if name not in INPUTS]
    if unknown:
        allowed = ", ".join(f"{name} ({meaning})" for name, meaning in INPUTS.items())
        raise TypeError(
            f"rule {made.name} has the input {unknown[0]!r}; an input is one of {allowed}; a slot needs the number that it "
            "starts with as its default, and a hyperparameter stands behind the `*`"
        )
    if "g" not in made.inputs:
        raise TypeError(f"rule {made.name} does not take the gradient `g`")
    for name, initial in made.slots.items():
        if isinstance(initial, bool) or not isinstance(initial, (int, float)):
            raise TypeError(
                f"rule {made.name}: slot {name} starts with {initial!r}, a {type(initial).__name__}; allowed is a number of "
                "Python's, an int or a float"
            )
    # What an engine may keep or make beside the slots: the update, exact and rounded parameters, a slot's codes and scales.
    beside = {"dx", "master", "copy", *(f"{name}_{each}" for name in made.slots for each in ("codes", "scale"))}
    for name in (*made.slots, *made.hyperparameters):
        # `grad_scale` is what every step may divide the gradient by.
        own = name in beside if name in made.slots else name == "grad_scale"
        if own or name in (*INPUTS, "step", *notation.__all__):
            raise TypeError(
                f"rule {made.name}: {name!r} has a meaning of its own; choose another name for the slot or hyperparameter"
            )


def check_rule(value: Any) -> None:
    """Raise `TypeError` for what is no rule, such as its name or a function that is not decorated."""
    if not isinstance(value, Rule):
        raise TypeError(f"rule is {value!r}; allowed is a rule, such as steprule.rules.adadelta")


@overload
def rule(function: Callable[..., Any], /) -> Rule: ...
@overload
def rule(*, source: str = "", url: str = "") -> Callable[[Callable[..., Any]], Rule]: ...
def rule(
    function: Callable[..., Any] | None = None, /, *, source: str = "", url: str = ""
) -> Rule | Callable[[Callable[..., Any]], Rule]:
    """Make an update rule of a function whose signature is its specification, as `steprule.specification` says.

    `source` names the paper and the equation, `url` where to read it. Raises `TypeError` for a signature that says no
    rule::

        @rule(source="Zeiler 2012, eq. 2")
        def sgd(g, *, lr: NonNegative):
            return -lr * g
    """
    if function is not None:
        return Rule(function, source, url)
    return lambda decorated: Rule(decorated, source, url)
