"""The rules in JAX: gradient transformations of optax, and steps that are one computation.

`transformation(rule)` makes the function of any rule that returns an `optax.GradientTransformationExtraArgs`; those below
are the built-in ones. `apply` makes a whole step of a rule: parameters, gradients and state in, parameters and state out.
"""

try:
    import jax as _jax  # noqa: F401
    import optax as _optax  # noqa: F401
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(f"steprule.jax needs {missing.name}: pip install 'steprule[jax]'") from missing

from .. import rules
from .applying import Step, apply
from .steps import RuleState
from .transformation import transformation

__all__ = [
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
]

sgd = transformation(rules.sgd)
momentum = transformation(rules.momentum)
nesterov = transformation(rules.nesterov)
adagrad = transformation(rules.adagrad)
rmsprop = transformation(rules.rmsprop)
rmsprop_nesterov = transformation(rules.rmsprop_nesterov)
adadelta = transformation(rules.adadelta)
adam = transformation(rules.adam)
adamw = transformation(rules.adam, name="adamw", weight_decay=1e-4, decoupled_weight_decay=True)
delta_bar_delta = transformation(rules.delta_bar_delta)
diagonal_newton = transformation(rules.diagonal_newton)
vsgd = transformation(rules.vsgd)
vsgd_fd = transformation(rules.vsgd_fd)
