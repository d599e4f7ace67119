"""Rules that nobody would write: random equations with every operator of the notation."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import strategies as st

from steprule import Rule, notation, rule

__all__ = ["equations", "made", "random_rules"]

_SCALARS = ("p", "q", "t", "0.3", "2.0", "-1.5", "7")
_ELEMENTS = ("g", "x", "slow", "fast")


@dataclass(frozen=True)
class _Equation:
    text: str
    varies: bool


def _scalar_or_element() -> st.SearchStrategy[_Equation]:
    element = st.sampled_from(_ELEMENTS).map(lambda name: _Equation(name, True))
    return element | st.sampled_from(_SCALARS).map(lambda name: _Equation(name, False))


def _joined(template: str) -> Callable[..., _Equation]:
    def join(*parts: _Equation) -> _Equation:
        return _Equation(template.format(*(part.text for part in parts)), any(part.varies for part in parts))

    return join


def _larger(smaller: st.SearchStrategy[_Equation]) -> st.SearchStrategy[_Equation]:
    one = ["-({})", "abs({})", "sign({})", "sqrt(abs({}))", "({}) ** 2", "+({})"]
    two = ["({} + {})", "({} - {})", "({} * {})", "maximum({}, {})", "minimum({}, {})"]
    choices = [st.builds(_joined(template), smaller) for template in one]
    choices += [st.builds(_joined(template), smaller, smaller) for template in two]
    # Python itself compares two numbers, and a bool is no operand: a name stands on the left.
    named = st.sampled_from([*_ELEMENTS, "p", "q", "t"]).map(lambda name: _Equation(name, name in _ELEMENTS))
    choices.append(
        st.builds(
            lambda sign, *parts: _joined(f"where({{}} {sign} {{}}, {{}}, {{}})")(*parts),
            st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
            named,
            smaller,
            smaller,
            smaller,
        )
    )
    # A division by a scalar is a product with its reciprocal, which rounds otherwise: the divisor varies. It stays off 0,
    # whose sign engines need not agree about.
    element = st.sampled_from(_ELEMENTS)
    choices.append(st.builds(lambda a, b: _Equation(f"({a.text} / (abs({b}) + 0.25))", True), smaller, element))
    return st.one_of(choices)


def equations() -> st.SearchStrategy[str]:
    """Expressions of the rule's names, as text, that differ from element to element."""
    return st.recursive(_scalar_or_element(), _larger, max_leaves=12).map(
        lambda equation: equation.text if equation.varies else f"({equation.text} + g)"
    )


@functools.cache
def made(dx: str, slow: str, fast: str) -> Rule:
    """Return the rule that returns the three expressions."""
    scope = {name: getattr(notation, name) for name in notation.__all__}
    text = f"def random(g, x, t, slow=0.5, fast=-1.0, *, p=0.75, q=-1.25): return {dx}, {slow}, {fast}"
    exec(text, scope)
    scope["random"].__doc__ = text
    return rule(scope["random"])


def random_rules() -> st.SearchStrategy[Rule]:
    """Rules whose slots may be what the parameter, the gradient or another slot was, or stay."""
    slot = equations() | st.sampled_from(_ELEMENTS)
    return st.builds(made, equations(), slot, slot)
