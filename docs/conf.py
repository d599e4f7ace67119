"""Sphinx: the guide is written by hand; each rule's page is made from the rule itself."""

import inspect
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

import steprule
from steprule import around, equations, rules
from steprule.program import lower
from steprule.specification import Rule

project = "steprule"
author = "The steprule developers"
copyright = author
release = steprule.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_math_renderer = "mathml"
myst_enable_extensions = ["dollarmath"]
html_theme = "furo"
html_static_path = ["formulas.css"]
html_css_files = ["formulas.css"]
html_title = f"steprule {release}"
exclude_patterns = ["_build"]
autodoc_typehints = "none"
default_role = "code"
suppress_warnings = ["myst.header"]


def setup(app: Sphinx) -> None:
    """Have formulas as MathML, which browsers show by themselves: MathJax would be fetched from elsewhere at each look."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))


def _inline(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def _block(translator: HTML5Translator, node: nodes.math_block) -> None:
    translator.body.append(tex2mathml(node.astext(), as_block=True))
    raise nodes.SkipNode


_INTRODUCTION = (
    "Made from the rules' own code: the equations are those that the engines run. $\\Delta x_t$ is the update; a slot of "
    "state with the index $t-1$ is what the step before has left."
)


def _equations(rule: Rule) -> str:
    # docutils takes a slot `sum` for the operator, whose index stands below it.
    return equations.latex(rule).replace("}_", r"}\nolimits_")


def _page() -> str:
    parts = [
        "# The rules",
        _INTRODUCTION,
    ]
    for rule in rules.ALL.values():
        program = lower(rule)
        parts += [
            f"## {rule.name}",
            inspect.cleandoc(rule.__doc__ or ""),
            f"$$\n{_equations(rule)}\n$$",
            (
                f"Source: [{rule.source}]({rule.url}). A float32 step moves {program.bytes_per_element(4)} bytes and does "
                f"{program.operations} operations per element."
            ),
            "\n".join(f"- {each}" for each in rule.numbers),
        ]
    outer = [name for name in around.hyperparameters(rules.adadelta) if name not in rules.adadelta.hyperparameters]
    parts.append(f"Around every rule, in every engine: {', '.join(f'`{name}`' for name in outer)} and `maximize`.")
    return "\n\n".join(parts) + "\n"


(Path(__file__).parent / "rules.md").write_text(_page(), encoding="utf-8")
