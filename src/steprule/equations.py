"""A rule's equations as LaTeX, from its program."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from .program import Value, lower
from .specification import Rule

__all__ = ["latex"]

_GREEK: Final = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau phi chi psi omega".split()  # noqa: SIM905
)
_LETTERS: Final[Mapping[str, str]] = {"lr": r"\eta", "eps": r"\epsilon"} | {name: rf"\{name}" for name in _GREEK}
_SIGNS: Final = {
    "add": "+",
    "subtract": "-",
    "less": "<",
    "less_equal": r"\le",
    "greater": ">",
    "greater_equal": r"\ge",
    "equal": "=",
    "not_equal": r"\ne",
}
_COMPARISON, _SUM, _PRODUCT, _POWER, _ATOM = range(5)


def latex(rule: Rule) -> str:
    r"""Return the equations of `rule` as a LaTeX `aligned` block, one line for each slot and for the update.

    A subscript t marks what the step makes, t-1 what the step before has left. The update is \Delta x_t.
    """
    program = lower(rule, None)
    symbols = {name: _symbol(name, slots=rule.slots) for name in (*program.inputs, *rule.hyperparameters, "t")}
    for name in rule.hyperparameters:
        if list(symbols.values()).count(symbols[name]) > 1:
            symbols[name] = _spelled(name)  # lr beside eta
    names: dict[int, str] = {}
    lines, helpers = [], 0
    lefts = {name: r"\Delta x_t" if name == "dx" else rf"{_word(name)}_t" for name in program.outputs}
    outputs = {id(value): name for name, value in reversed(list(program.outputs.items()))}
    for value in (*program.scalar_lines(), *program.line_values()):
        if id(value) not in outputs and all(operand.operation == "symbol" for operand in value.operands):
            continue  # so short that it reads better in its place, though the loop computes it once
        text, rank = _Writer(names, symbols).write(value)
        if id(value) in outputs:
            names[id(value)] = lefts[outputs[id(value)]]
        else:
            helpers += 1
            names[id(value)] = f"u_{{{helpers},t}}"
        if rank == _COMPARISON:
            text = rf"\left({text}\right)"
        lines.append(f"{names[id(value)]} &= {text}")
    for name, value in program.outputs.items():
        if lefts[name] not in names.values():
            lines.append(f"{lefts[name]} &= {_Writer(names, symbols).write(value)[0]}")
    return "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"


def _word(name: str) -> str:
    return _LETTERS.get(name) or (name if len(name) == 1 else _spelled(name))


def _spelled(name: str) -> str:
    return rf"\mathrm{{{name}}}".replace("_", r"\_")


def _symbol(name: str, slots: Mapping[str, float]) -> str:
    if name in slots:
        return f"{_word(name)}_{{t-1}}"
    if name in ("g", "h"):
        return f"{name}_t"
    if name == "g2":
        return r"\overline{g^2_t}"
    if name == "x":
        return "x_{t-1}"
    numbered = re.fullmatch(r"([a-z]+)(\d+)", name)
    if numbered and numbered[1] in _LETTERS:
        return f"{_LETTERS[numbered[1]]}_{{{numbered[2]}}}"
    return _word(name)


class _Writer:
    """Writes values; those in `names`, by their `id`, as the name that they have."""

    def __init__(self, names: Mapping[int, str], symbols: Mapping[str, str]) -> None:
        self._names = names
        self._symbols = symbols

    def write(self, value: Value) -> tuple[str, int]:
        """Return the LaTeX of `value` and how tightly it holds together."""
        if id(value) in self._names:
            return self._names[id(value)], _ATOM
        if value.operation == "symbol":
            return self._symbols[value.name], _ATOM
        if value.operation == "number":
            return _number(value.number)
        return self._operation(value)

    def _operation(self, value: Value) -> tuple[str, int]:
        operation, operands = value.operation, value.operands
        if operation in _SIGNS:
            rank = _SUM if operation in ("add", "subtract") else _COMPARISON
            right = rank + 1 if operation == "subtract" else rank
            first, second = self._held(operands[0], rank), self._held(operands[1], right)
            if operation == "add" and second.startswith("-"):
                return f"{first} - {second.removeprefix('-')}", rank
            return f"{first} {_SIGNS[operation]} {second}", rank
        if operation == "negative":
            return f"-{self._held(operands[0], _PRODUCT)}", _SUM
        if operation == "multiply":
            return self._product(*operands)
        if operation == "divide":
            return self._fraction(*operands)
        if operation == "power":
            return f"{self._held(operands[0], _ATOM)}^{{{self.write(operands[1])[0]}}}", _POWER
        parts = [self.write(operand)[0] for operand in operands]
        if operation == "where":
            cases = rf"{parts[1]} & \text{{if }} {parts[0]} \\ {parts[2]} & \text{{otherwise}}"
            return rf"\begin{{cases}} {cases} \end{{cases}}", _PRODUCT
        forms = {
            "sqrt": r"\sqrt{{{}}}",
            "abs": r"\left|{}\right|",
            "sign": r"\operatorname{{sgn}}\left({}\right)",
            "maximum": r"\max\left({}, {}\right)",
            "minimum": r"\min\left({}, {}\right)",
        }
        return forms[operation].format(*parts), _ATOM

    def _product(self, left: Value, right: Value) -> tuple[str, int]:
        if left is right:
            held = self._held(left, _ATOM)
            # Names have subscripts only, so the exponent needs no brackets: g_t^2.
            return f"{held}^2", _POWER
        right_text = self._held(right, _PRODUCT)
        sign = r"\cdot" if right_text[0].isdigit() else r"\,"  # 2 and 3 side by side would read as 23
        if self._negated(left):
            return f"{self.write(left)[0]} {sign} {right_text}", _SUM
        return f"{self._held(left, _PRODUCT)} {sign} {right_text}", _PRODUCT

    def _fraction(self, above: Value, below: Value) -> tuple[str, int]:
        text, sign, rank = self.write(above)[0], "", _PRODUCT
        if self._negated(above):
            text, sign, rank = text.removeprefix("-"), "-", _SUM
        return rf"{sign}\frac{{{text}}}{{{self.write(below)[0]}}}", rank

    def _negated(self, value: Value) -> bool:
        """Whether `value` is written as a minus and then a product."""
        if id(value) in self._names:
            return False
        if value.operation == "multiply" and value.operands[0] is value.operands[1]:
            return False  # a square holds its minus in brackets
        if value.operation in ("multiply", "divide"):
            return self._negated(value.operands[0])
        return value.operation == "negative"

    def _held(self, value: Value, least: int) -> str:
        text, rank = self.write(value)
        return text if rank >= least else rf"\left({text}\right)"


def _number(number: float) -> tuple[str, int]:
    """Return the LaTeX of a number and how tightly it holds together."""
    text = f"{number:.12g}"
    mantissa, _, exponent = text.partition("e")
    negative = _SUM if text.startswith("-") else None
    if not exponent:
        return text.replace("inf", r"\infty"), negative or _ATOM
    power = rf"10^{{{int(exponent)}}}"
    return (power, _POWER) if mantissa == "1" else (rf"{mantissa} \cdot {power}", negative or _PRODUCT)
