"""Every rule on every engine for two hundred steps on real data, beside the oracle and other libraries' optimizers."""

from __future__ import annotations

from pathlib import Path

import pytest
from examples import own_rule
from tests.conformance import table
from tests.conformance.cases import RULES
from tests.conformance.engines import ENGINES
from tests.conformance.tolerances import LOSSES, ULPS, WITHOUT_BOUND, over_steps
from tests.conformance.trajectory import loss_apart, oracle, twin_apart, ulps_apart
from tests.conformance.twins import TWINS, Twin
from tests.requirements import require_installed

from steprule import rules

CASES = [
    pytest.param(name, dtype, rule, id=f"{name}-{dtype}-{rule}")
    for name, engine in ENGINES.items()
    if engine.many_steps and not engine.absent
    for dtype in engine.dtypes
    for rule, each in RULES.items()
    if engine.takes(each)
    if engine.widens or (dtype, rule) not in WITHOUT_BOUND
]

# Of "module" scope, so that tests of one engine and rule follow each other: what the first compiles serves the second.


@pytest.fixture(autouse=True)
def _digits() -> None:
    require_installed("sklearn")


@pytest.mark.parametrize(("engine", "dtype", "rule"), CASES, scope="module")
def test_an_engine_keeps_to_the_oracles_way(engine: str, dtype: str, rule: str):
    allowed = over_steps(dtype, rule)
    assert ulps_apart(engine, dtype, rule) <= allowed.amount, allowed.reason


def _by_themselves(engine: str, dtype: str) -> bool:
    # In float64, and of the same operations in other libraries, the first test says all; `make conformance` runs them too.
    return dtype != "float64" and ("NumPy" in engine or not engine.startswith("reference on "))


@pytest.mark.parametrize(
    ("engine", "dtype", "rule"), [case for case in CASES if _by_themselves(*case.values[:2])], scope="module"
)
def test_an_engine_comes_to_the_oracles_loss_by_itself(engine: str, dtype: str, rule: str):
    assert loss_apart(engine, dtype, rule) <= LOSSES[dtype].amount, LOSSES[dtype].reason


@pytest.mark.parametrize("rule", RULES)
def test_the_oracle_learns(rule: str):
    way = oracle(rule, "float64")
    assert way.loss < 0.7 * way.loss_before


@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.name)
def test_a_twin_makes_the_rules_steps(twin: Twin):
    allowed = ULPS["twin over 200 steps"]
    assert twin_apart(twin, "float64", twin.values) <= allowed.amount, allowed.reason


@pytest.mark.parametrize("twin", [twin for twin in TWINS if twin.differing], ids=lambda twin: twin.name)
def test_a_twin_that_differs_does(twin: Twin):
    values = twin.values | dict(twin.differing)
    assert twin_apart(twin, "float64", values) > 1e6 * ULPS["twin over 200 steps"].amount


def test_optaxs_adadelta_ascends_where_it_is_given_no_rate():
    require_installed("jax", "optax")
    import jax.numpy as jnp
    import optax

    bare = optax.adadelta()
    update, _ = bare.update(jnp.ones(1), bare.init(jnp.ones(1)), jnp.ones(1))
    assert float(update[0]) > 0


def test_two_rules_of_the_example_are_among_them_as_they_stand():
    users = {name: rule for name, rule in RULES.items() if name not in rules.ALL}
    assert users == {"yogi": own_rule.yogi, "lion": own_rule.lion}


class TestThePage:
    def test_it_shows_every_rule_and_engine(self):
        shown = (Path(__file__).parents[2] / "docs" / "conformance.md").read_text(encoding="utf-8")
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown.splitlines() if line.startswith("|")]
        headings = [row for row in rows if row[-1] == "loss"]
        assert headings == [["", *RULES, "loss"]] * 4
        engines = {
            name.replace(", lower types", "") for name, each in ENGINES.items() if each.many_steps and not each.absent
        }
        assert engines <= {row[0] for row in rows}
        assert [twin.name for twin in TWINS if f"`{twin.name}`" not in shown] == []

    def test_it_is_made_of_parts_from_several_processes(self):
        figures = {"ulps": 3.2, "loss": 0.25}
        parts = [
            {"versions": {"numpy": "1"}, "engines": {"this": {"float64": dict.fromkeys(RULES, figures)}}},
            {"versions": {"numpy": "2"}, "engines": {"that": {"float64": {"adam": figures}}}},
        ]
        made = table.page(parts)
        assert f"| this | {'3 | ' * len(RULES)}0.2 |" in made
        assert f"| that | {''.join('3 | ' if rule == 'adam' else ' | ' for rule in RULES)}0.2 |" in made
        assert "- this: numpy 1." in made
        assert "- that: numpy 2." in made

    def test_a_part_holds_the_engines_that_were_asked_for(self):
        part = table.measured("CPU kernel")
        assert list(part["engines"]) == ["CPU kernel"]
        assert part["engines"]["CPU kernel"]["float32"].keys() == RULES.keys()
        assert "numpy" in part["versions"]
