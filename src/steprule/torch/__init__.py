"""The rules as `torch.optim.Optimizer` classes: put one in the place of torch's.

`optimizer(rule)` makes such a class of any rule; those below are the built-in ones.
"""

from typing import TYPE_CHECKING

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(f"steprule.torch needs {missing.name}: pip install 'steprule[torch]'") from missing

from .. import rules
from .backward import BackwardSteps, step_in_backward
from .full_batch import DeltaBarDelta
from .monitor import RateMonitor
from .optimizer import RuleOptimizer, optimizer

__all__ = [
    "SGD",
    "VSGD",
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
    "VSGDfd",
    "optimizer",
    "step_in_backward",
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
    AdamW = optimizer(rules.adam, name="AdamW", weight_decay=1e-2, decoupled_weight_decay=True)
    DiagonalNewton = optimizer(rules.diagonal_newton)
    VSGD = optimizer(rules.vsgd, name="VSGD")
    VSGDfd = optimizer(rules.vsgd_fd, name="VSGDfd")
