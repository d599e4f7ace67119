"""The files in `examples/`: what a user copies runs as it says."""

from __future__ import annotations

import importlib
import inspect
import pydoc
import re
import subprocess
import sys
from pathlib import Path

import pytest

import torch
from steprule import rules
from steprule.lab import Problem
from steprule.lab.grids import find_rule
from steprule.lab.problem import find_problem
from steprule.lab.training import train
from tests.requirements import require_installed

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def _blocks(page: str) -> list[str]:
    return re.findall(
        r"^```python\n(.*?)^```$", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


# Pages whose programs need more than this process have tests of their own.
GUIDE = [
    pytest.param(block, page, id=f"{page}-{number}")
    for page in ("torch.md", "jax.md", "low_precision.md", "own_rule.md", "rate_monitor.md")
    for number, block in enumerate(_blocks(page))
    if "import RateMonitorCallback" not in block
]


@pytest.mark.parametrize(("block", "page"), GUIDE)
def test_the_guides_examples_run_as_they_stand(block: str, page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if page == "jax.md":
        require_installed("jax", "optax")
    monkeypatch.syspath_prepend(EXAMPLES)
    exec(compile(block, f"docs/{page}", "exec"), {"__name__": "guide"})


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_what_a_page_names_is_there(page: Path) -> None:
    require_installed("jax", "optax", "ray")
    # Keras has one backend in a process, and what imports Lightning cannot be beside it.
    named = re.findall(r"\bsteprule(?!\.(?:keras|torch\.lightning|git)\b)(?:\.\w+)+", page.read_text(encoding="utf-8"))
    assert [name for name in dict.fromkeys(named) if pydoc.locate(name) is None] == []


@pytest.mark.parametrize("package", ["steprule.torch", "steprule.jax", "steprule.curvature"])
def test_the_reference_has_what_a_package_offers(package: str) -> None:
    require_installed("jax", "optax")
    page = (ROOT / "docs" / "api.md").read_text("utf-8").split()
    assert [name for name in importlib.import_module(package).__all__ if f"{package}.{name}" not in page] == []


def test_the_page_of_the_sources_has_every_rule_that_is_in_them() -> None:
    page = (ROOT / "docs" / "sources.md").read_text(encoding="utf-8")
    here = re.findall(r"^\|[^|]*\|([^|]*)\|", page, re.MULTILINE)
    assert rules.ALL.keys() - set(re.findall(r"`(\w+)`", "".join(here))) == {"nesterov"}  # of Sutskever et al.


def test_no_example_of_the_reference_runs_together() -> None:
    require_installed("docutils", "jax", "optax", "ray")
    from docutils import core, nodes

    # Keras has one backend in a process, and a test of its own asks for it.
    page = re.findall(
        r"auto(?:class|function):: (?!steprule\.keras)([\w.]+)", (ROOT / "docs" / "api.md").read_text("utf-8")
    )
    for name in page:
        read = core.publish_doctree(inspect.getdoc(pydoc.locate(name)) or "", settings_overrides={"report_level": 5})
        assert not list(read.findall(nodes.block_quote)), name
    assert len(page) > 50


def test_a_users_problem_and_rules_are_compared(tmp_path: Path) -> None:
    require_installed("sklearn", "typer", "altair", "vl_convert")
    words = [
        "examples/own_problem.py:tumours",
        "--rules",
        "adadelta,examples/own_rule.py:yogi,examples/own_rule.py:lion",
    ]
    words += ["--rates", "0.01", "--grid", "adadelta.rho=0.9", "--seeds", "1", "--epochs", "3", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "steprule", "compare", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(re.findall(r"^(?:\* |  )(\w+) +\w+=", done.stdout, re.MULTILINE)) == {"adadelta", "yogi", "lion"}
    assert (tmp_path / "index.html").exists()


@pytest.fixture(scope="module")
def tumours() -> Problem:
    require_installed("sklearn")
    problem = find_problem(f"{EXAMPLES / 'own_problem.py'}:tumours")()
    assert isinstance(problem, Problem)
    return problem


def test_the_problem_is_as_it_describes_itself(tumours: Problem) -> None:
    assert tumours.validation is not None
    parts = [tumours.train, tumours.validation, tumours.test]
    assert sum(len(inputs) for inputs, _ in parts) == 569
    rows = {tuple(row) for inputs, _ in parts for row in inputs.tolist()}
    assert len(rows) == 569  # so that no row is in two parts
    assert f"mini-batches of {tumours.batch_size}" in tumours.description
    widths = [layer.weight.shape for layer in tumours.model(0).modules() if isinstance(layer, torch.nn.Linear)]
    assert [tuple(width) for width in widths] == [(16, 30), (2, 16)]
    assert "30-16-2" in tumours.description


def test_the_problem_can_be_learnt(tumours: Problem) -> None:
    *_, last = train(tumours, rules.adam, {"lr": 0.01}, 0, tumours.epochs)
    # Who always says what is the more frequent is wrong in 37 % of the cases.
    assert last.test < 10


@pytest.mark.parametrize(
    ("name", "expected"),
    # Two steps from 1 with the gradient 2 and the papers' defaults, computed apart from the rule.
    [
        ("yogi", [0.9688732707982631, 0.9268603239780178]),
        ("lion", [0.9999, 0.9998]),
        ("rmsprop_momentum", [0.9968377262926713, 0.9916975241266824]),
    ],
)
def test_a_rule_makes_the_papers_steps(name: str, expected: list[float]) -> None:
    rule = find_rule(f"{EXAMPLES / 'own_rule.py'}:{name}")
    values = {each.name: each.default for each in rule.hyperparameters.values()}
    x, slots, found = 1.0, list(rule.slots.values()), []
    for _ in range(2):
        dx, *slots = rule(2.0, *slots, **values)
        x += dx
        found.append(x)
    assert found == expected


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.py")), ids=lambda file: file.name)
def test_the_commands_in_a_files_text_name_what_is_there(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    commands = re.findall(r"^    steprule (.*)$", text, re.MULTILINE)
    assert commands
    for named in re.findall(r"examples/\w+\.py:\w+", " ".join(commands)):
        path, _, attribute = named.partition(":")
        assert re.search(rf"^def {attribute}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)
