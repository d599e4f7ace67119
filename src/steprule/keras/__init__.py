"""The rules as Keras optimizers, on TensorFlow, JAX and PyTorch: put one in the place of Keras's.

`optimizer(rule)` makes such a class of any rule; those below are the built-in ones.
"""

from typing import TYPE_CHECKING

try:
    import keras  # noqa: F401
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f"steprule.keras needs {missing.name}: pip install 'steprule[keras]', and one of tensorflow, jax and torch"
    ) from missing

from .. import rules
from .monitor import RateMonitorCallback
from .optimizer import RuleOptimizer, optimizer

__all__ = [
    "SGD",
    "VSGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "DeltaBarDelta",
    "DiagonalNewton",
    "Momentum",
    "Nesterov",
    "RMSProp",
    "RMSPropNesterov",
    "RateMonitorCallback",
    "RuleOptimizer",
    "VSGDfd",
    "optimizer",
]

if TYPE_CHECKING:
    # A name for what a call returns is no type: these may stand in annotations, and be subclassed.
    SGD = RuleOptimizer
    Momentum = RuleOptimizer
    Nesterov = RuleOptimizer
    Adagrad = RuleOptimizer
    RMSProp = RuleOptimizer
    RMSPropNesterov = RuleOptimizer
    Adadelta = RuleOptimizer
    Adam = RuleOptimizer
    AdamW = RuleOptimizer
    DeltaBarDelta = RuleOptimizer
    DiagonalNewton = RuleOptimizer
    VSGD = RuleOptimizer
    VSGDfd = RuleOptimizer
else:
    SGD = optimizer(rules.sgd, name="SGD")
    Momentum = optimizer(rules.momentum)
    Nesterov = optimizer(rules.nesterov)
    Adagrad = optimizer(rules.adagrad)
    RMSProp = optimizer(rules.rmsprop, name="RMSProp")
    RMSPropNesterov = optimizer(rules.rmsprop_nesterov, name="RMSPropNesterov")
    Adadelta = optimizer(rules.adadelta)
    Adam = optimizer(rules.adam)
    AdamW = optimizer(rules.adam, name="AdamW", weight_decay=0.004)
    DeltaBarDelta = optimizer(rules.delta_bar_delta)
    DiagonalNewton = optimizer(rules.diagonal_newton)
    VSGD = optimizer(rules.vsgd, name="VSGD")
    VSGDfd = optimizer(rules.vsgd_fd, name="VSGDfd")
