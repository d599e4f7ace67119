"""The docstring of a class: the rule's words, its source, and each argument with its default."""

from __future__ import annotations

from typing import Final

from .derived import DERIVED
from .keywords import OPTIONS, Keywords
from .twins import RELATIVES

__all__ = ["docstring"]

_ABOUT: Final = {
    "weight_decay": "how fast the parameter shrinks, in the way that `decoupled_weight_decay` says",
    "lr_decay": "the rate of step t, from 1, is `lr / (1 + (t - 1) * lr_decay)`",
}


def docstring(keywords: Keywords) -> str:
    """Return the docstring of the class that takes `keywords`; a default is compared with the one of its twin."""
    rule, twin = keywords.rule, keywords.twin
    lines = [rule.introduction, ""]
    if twin:
        lines += [f"In the place of `torch.optim.{twin.cls.__name__}`: its arguments, with its meaning.", ""]
    lines += [f"- `{name}`: {_described(keywords, name)}" for name in list(keywords.signature.parameters)[1:]]
    refused = RELATIVES.get(rule, {})
    for why in dict.fromkeys(refused.values()):
        lines += ["", f"Not taken: {', '.join(refused)}; {why}."]
    return "\n".join(lines)


def _described(keywords: Keywords, name: str) -> str:
    parts = [_values(keywords, name) + _default(keywords, name)]
    twin = keywords.twin
    if name in OPTIONS:
        parts.append(OPTIONS[name][1])
    elif name in _ABOUT and name not in keywords.rule.hyperparameters:
        parts.append(_ABOUT[name])
    elif name == "lr" and name not in keywords.rule.hyperparameters:
        parts.append("multiplies the update")
    elif twin and name in twin.starts:
        parts.append(f"what `{twin.starts[name]}` starts with")
    elif twin and name in twin.only:
        parts.append(f"no other: {twin.only[name][1]}")
    elif twin and name in twin.idle:
        parts.append("without effect, as in torch where the momentum is 0")
    return "; ".join(parts)


def _values(keywords: Keywords, name: str) -> str:
    if name in keywords.pairs:
        own = keywords.rule.hyperparameters
        each = ", ".join(f"{part} in {own[part].range}" for part in keywords.pairs[name])
        return f"the pair {each}, which may be given by their own names too, "
    return f"in {keywords.numbers[name].range}, " if name in keywords.numbers else ""


def _default(keywords: Keywords, name: str) -> str:
    if keywords.requires(name):
        return "required"
    if name in DERIVED.get(keywords.rule, {}):
        return f"default {DERIVED[keywords.rule][name][1]}"
    ours = keywords.defaults[name]
    said = f"default {_written(ours)}"
    theirs = keywords.theirs.get(name)
    return said if theirs is None or theirs.default == ours else f"{said} (torch: {_written(theirs.default)})"


def _written(value: object) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)
