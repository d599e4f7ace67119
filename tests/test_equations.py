"""Equations as LaTeX: each built-in rule's as it is to be read, and any rule's as what the rule computes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steprule import Rule, notation, rule, rules
from steprule.equations import latex
from tests.conformance.users_rules import lion, yogi


def block(*lines: str) -> str:
    return "\n".join([r"\begin{aligned}", " \\\\\n".join(lines), r"\end{aligned}"])


EXPECTED: Mapping[str, str] = {
    "sgd": block(r"\Delta x_t &= -\eta \, g_t"),
    "momentum": block(
        r"\Delta x_t &= \rho \, \mathrm{velocity}_{t-1} - \eta \, g_t",
        r"\mathrm{velocity}_t &= \Delta x_t",
    ),
    "nesterov": block(
        r"\mathrm{velocity}_t &= \rho \, \mathrm{velocity}_{t-1} - \eta \, g_t",
        r"\Delta x_t &= \left(1 + \rho\right) \, \mathrm{velocity}_t - \rho \, \mathrm{velocity}_{t-1}",
    ),
    "adagrad": block(
        r"\mathrm{sum}_t &= \mathrm{sum}_{t-1} + g_t^2",
        r"\Delta x_t &= -\frac{\eta}{\epsilon + \sqrt{\mathrm{sum}_t}} \, g_t",
    ),
    "rmsprop": block(
        r"\mathrm{square\_avg}_t &= \rho \, \mathrm{square\_avg}_{t-1} + \left(1 - \rho\right) \, g_t^2",
        r"\Delta x_t &= -\frac{\eta}{\sqrt{\epsilon + \mathrm{square\_avg}_t}} \, g_t",
    ),
    "rmsprop_nesterov": block(
        r"\mathrm{square\_avg}_t &= \rho \, \mathrm{square\_avg}_{t-1} + \left(1 - \rho\right) \, g_t^2",
        r"\mathrm{velocity}_t &= \alpha \, \mathrm{velocity}_{t-1} - "
        r"\frac{\eta}{\sqrt{\epsilon + \mathrm{square\_avg}_t}} \, g_t",
        r"\Delta x_t &= \left(1 + \alpha\right) \, \mathrm{velocity}_t - \alpha \, \mathrm{velocity}_{t-1}",
    ),
    "adadelta": block(
        r"\mathrm{square\_avg}_t &= \rho \, \mathrm{square\_avg}_{t-1} + \left(1 - \rho\right) \, g_t^2",
        r"\Delta x_t &= -\frac{\sqrt{\mathrm{acc\_delta}_{t-1} + \epsilon}}"
        r"{\sqrt{\mathrm{square\_avg}_t + \epsilon}} \, g_t",
        r"\mathrm{acc\_delta}_t &= \rho \, \mathrm{acc\_delta}_{t-1} + \left(1 - \rho\right) \, \Delta x_t^2",
    ),
    "adam": block(
        r"\mathrm{exp\_avg}_t &= \beta_{1} \, \mathrm{exp\_avg}_{t-1} + \left(1 - \beta_{1}\right) \, g_t",
        r"\mathrm{exp\_avg\_sq}_t &= \beta_{2} \, \mathrm{exp\_avg\_sq}_{t-1} + \left(1 - \beta_{2}\right) \, g_t^2",
        r"\Delta x_t &= -\frac{\eta \, \frac{\mathrm{exp\_avg}_t}{1 - \beta_{1}^{t}}}"
        r"{\sqrt{\frac{\mathrm{exp\_avg\_sq}_t}{1 - \beta_{2}^{t}}} + \epsilon}",
    ),
    "delta_bar_delta": block(
        r"u_{1,t} &= \begin{cases} \mathrm{initial\_rate} & \text{if } \mathrm{rate}_{t-1} < 0 \\ "
        r"\mathrm{rate}_{t-1} & \text{otherwise} \end{cases}",
        r"\mathrm{rate}_t &= \begin{cases} u_{1,t} + \kappa & \text{if } \mathrm{grad\_avg}_{t-1} \, g_t > 0 \\ "
        r"\begin{cases} \left(1 - \phi\right) \, u_{1,t} & \text{if } \mathrm{grad\_avg}_{t-1} \, g_t < 0 \\ "
        r"u_{1,t} & \text{otherwise} \end{cases} & \text{otherwise} \end{cases}",
        r"\mathrm{grad\_avg}_t &= \left(1 - \theta\right) \, g_t + \theta \, \mathrm{grad\_avg}_{t-1}",
        r"\Delta x_t &= -\mathrm{rate}_t \, g_t",
    ),
    "diagonal_newton": block(r"\Delta x_t &= -\frac{g_t}{\left|h_t\right| + \mu}"),
}

LONG = {"vsgd", "vsgd_fd"}
"""Rules that nobody would write out here; that the equations say what they compute is tested below."""


def test_every_built_in_rule_is_here() -> None:
    assert set(EXPECTED) | LONG == set(rules.ALL)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_built_in_rule_reads_as_it_should(name: str) -> None:
    assert latex(rules.ALL[name]) == EXPECTED[name]


def test_a_users_rule_reads_as_its_paper() -> None:
    assert latex(lion) == block(
        r"\Delta x_t &= -\eta \, \operatorname{sgn}\left(\beta_{1} \, \mathrm{exp\_avg}_{t-1} + "
        r"\left(1 - \beta_{1}\right) \, g_t\right)",
        r"\mathrm{exp\_avg}_t &= \beta_{2} \, \mathrm{exp\_avg}_{t-1} + \left(1 - \beta_{2}\right) \, g_t",
    )


def line_of(written: Callable[..., Any]) -> str:
    """Return what the update of a rule is said to be, where it fits into one line."""
    (line,) = re.findall(r"\\Delta x_t &= (.*)", latex(rule(written)))
    return str(line)


@rule
def cases(g, x, h, g2, *, threshold: float = 1e-8, clip_at: float = 1.0):
    return notation.where(notation.abs(g) > threshold, notation.maximum(h, clip_at) * x, notation.minimum(g2, 1.5e-3))


def test_each_function_and_input_has_its_form() -> None:
    assert latex(cases) == block(
        r"\Delta x_t &= \begin{cases} \max\left(h_t, \mathrm{clip\_at}\right) \, x_{t-1} & \text{if } \left|g_t\right| > "
        r"\mathrm{threshold} \\ \min\left(\overline{g^2_t}, 0.0015\right) & \text{otherwise} \end{cases}"
    )


def test_what_is_used_twice_has_a_line_of_its_own() -> None:
    @rule
    def twice(g, *, lr: float = 0.1):
        size = notation.sqrt(g * g + 1)
        return -lr * size / (1 + size)

    assert latex(twice) == block(r"u_{1,t} &= \sqrt{g_t^2 + 1}", r"\Delta x_t &= -\frac{\eta \, u_{1,t}}{1 + u_{1,t}}")


def test_a_slot_that_stays_has_no_line_and_one_that_is_passed_on_has() -> None:
    @rule
    def passing(g, stays=0.0, last=0.0):
        return -last, stays, g

    assert latex(passing) == block(
        r"\Delta x_t &= -\mathrm{last}_{t-1}",
        r"\mathrm{last}_t &= g_t",
    )


@pytest.mark.parametrize(
    ("written", "line"),
    [
        (lambda g: -(g - 1), r"-\left(g_t - 1\right)"),
        (lambda g: 1 - (g - 2), r"1 - \left(g_t - 2\right)"),
        (lambda g: 1 - g - 2, r"1 - g_t - 2"),
        (lambda g: 2 * (g + 1), r"2 \, \left(g_t + 1\right)"),
        (lambda g: (g * g) ** 2, r"\left(g_t^2\right)^2"),
        (lambda g: g**3, r"g_t^2 \, g_t"),
        (lambda g: g**0.5, r"\sqrt{g_t}"),
        (lambda g: g**1.5, r"g_t^{1.5}"),
        (lambda g: -g / 2 / 3, r"-\frac{\frac{g_t}{2}}{3}"),
        (lambda g: 1e-8 * g, r"10^{-8} \, g_t"),
        (lambda g: 25e8 * g, r"2500000000 \, g_t"),
        (lambda g: g * 2.5e-7, r"g_t \cdot 2.5 \cdot 10^{-7}"),
        (lambda g: 2 * (3 * g), r"2 \cdot 3 \, g_t"),
        (lambda g: -g * (2 * 0.9**g), r"-g_t \cdot 2 \cdot 0.9^{g_t}"),
    ],
)
def test_brackets_stand_where_they_must_and_nowhere_else(written: Callable[..., Any], line: str) -> None:
    assert line_of(written) == line


@pytest.mark.parametrize(
    ("written", "line"),
    [
        (lambda g: 1e-8**g, r"\left(10^{-8}\right)^{g_t}"),
        (lambda g: 2.5e-7**g, r"\left(2.5 \cdot 10^{-7}\right)^{g_t}"),
    ],
)
def test_a_number_with_an_exponent_is_bracketed_below_another(written: Callable[..., Any], line: str) -> None:
    assert line_of(written) == line


@pytest.mark.parametrize(
    ("written", "line"),
    [
        (lambda g, x: (-g) ** 2 / x, r"\frac{\left(-g_t\right)^2}{x_{t-1}}"),
        (lambda g, x: x + (-g) ** 2, r"x_{t-1} + \left(-g_t\right)^2"),
        (lambda g, x: (-g) ** 2 * x, r"\left(-g_t\right)^2 \, x_{t-1}"),
    ],
)
def test_the_minus_of_what_is_squared_stays_within_the_square(written: Callable[..., Any], line: str) -> None:
    assert line_of(written) == line


def test_two_hyperparameters_are_two_letters() -> None:
    @rule
    def trusts(g, *, lr=0.1, eta=0.001):
        return -lr * eta * g

    @rule
    def follows(g, *, eta=0.001):
        return -eta * g

    assert r"-\mathrm{lr} \, \eta \, g_t" in latex(trusts)
    assert r"-\eta \, g_t" in latex(follows)


def test_what_is_long_has_lines_of_its_own() -> None:
    @rule
    def rooted(g: Any, *, a: float = 2.0) -> Any:
        root = 1.0
        for _ in range(100):
            root = 0.5 * (root + a / root)  # written out without lines, twice as long each time
        return -g / root

    lines = latex(rooted).splitlines()
    assert lines[1].startswith(r"u_{1,t} &= 0.5")
    assert max(map(len, lines)) < 1000


def test_a_condition_with_a_name_is_bracketed() -> None:
    @rule
    def twice(g, x, last=0.0):
        return notation.where(g * g > x, g, x), notation.where(g * g > x, last, x)

    assert r"u_{1,t} &= \left(g_t^2 > x_{t-1}\right)" in latex(twice)


@pytest.mark.parametrize(
    ("written", "line"),
    [
        (lambda g, x: x + -g, r"x_{t-1} - g_t"),
        (lambda g, x: x * g + -2, r"x_{t-1} \, g_t - 2"),
        (lambda g, x: x + -g * x, r"x_{t-1} - g_t \, x_{t-1}"),
        (lambda g, x: x + (-g + 1), r"x_{t-1} - g_t + 1"),
        (lambda g, x: x + (-2 - g), r"x_{t-1} - 2 - g_t"),
    ],
)
def test_no_sign_stands_behind_another(written: Callable[..., Any], line: str) -> None:
    assert line_of(written) == line


# What follows makes rules at random and reads their LaTeX back. Both are computed in the numbers modulo a prime, where each
# function but + - * / is one that knows nothing of roots or signs and only tells its arguments apart: equal results are no
# accident, and no rounding makes them unequal.

PRIME = 2**61 - 1


def mixed(name: str, *arguments: Exact) -> Exact:
    found = sum(map(ord, name))
    for each in arguments:
        found = (found * 1_000_003 + each.value * each.value + 7 * each.value + 5) % PRIME
    return Exact(found)


class Exact:
    """A number modulo a prime. Division by 0 gives 0."""

    def __init__(self, value: int) -> None:
        self.value = value % PRIME

    @classmethod
    def of(cls, number: Any) -> Exact:
        if isinstance(number, Exact):
            return number
        fraction = Fraction(repr(number)) if isinstance(number, float) else Fraction(number)
        return cls(fraction.numerator * pow(fraction.denominator, -1, PRIME))

    def __array_namespace__(self) -> Any:
        return Functions

    def __neg__(self) -> Exact:
        return Exact(-self.value)

    def __add__(self, other: Any) -> Exact:
        return Exact(self.value + Exact.of(other).value)

    def __sub__(self, other: Any) -> Exact:
        return Exact(self.value - Exact.of(other).value)

    def __rsub__(self, other: Any) -> Exact:
        return Exact.of(other) - self

    def __mul__(self, other: Any) -> Exact:
        return Exact(self.value * Exact.of(other).value)

    __radd__, __rmul__ = __add__, __mul__

    def __truediv__(self, other: Any) -> Exact:
        return Exact(self.value * pow(Exact.of(other).value, PRIME - 2, PRIME))

    def __rtruediv__(self, other: Any) -> Exact:
        return Exact.of(other) / self

    def __pow__(self, other: Any) -> Exact:
        exponent = Exact.of(other)
        if exponent.value in (1, 2, 3, 4):
            return Exact(pow(self.value, exponent.value, PRIME))
        return Functions.sqrt(self) if exponent.value == Exact.of(0.5).value else mixed("power", self, exponent)

    def __rpow__(self, other: Any) -> Exact:
        return Exact.of(other) ** self

    def __lt__(self, other: Any) -> Exact:
        return mixed("<", self, Exact.of(other))

    def __gt__(self, other: Any) -> Exact:
        return mixed(">", self, Exact.of(other))

    def __le__(self, other: Any) -> Exact:
        return mixed(r"\le", self, Exact.of(other))

    def __ge__(self, other: Any) -> Exact:
        return mixed(r"\ge", self, Exact.of(other))


class Functions:
    """What `steprule.notation` asks of a library of arrays."""

    float64 = "exact"

    @staticmethod
    def sqrt(a: Any) -> Exact:
        return mixed("sqrt", Exact.of(a))

    @staticmethod
    def abs(a: Any) -> Exact:
        return mixed("abs", Exact.of(a))

    @staticmethod
    def sign(a: Any) -> Exact:
        return mixed("sign", Exact.of(a))

    @staticmethod
    def maximum(a: Any, b: Any) -> Exact:
        return mixed("maximum", Exact.of(a), Exact.of(b))

    @staticmethod
    def minimum(a: Any, b: Any) -> Exact:
        return mixed("minimum", Exact.of(a), Exact.of(b))

    @staticmethod
    def zeros_like(a: Any, dtype: str = "exact") -> Exact:
        return Exact.of(0)

    @staticmethod
    def where(condition: Any, a: Any, b: Any) -> Exact:
        return mixed("where", Exact.of(condition), Exact.of(a), Exact.of(b))


class Reader:
    """Reads one equation's right side and computes it; `AssertionError` for what LaTeX or a reader would refuse."""

    TOKENS = re.compile(
        r"\s+|(?P<name>\\Delta x_t|(?:\\mathrm\{(?:\w|\\_)+\}|[a-z])_(?:t|\{t-1\}|\{\d+,t\})|\\beta_\{1\}|\\epsilon|t\b)"
        r"|(?P<scientific>(?:\d+(?:\.\d+)? \\cdot )?10\^\{-?\d+\})|(?P<number>\d+(?:\.\d+)?)"
        r"|(?P<word>\\begin\{cases\}|\\end\{cases\}|\\text\{if \}|\\text\{otherwise\}|\\operatorname\{sgn\}"
        r"|\\left[(|]|\\right[)|]|\\\\|\\,|\\[a-z]+|[-+<>^{}&,])"
    )

    def __init__(self, text: str, names: Mapping[str, Exact]) -> None:
        self.names = names
        self.tokens: list[tuple[str, str]] = []
        end = 0
        while end < len(text):
            found = self.TOKENS.match(text, end)
            assert found is not None, f"no LaTeX of ours: {text[end:]}"
            if found.lastgroup:
                self.tokens.append((found.lastgroup, found[0]))
            end = found.end()
        self.tokens.append(("end", ""))

    def next(self) -> str:
        return self.tokens[0][1]

    def take(self, *expected: str) -> str:
        assert not expected or self.next() in expected, f"{self.next()!r} where {expected} should be"
        return self.tokens.pop(0)[1]

    def whole(self) -> Exact:
        found = self.condition()
        self.take("")
        return found

    def condition(self) -> Exact:
        left = self.sum()
        if self.next() not in ("<", ">", r"\le", r"\ge"):
            return left
        return mixed(self.take(), left, self.sum())

    def group(self) -> Exact:
        self.take("{")
        found = self.sum()
        self.take("}")
        return found

    def sum(self) -> Exact:
        found = self.signed()
        while self.next() in ("+", "-"):
            found = found + self.signed() if self.take() == "+" else found - self.product()
        return found

    def signed(self) -> Exact:
        if self.next() == "-":
            self.take()
            return -self.product()
        return self.product()

    def product(self) -> Exact:
        found = self.power()
        while self.next() in (r"\,", r"\cdot"):
            spaced = self.take() == r"\,"
            assert not (spaced and self.next()[0].isdigit()), "a number after a space reads as digits of the one before"
            found = found * self.power()
        return found

    def power(self) -> Exact:
        kind = self.tokens[0][0]
        base = self.atom()
        if self.next() != "^":
            return base
        assert kind != "scientific", "two superscripts on one base"
        self.take()
        found = base ** (self.group() if self.next() == "{" else Exact.of(int(self.take("2"))))
        assert self.next() != "^", "two superscripts on one base"
        return found

    def atom(self) -> Exact:
        kind, text = self.tokens.pop(0)
        if kind == "name":
            return self.names[text]
        if kind == "number":
            return Exact.of(Fraction(text))
        if kind == "scientific":
            factor, _, exponent = text.rpartition("10^")
            return Exact.of(Fraction(factor.removesuffix(r" \cdot ") or 1) * Fraction(10) ** int(exponent.strip("{}")))
        return self.form(text)

    def form(self, text: str) -> Exact:
        if text == r"\frac":
            above = self.group()
            return above / self.group()
        if text == r"\sqrt":
            return Functions.sqrt(self.group())
        if text == r"\left(":
            return self.inside(r"\right)")
        if text == r"\left|":
            return Functions.abs(self.inside(r"\right|"))
        if text == r"\operatorname{sgn}":
            self.take(r"\left(")
            return Functions.sign(self.inside(r"\right)"))
        if text in (r"\max", r"\min"):
            self.take(r"\left(")
            first = self.inside(",")
            return (Functions.maximum if text == r"\max" else Functions.minimum)(first, self.inside(r"\right)"))
        assert text == r"\begin{cases}", text
        first = self.inside("&")
        self.take(r"\text{if }")
        condition = self.inside(r"\\")
        second = self.inside("&")
        self.take(r"\text{otherwise}")
        self.take(r"\end{cases}")
        return Functions.where(condition, first, second)

    def inside(self, end: str) -> Exact:
        found = self.condition()
        self.take(end)
        return found


SYMBOLS = {
    "g": "g_t",
    "x": "x_{t-1}",
    "t": "t",
    "a": "a_{t-1}",
    "square_avg": r"\mathrm{square\_avg}_{t-1}",
    "beta1": r"\beta_{1}",
    "eps": r"\epsilon",
}
NUMBERS = st.sampled_from([1.0, 2.0, 0.5, 0.1, 1e-8, 1.5e-3, -3.0, -2e-7])
BASES = st.sampled_from(
    [2.0, 0.5]
)  # below an exponent, see `test_a_number_with_an_exponent_is_bracketed_below_another`


def larger(trees: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    side = trees | NUMBERS
    names = st.sampled_from(["+", "-", "*", "/", "maximum", "minimum"])
    return st.one_of(
        st.tuples(names, trees, side),
        st.tuples(names, side, trees),
        st.tuples(st.just("**"), trees, side | st.sampled_from([2.0, 3.0, 0.5])),
        st.tuples(st.just("**"), st.tuples(st.just("negative"), trees), st.just(2.0)),
        st.tuples(st.just("**"), BASES, trees),
        st.tuples(st.sampled_from(["negative", "sqrt", "abs", "sign"]), trees),
        st.tuples(st.sampled_from(["<", ">", "<=", ">="]), trees, side, side, side),
    )


TREES = st.recursive(st.sampled_from(list(SYMBOLS)), larger, max_leaves=12)

OPERATIONS: Mapping[str, Callable[..., Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "**": lambda a, b: a**b,
    "negative": lambda a: -a,
    "<": lambda a, b, c, d: notation.where(a < b, c, d),
    ">": lambda a, b, c, d: notation.where(a > b, c, d),
    "<=": lambda a, b, c, d: notation.where(a <= b, c, d),
    ">=": lambda a, b, c, d: notation.where(a >= b, c, d),
} | {name: getattr(notation, name) for name in notation.__all__}


def computed(tree: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(tree, str):
        return values[tree]
    if isinstance(tree, float):
        return tree
    return OPERATIONS[tree[0]](*(computed(each, values) for each in tree[1:]))


def random_rule(trees: tuple[Any, Any, Any]) -> Rule:
    @rule
    def made(g, x, t, a=0.0, square_avg=1.0, *, beta1: float = 0.9, eps: float = 1e-8):
        values = {"g": g, "x": x, "t": t, "a": a, "square_avg": square_avg, "beta1": beta1, "eps": eps}
        return tuple(computed(tree, values) for tree in trees)

    return made


def read(text: str, values: Mapping[str, Exact]) -> dict[str, Exact]:
    """Compute the equations from the values of the symbols; return what each name stands for at the end."""
    first, *_, last = text.splitlines()
    assert (first, last) == (r"\begin{aligned}", r"\end{aligned}")
    names = {SYMBOLS[name]: value for name, value in values.items()}
    for line in text.removeprefix(first).removesuffix(last).strip("\n").split(" \\\\\n"):
        left, _, right = line.partition(" &= ")
        assert left not in names, f"{left} twice"
        names[left] = Reader(right, names).whole()
    return names


@given(st.tuples(TREES, TREES, TREES))
def test_any_rules_equations_mean_what_it_computes(trees: tuple[Any, Any, Any]) -> None:
    made = random_rule(trees)
    text = latex(made)
    assert text.count("{") == text.count("}")
    assert text.count(r"\left") == text.count(r"\right")
    values = {name: mixed(name) for name in SYMBOLS}
    dx, a, square_avg = made(
        *(values[name] for name in ("g", "x", "t", "a", "square_avg")), beta1=values["beta1"], eps=values["eps"]
    )
    names = read(text, values)
    assert names[r"\Delta x_t"].value == dx.value
    # What a rule returns as it was has no line.
    assert names.get("a_t", values["a"]).value == a.value
    assert names.get(r"\mathrm{square\_avg}_t", values["square_avg"]).value == square_avg.value


@pytest.mark.parametrize("built_in", [*rules.ALL.values(), yogi, lion, cases], ids=lambda each: each.name)
def test_braces_are_balanced(built_in: Rule) -> None:
    depth = 0
    for sign in re.findall(r"(?<!\\)[{}]", latex(built_in)):
        depth += 1 if sign == "{" else -1
        assert depth >= 0
    assert depth == 0
