"""Sphinx: the guide is written by hand; each rule's page is made from the rule itself."""

import inspect
from pathlib import Path

import steprule
from steprule import around, equations, rules
from steprule.program import lower

project = "steprule"
author = "The steprule developers"
release = steprule.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath", "amsmath"]
html_theme = "furo"
html_title = f"steprule {release}"
exclude_patterns = ["_build"]
autodoc_typehints = "none"
suppress_warnings = ["myst.header"]


_INTRODUCTION = (
    "Made from the rules' own code: the equations are those that the engines run. $\\Delta x_t$ is the update; a slot of "
    "state with the index $t-1$ is what the step before has left."
)


def _page() -> str:
    parts = [
        "# The rules",
        _INTRODUCTION,
    ]
    for rule in rules.ALL.values():
        program = lower(rule)
        settings = [
            f"- `{name}` in {each.range}, "
            + ("the user's choice" if each.default is None else f"default {each.default:g}")
            for name, each in rule.hyperparameters.items()
        ]
        parts += [
            f"## {rule.name}",
            inspect.cleandoc(rule.__doc__ or ""),
            equations.latex(rule).replace("aligned", "align*"),
            (
                f"Source: [{rule.source}]({rule.url}). A float32 step moves {program.bytes_per_element(4)} bytes and does "
                f"{program.operations} operations per element."
            ),
            "\n".join(settings),
        ]
    outer = [name for name in around.hyperparameters(rules.adadelta) if name not in rules.adadelta.hyperparameters]
    parts.append(f"Around every rule, in every engine: {', '.join(f'`{name}`' for name in outer)} and `maximize`.")
    return "\n\n".join(parts) + "\n"


(Path(__file__).parent / "rules.md").write_text(_page(), encoding="utf-8")
