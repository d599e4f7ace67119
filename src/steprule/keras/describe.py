"""The docstring of a class: the rule's words, its source, and each argument with its default."""

from __future__ import annotations

from typing import Final

from .keywords import OPTIONS, Keywords

__all__ = ["docstring"]

_ABOUT: Final = {
    "learning_rate": "a number in [0, inf), a `LearningRateSchedule` or a function without arguments",
    "weight_decay": "a number in [0, inf); with which the parameter shrinks, see `decoupled_weight_decay`",
    "lr_decay": "a number in [0, inf); the rate of step t, from 1, is divided by `1 + (t - 1) * lr_decay`",
    **{name: said for name, (_, said) in OPTIONS.items()},
}


def docstring(keywords: Keywords) -> str:
    """Return the docstring of the class that takes `keywords`."""
    rule = keywords.rule
    lines = [
        rule.introduction,
        "",
        *(f"- `{name}`: {_described(keywords, name)}" for name in keywords.signature.parameters),
    ]
    return "\n".join(lines)


def _described(keywords: Keywords, name: str) -> str:
    default = "required" if keywords.requires(name) else f"default {keywords.defaults[name]!r}"
    own = name in keywords.numbers and name in (keywords.names[each] for each in keywords.rule.hyperparameters)
    if own and name != "learning_rate":
        return f"in {keywords.numbers[name].range}, {default}"
    if name in _ABOUT:
        return f"{_ABOUT[name]}; {default}"
    return f"as in every optimizer of Keras; {default}"
