"""What an import loads, and the public names."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.requirements import require_installed

SOURCES = Path(__file__).parents[1] / "src" / "steprule"

HEAVY = {
    "altair",
    "jax",
    "keras",
    "llvmlite",
    "mxnet",
    "numba",
    "numpy.f2py",
    "optax",
    "pandas",
    "pooch",
    "ray",
    "requests",
    "rich",
    "scipy",
    "sklearn",
    "tensorflow",
    "torch",
    "triton",
    "typer",
    "vl_convert",
}

PUBLIC = {
    "steprule": ["Decay", "NonNegative", "Positive", "Range", "Real", "Rule", "notation", "rule", "rules"],
    "steprule.arrays": ["elements", "scalars"],
    "steprule.around": [
        "FORMING",
        "PLAIN",
        "Around",
        "change",
        "completed",
        "hyperparameters",
        "is_finite",
        "step",
        "switched",
        "update",
        "validated",
    ],
    "steprule.cluster": [
        "FIRST",
        "Bursts",
        "Client",
        "Conditions",
        "Distribution",
        "Failures",
        "Fetched",
        "Gradient",
        "KeptShard",
        "Measured",
        "Partition",
        "Piece",
        "Plan",
        "Progress",
        "Push",
        "Receipt",
        "Rows",
        "Shard",
        "Simulated",
        "Simulation",
        "Stragglers",
        "Trained",
        "Training",
        "Version",
        "Work",
        "may_begin",
        "next_number",
        "simulate",
        "train",
    ],
    "steprule.curvature": [
        "Curvature",
        "Newton",
        "bbprop",
        "exact",
        "half_squared_error",
        "hutchinson",
        "mean_square_gradients",
    ],
    "steprule.folders": [
        "cache_folder",
        "held",
        "keep",
        "kept",
        "made_folder",
        "replace",
        "write_json",
        "written_aside",
    ],
    "steprule.kernels.cpu": ["CHUNK", "Elements", "Table", "kernel", "launch", "row_kernel", "row_source", "source"],
    "steprule.kernels.gpu": [
        "BLOCK",
        "TYPES",
        "Kernel",
        "chunk_table",
        "fold",
        "installed",
        "interpreted",
        "kernel",
        "launch",
        "real_of",
        "source",
        "value_names",
    ],
    "steprule.jax": [
        "RuleState",
        "Step",
        "adadelta",
        "adagrad",
        "adam",
        "adamw",
        "apply",
        "delta_bar_delta",
        "diagonal_newton",
        "momentum",
        "nesterov",
        "rmsprop",
        "rmsprop_nesterov",
        "sgd",
        "transformation",
        "vsgd",
        "vsgd_fd",
    ],
    "steprule.kernels.xla": ["available", "handler", "layout", "target"],
    "steprule.notation": ["abs", "maximum", "minimum", "sign", "sqrt", "where"],
    "steprule.program": ["Program", "Value", "assignments", "depends_on_count", "expression", "lower"],
    "steprule.rates": ["COLUMNS", "LayerRates", "Rates", "Record", "Sampler"],
    "steprule.reference": ["init", "step"],
    "steprule.rules": [
        "ALL",
        "adadelta",
        "adagrad",
        "adam",
        "delta_bar_delta",
        "diagonal_newton",
        "momentum",
        "nesterov",
        "rmsprop",
        "rmsprop_nesterov",
        "sgd",
        "vsgd",
        "vsgd_fd",
    ],
    "steprule.sparsity": ["scales_without_gradient"],
    "steprule.torch": [
        "SGD",
        "Adadelta",
        "Adagrad",
        "Adam",
        "AdamW",
        "BackwardSteps",
        "DeltaBarDelta",
        "DiagonalNewton",
        "Momentum",
        "Nesterov",
        "RMSProp",
        "RMSPropNesterov",
        "RateMonitor",
        "RuleOptimizer",
        "VSGD",
        "VSGDfd",
        "optimizer",
        "step_in_backward",
    ],
}


def loaded_by(statement: str) -> set[str]:
    """Return the modules of a fresh interpreter that has run `statement`."""
    code = f"import sys; {statement}; print('\\n'.join(sys.modules))"
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_steprule_loads_no_framework():
    assert loaded_by("import steprule") & HEAVY == set()


def test_reference_on_numpy_loads_no_other_library():
    step = (
        "import numpy; from steprule import reference, rules; x = numpy.ones(3); "
        "reference.step(rules.adadelta, x, x, reference.init(rules.adadelta, x))"
    )
    assert loaded_by(step) & HEAVY == set()


def test_cpu_kernels_load_no_framework():
    assert loaded_by("import steprule.kernels.cpu") & {"torch", "jax", "keras", "tensorflow", "mxnet"} == set()


def test_gpu_kernels_load_no_framework_and_nothing_before_the_first_launch():
    assert loaded_by("import steprule.kernels.gpu") & {"torch", "triton", "jax", "keras", "numba"} == set()


def test_training_on_the_cpu_loads_no_triton_and_no_compiler_of_pytorch_s():
    training = (
        "import torch, steprule.torch; x = torch.nn.Parameter(torch.ones(3)); x.sum().backward(); "
        "adam = steprule.torch.Adam([x]); schedule = torch.optim.lr_scheduler.StepLR(adam, 2); adam.step(); "
        "schedule.step(); adam.zero_grad(); adam.load_state_dict(adam.state_dict())"
    )
    assert loaded_by(training) & {"triton", "torch._dynamo", "sympy"} == set()


def test_torch_classes_load_torch_and_no_other_framework():
    loaded = loaded_by("import steprule.torch") & {"torch", "jax", "keras", "tensorflow", "mxnet", "optax"}
    assert loaded == {"torch"}


def test_curvature_loads_torch_and_no_other_framework():
    assert loaded_by("import steprule.curvature") & {"torch", "jax", "keras", "tensorflow", "mxnet", "optax"} == {
        "torch"
    }


def test_the_logic_of_the_parameter_server_loads_no_transport():
    assert loaded_by("import steprule.cluster") & {"ray", "rich", "jax", "keras", "tensorflow"} == set()


def test_jax_functions_load_jax_and_no_other_framework():
    require_installed("jax")
    loaded = loaded_by("import steprule.jax") & {"torch", "jax", "keras", "tensorflow", "mxnet", "optax", "flax"}
    assert loaded == {"jax", "optax"}


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names(module: str):
    if module in {"steprule.jax", "steprule.keras"}:
        require_installed(module.removeprefix("steprule."))
    found = importlib.import_module(module)
    assert sorted(found.__all__) == sorted(PUBLIC[module])
    assert [name for name in found.__all__ if not hasattr(found, name)] == []


def exported(file: Path) -> set[str]:
    """What other modules may import of a file: what its `__all__` names and, of a package, its modules."""
    assigned = [line for line in ast.parse(file.read_bytes()).body if isinstance(line, ast.Assign)]
    listed = [line.value for line in assigned if ast.unparse(line.targets[0]) == "__all__"]
    modules = [path.stem for path in file.parent.iterdir()] if file.name == "__init__.py" else []
    return {*modules, *(name for names in listed for name in ast.literal_eval(names))}


def imported(file: Path) -> Iterator[tuple[Path, str]]:
    """What a file imports of the others of the package: file and name."""
    for line in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(line, ast.ImportFrom) and line.level:
            folder = file.parents[line.level - 1].joinpath(*(line.module or "").split("."))
            module = folder.with_suffix(".py")
            yield from ((module if module.is_file() else folder / "__init__.py", each.name) for each in line.names)


def test_modules_import_of_each_other_what_these_export():
    # Of `notation`, `__all__` is what an equation may hold; a rule's file exports its rule.
    others = [path for path in SOURCES.rglob("*.py") if path.parent.name != "rules" and path.name != "notation.py"]
    asked = {each for path in SOURCES.rglob("*.py") for each in imported(path) if each[0] in others}
    asked -= {(SOURCES / "__init__.py", "__version__")}
    assert len(asked) > 100
    assert [(file.name, name) for file, name in asked if name not in exported(file)] == []


def test_every_rule_has_a_name_of_its_own():
    rules = importlib.import_module("steprule.rules")
    assert set(rules.ALL) == set(rules.__all__) - {"ALL"}
    assert all(getattr(rules, name) is rule and rule.name == name for name, rule in rules.ALL.items())
