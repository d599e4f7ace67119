"""The benchmark of steps in JAX: contenders, tables, and what is written."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import optax
import pytest
from rich.console import Console

from steprule import rules
from steprule.bench import in_jax
from steprule.bench import steps as bench_steps
from steprule.bench.in_jax import JAX_SIZES, OPTAX, JaxBench, jax_as_json, jax_tables, measure_jax
from steprule.bench.timing import Times
from steprule.cli import app

NAMES = ["steprule together", "steprule apart", "optax together", "optax apart", "steprule apply"]


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(JAX_SIZES, "mnist", [(3, 4), (5,)])
    monkeypatch.setattr(in_jax, "REPEATS", ((1_000, 2, 3),))


@pytest.mark.parametrize("name", OPTAX)
def test_every_contender_is_measured_as_often(name: str) -> None:
    made = measure_jax("mnist", name)
    assert list(made.times) == NAMES
    assert {len(times.seconds) for times in made.times.values()} == {6}
    assert (made.size, made.rule, made.tensors, made.elements) == ("mnist", name, 2, 17)
    assert OPTAX[name][0] is getattr(optax, name)
    assert name in rules.ALL


def test_sizes_are_those_of_the_other_benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert {name: bench_steps.SIZES[name] for name in ("mnist", "small", "large")} == JAX_SIZES


def test_tables_and_json_have_medians_ratios_and_every_repetition() -> None:
    times = {name: Times((seconds,)) for name, seconds in zip(NAMES, (2.0, 3.0, 4.0, 9.0, 1.0), strict=True)}
    bench = JaxBench("mnist", "adam", 2, 1_000_000_000, 28, times)
    assert bench.ratio("optax apart", "steprule apart") == 3.0
    console = Console(file=StringIO(), width=200)
    for table in jax_tables([bench]):
        console.print(table)
    said = console.file.getvalue().split()  # type: ignore[attr-defined]  # a StringIO
    assert [each for each in said if each.replace(".", "").isdigit()][-5:] == ["2.00", "3.00", "4.00", "9.00", "28.0"]
    made = json.loads(json.dumps(jax_as_json([bench])))
    assert made["steps"][0]["seconds"] == {name: list(each.seconds) for name, each in times.items()}
    assert {"jax", "optax", "cores", "device"} < set(made["made"])


def test_the_command_writes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "jax.json"
    words = ["bench", "--framework", "jax", "--sizes", "mnist", "--rules", "sgd,adam", "--json", str(file)]
    app(words, standalone_mode=False)
    assert [each["rule"] for each in json.loads(file.read_text())["steps"]] == ["sgd", "adam"]
    assert "optax together / apply" in capsys.readouterr().out
    with pytest.raises(ValueError, match="--sizes"):
        app([*words[:4], "huge"], standalone_mode=False)
