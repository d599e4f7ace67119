"""The reproduction: every engine ends where NumPy does, and what cannot run is told."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.tolerances import AIRFOIL_LOSS
from tests.requirements import require, require_data_set, require_installed

from steprule.lab.d2l import Missing, Reproduction, Stopped, Training, reproduce
from steprule.lab.d2l.processes import run
from steprule.lab.d2l.protocol import Plan, Trace
from steprule.lab.d2l.reproduction import ENGINES
from steprule.lab.d2l.summary import summarise
from steprule.lab.results import Run

ROOT = Path(__file__).parents[3]
MXNET = ROOT / ".venv-mxnet" / "bin" / "python"
MODULES = {"torch": ("torch",), "tensorflow": ("tensorflow", "keras"), "jax": ("jax", "optax")}


@pytest.fixture(scope="module")
def in_numpy() -> dict[tuple[Any, ...], float]:
    """The final loss in NumPy of the plan of every engine, one epoch, seed 0."""
    from steprule.lab import data
    from steprule.lab.d2l.engines.numpy import FromScratch
    from steprule.lab.d2l.protocol import Examples, train
    from steprule.lab.d2l.reproduction import expected

    require_data_set("airfoil")
    examples = Examples.of(data.airfoil())
    return {(plan.engine, plan.way): train(FromScratch(plan, examples, 0), 1, 0).final for plan in expected()}


@pytest.mark.parametrize("engine", ENGINES)
def test_every_way_ends_where_numpy_does(in_numpy: dict[tuple[Any, ...], float], engine: str) -> None:
    if engine == "mxnet":
        require(MXNET.is_file(), "there is no .venv-mxnet; make .venv-mxnet/tests makes it")
    else:
        require_installed(*MODULES.get(engine, ()))
    pythons = {"mxnet": MXNET} if engine == "mxnet" else {}
    found = reproduce([engine], seeds=1, epochs=1, pythons=pythons)
    assert found.missing == ()
    assert {plan.way for plan in found.plans} == {training.plan.way for training in found.trainings}
    for training in found.trainings:
        expected = in_numpy[engine, training.plan.way]
        assert training.trace.final == pytest.approx(expected, abs=AIRFOIL_LOSS)
        # Measured apart, so that on a busy machine either may be the longer.
        assert all(0 < seconds < 60 for seconds in (training.trace.loading, training.trace.seconds))
    assert {"Python", "steprule"} < set(found.versions[engine])
    assert json.loads(json.dumps(found.as_json()))["plans"][0]["traces"][0]["losses"][-1][0] == 1500


def test_an_engine_that_is_not_installed_is_told_with_the_command_that_installs_it() -> None:
    require_data_set("airfoil")
    import importlib.util

    require(importlib.util.find_spec("mxnet") is None, "MXNet is installed here")
    found = reproduce(["numpy", "mxnet"], seeds=1, epochs=1, pythons={"mxnet": sys.executable})
    assert [training.plan.engine for training in found.trainings] == ["numpy"]
    (missing,) = found.missing
    assert (missing.engine, missing.cause) == ("mxnet", "mxnet is not installed")
    assert "pip install 'steprule[mxnet]'" in missing.command


def test_an_engine_whose_process_fails_is_told_with_what_it_said(tmp_path: Path) -> None:
    require_data_set("airfoil")
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'no such thing here' >&2\nexit 3\n")
    python.chmod(0o755)
    found = reproduce(["numpy"], seeds=1, pythons={"numpy": python})
    assert found.trainings == ()
    cause = "its process ended with exit status 3, saying last: no such thing here"
    assert found.missing == (Missing("numpy", cause, ""),)  # it is installed


def test_what_fails_has_of_each_plan_all_seeds_or_none(tmp_path: Path) -> None:
    require_data_set("airfoil")
    python = tmp_path / "python"
    # Of three messages the first has the versions; then it dies within the first plan's seeds.
    python.write_text(f'#!/bin/sh\n"{sys.executable}" "$@" | head -n 3\nexit 3\n')
    python.chmod(0o755)
    found = reproduce(["numpy"], seeds=3, epochs=1, pythons={"numpy": python})
    assert found.trainings == ()
    assert found.missing[0].cause.startswith("its process ended with exit status 3")


@pytest.mark.parametrize(("epochs", "known"), [(None, [0.245, 0.243]), (2, [0.245, None]), (1, [None, None])])
def test_the_book_has_no_loss_after_another_number_of_epochs(
    tmp_path: Path, epochs: int | None, known: list[float | None]
) -> None:
    require_data_set("airfoil")
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\ncat > /dev/null\necho \'{"absent": "torch"}\'\n')
    python.chmod(0o755)
    found = reproduce(["torch"], seeds=1, epochs=epochs, pythons={"torch": python})
    assert [plan.loss for plan in found.plans if plan.way != "steprule"] == known


def test_what_another_python_lacks_is_installed_there(tmp_path: Path) -> None:
    require_data_set("airfoil")
    python = tmp_path / "my python"
    python.write_text('#!/bin/sh\ncat > /dev/null\necho \'{"absent": "torch"}\'\n')
    python.chmod(0o755)
    (missing,) = reproduce(["torch"], seeds=1, pythons={"torch": python}).missing
    assert missing == Missing("torch", "torch is not installed", f"'{python}' -m pip install 'steprule[torch]'")


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("#!/no/such/interpreter\n", "cannot be started: No such file or directory"),
        ("\x7fELF", "cannot be started: Exec format error"),
        ("#!/bin/sh\necho Hello\n", "wrote 'Hello'; allowed is a Python"),
        ("#!/bin/sh\necho 3.11\n", "wrote '3.11'; allowed is a Python"),
        ("#!/bin/sh\nprintf '\\377'\n", r"wrote '\\xff'; allowed is a Python"),
    ],
)
def test_a_file_that_is_no_python_is_told_and_the_other_engines_are_kept(tmp_path: Path, text: str, cause: str) -> None:
    require_data_set("airfoil")
    python = tmp_path / "python"
    python.write_text(text)
    python.chmod(0o755)
    found = reproduce(["numpy", "torch"], seeds=1, epochs=1, pythons={"torch": python})
    assert [training.plan.engine for training in found.trainings] == ["numpy"]
    (missing,) = found.missing
    assert missing.cause.startswith(f"{python} {cause}")


def test_a_file_that_cannot_be_executed_is_told_before_anything_runs(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.touch(mode=0o644)
    with pytest.raises(ValueError, match=f"the Python of torch is {python}, a file that cannot be executed"):
        reproduce(["torch"], pythons={"torch": python})


class Interrupting:
    """What is told of a reproduction, and interrupts it after so many trainings."""

    def __init__(self, trainings: int) -> None:
        self.left = trainings

    def begin(self, trainings: int) -> None: ...

    def started(self, engine: str) -> None: ...

    def missed(self, missing: Missing) -> None: ...

    def trained(self, training: Training) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("trainings", "whole"), [(1, 0), (2, 2), (3, 2)])
def test_what_is_interrupted_has_of_each_plan_all_seeds_or_none(trainings: int, whole: int) -> None:
    require_data_set("airfoil")
    require_installed("torch")
    with pytest.raises(Stopped) as stop:
        reproduce(["numpy", "torch"], seeds=2, epochs=1, progress=Interrupting(trainings))
    found = stop.value.reproduction
    assert [training.plan.engine for training in found.trainings] == ["numpy"] * whole
    stopped = ["torch"] if trainings > 2 else ["numpy", "torch"]
    assert found.missing == tuple(Missing(each, "stopped before it had ended", "") for each in stopped)


def test_a_process_ends_when_nobody_wants_its_results(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\ncat > /dev/null\necho $$ > {tmp_path}/id\necho '{{}}'\nexec sleep 60\n")
    python.chmod(0o755)
    messages = run("numpy", python, {})
    assert next(messages) == {}
    messages.close()
    assert not Path(f"/proc/{(tmp_path / 'id').read_text().strip()}").exists()


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"engines": ["caffe"]}, "'caffe'; allowed are numpy, torch, mxnet, tensorflow, jax"),
        ({"engines": []}, "engines is"),
        ({"engines": "torch"}, "engines is 'torch'"),
        ({"engines": ["numpy", "numpy"]}, "each engine once"),
        ({"seeds": 0}, "seeds is 0"),
        ({"epochs": 0}, "epochs is 0"),
        ({"epochs": 1.5}, "epochs is 1.5"),
        ({"pythons": {"caffe": sys.executable}}, "'caffe'"),
        (
            {"engines": ["numpy", "jax"], "pythons": {"torch": sys.executable}},
            f"the Python of torch is {sys.executable}; allowed are those of the engines numpy, jax",
        ),
        ({"pythons": {"mxnet": "/no/such/python"}}, "the Python of mxnet is /no/such/python"),
    ],
)
def test_arguments_that_cannot_be_are_told_before_anything_runs(given: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        reproduce(**given)


def made(finals: dict[tuple[str, Any], tuple[float, float]]) -> Reproduction:
    """A reproduction with one seed: for each engine and way its loss and seconds; the book has 0.245 and 0.1, 0.2, ..."""
    plans = {
        key: Plan(*key, 2, {"rho": 0.9, "eps": 1e-5}, loss=0.245, seconds=0.1 * number)
        for number, key in enumerate(finals, 1)
    }
    trainings = [
        Training(plans[key], 0, Trace(((3000, loss),), seconds, seconds / 10))
        for key, (loss, seconds) in finals.items()
    ]
    missing = (Missing("jax", "jax is not installed", "pip install 'steprule[jax]'"),)
    return Reproduction(tuple(plans.values()), 1, tuple(trainings), missing, {}, Run("steprule", "now", 1.0))


class TestTheSummary:
    def test_a_loss_is_compared_to_the_digits_that_the_book_prints(self) -> None:
        summary = summarise(made({("torch", "scratch"): (0.24549, 1.0), ("mxnet", "scratch"): (0.24551, 2.0)}))
        assert [line.holds_the_book for line in summary.lines] == [True, False]
        assert summary.apart == pytest.approx(2e-5)

    @pytest.mark.parametrize(("seconds", "here"), [(3.0, ("torch", "mxnet")), (1.0, ("mxnet", "torch"))])
    def test_the_order_by_speed(self, seconds: float, here: tuple[str, ...]) -> None:
        summary = summarise(made({("torch", "scratch"): (0.245, 2.0), ("mxnet", "scratch"): (0.245, seconds)}))
        (ranking,) = summary.rankings
        assert (ranking.book, ranking.here) == (("torch", "mxnet"), here)

    def test_one_engine_has_no_order_and_nothing_to_differ_from(self) -> None:
        summary = summarise(made({("torch", "scratch"): (0.245, 2.0)}))
        assert (summary.rankings, summary.apart) == ((), None)
