"""How far each engine is from the oracle after 200 steps (`trajectory`), as a table for the documentation.

    python -m tests.conformance.table measure PART.json [WORDS]
    python -m tests.conformance.table page docs/conformance.md PART.json ...

`measure` runs the engines of this environment, or those whose name holds WORDS, and writes what it finds; `page` makes one
page of such parts, so that engines that cannot be in one process (Keras's backends, MXNet) are measured in several.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import tests.conftest  # noqa: F401  # Triton before TensorFlow

from .cases import RULES
from .engines import ENGINES
from .tolerances import LOSSES, WITHOUT_BOUND, Allowed, over_steps
from .trajectory import STEPS, loss_apart, ulps_apart
from .twins import TWINS

__all__ = ["measured", "page"]

_LIBRARIES: Final = ("numpy", "numba", "torch", "jax", "optax", "tensorflow-cpu", "keras", "mxnet", "array-api-strict")

_HEAD: Final = """# Conformance

`make conformance` writes this page. How far is each engine from the float64 oracle after {steps} steps? A row is an engine,
a column is a rule: the built-in ones, and `yogi` and `lion` of `examples/own_rule.py`, which are run as they stand. A figure
is the largest distance of any parameter or slot, in units in the last place (ulps) of the element type, at the largest size
that the element has had on the way. 0 says that every bit is the same.

The problem is softmax regression on scikit-learn's digits, in mini-batches of 64. Its gradients are computed in float64
along the oracle's way, rounded to the element type, and given to every engine alike, so that a figure is the rule's error
and no more. In a second run the engine's own parameters make the gradients: the last column is how far its loss is at the
end from the oracle's, as a share, for the rule where that is most. What a rule takes beside the gradient (`h`, `g2`) is
made of the gradient's numbers.

The oracle is `steprule.reference` on NumPy in float64, whose own row is 0 for that reason. For types below float32 it rounds
what it keeps to the type after each step. The engines compute those types in float32; `steprule.reference` computes in the
type that it is given.

`tests/conformance/trajectory.py` is the code, and `tests/conformance/tolerances.py` has every bound. What one step may be
off by, infinities, NaN and other shapes are held to narrower bounds in `tests/conformance/test_engines.py`; see
[Numbers](numbers.md).
"""


def measured(words: str = "") -> dict[str, Any]:
    """Return what the engines whose name holds `words` are off by, and the versions that they were run with."""
    found: dict[str, Any] = {}
    for name, engine in ENGINES.items():
        if engine.absent or not engine.many_steps or words not in name:
            continue
        for dtype in engine.dtypes:
            print(f"{name}, {dtype}", file=sys.stderr, flush=True)
            found.setdefault(name, {})[dtype] = {
                rule: {"ulps": ulps_apart(name, dtype, rule), "loss": loss_apart(name, dtype, rule)}
                for rule, each in RULES.items()
                if engine.takes(each)
            }
    return {"versions": dict(_versions()), "engines": found}


def _versions() -> Iterator[tuple[str, str]]:
    yield "Python", platform.python_version()
    for library in _LIBRARIES:
        try:
            yield library, importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue


def page(parts: list[Mapping[str, Any]]) -> str:
    """Return the page of what was `measured` in one or more processes."""
    engines = {name: dtypes for part in parts for name, dtypes in part["engines"].items()}
    lines = [_HEAD.format(steps=STEPS)]
    for dtype in ("float64", "float32", "bfloat16", "float16"):
        lines += [f"## {dtype}", "", *_table(engines, dtype), ""]
    lines += ["## Bounds", "", *_bounds(), ""]
    lines += ["## The libraries' own optimizers", "", *_twins(), ""]
    lines += ["## How it was made", "", *map(_made, parts)]
    lines += [
        f"- Not run: {_plainly(name)}, since {engine.absent}."
        for name, engine in ENGINES.items()
        if engine.absent and name not in engines
    ]
    lines += [
        "- Not run: CuPy, which needs a GPU. `steprule.reference` asks of its arrays what array-api-strict has, and no more."
    ]
    return "\n".join(lines) + "\n"


def _plainly(name: str) -> str:
    return name.replace(", lower types", "")


def _made(part: Mapping[str, Any]) -> str:
    names = "; ".join(dict.fromkeys(map(_plainly, part["engines"])))
    return f"- {names}: {', '.join(f'{library} {version}' for library, version in part['versions'].items())}."


def _table(engines: Mapping[str, Any], dtype: str) -> Iterator[str]:
    yield f"| | {' | '.join(RULES)} | loss |"
    yield f"|---|{'---|' * (len(RULES) + 1)}"
    for name, dtypes in engines.items():
        if dtype in dtypes:
            cells = [dtypes[dtype].get(rule) for rule in RULES]
            figures = ["" if cell is None else _figure(cell["ulps"]) for cell in cells]
            loss = np.max([cell["loss"] for cell in cells if cell is not None])
            yield f"| {_plainly(name)} | {' | '.join(figures)} | {loss:.1g} |"


def _figure(number: float) -> str:
    return f"{number:.0f}" if number < 10_000 else f"{number:.0e}".replace("e+0", "e")


def _bounds() -> Iterator[str]:
    yield "| what | at most | because |"
    yield "|---|---|---|"
    for what, allowed in _all_bounds():
        yield f"| {what} | {allowed.amount:g} | {allowed.reason} |"
    yield ""
    yield "`steprule.reference` in the lower types themselves has no bound for:"
    yield ""
    for (dtype, rule), reason in WITHOUT_BOUND.items():
        yield f"- `{rule}` in {dtype}: {reason}."


def _all_bounds() -> Iterator[tuple[str, Allowed]]:
    for dtype in ("float64", "float32", "bfloat16", "float16"):
        common = over_steps(dtype, "")
        yield f"ulps in {dtype}", common
        for rule in RULES:
            if over_steps(dtype, rule) != common:
                yield f"ulps in {dtype}, {rule}", over_steps(dtype, rule)
    for dtype, allowed in LOSSES.items():
        yield f"share of the loss in {dtype}", allowed


def _twins() -> Iterator[str]:
    yield "| library | its optimizer | our rule | what differs, and why |"
    yield "|---|---|---|---|"
    for twin in TWINS:
        yield f"| {twin.framework} | `{twin.name}` | `{twin.rule}` | {twin.difference or 'nothing'} |"


def main(words: list[str]) -> None:
    match words:
        case ["measure", part, *names]:
            Path(part).parent.mkdir(parents=True, exist_ok=True)
            Path(part).write_text(json.dumps(measured(" ".join(names))), encoding="utf-8")
        case ["page", to, *parts]:
            made = page([json.loads(Path(part).read_text(encoding="utf-8")) for part in parts])
            Path(to).write_text(made, encoding="utf-8")
            print(made)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
