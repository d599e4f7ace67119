"""The experiments of Zeiler's ADADELTA paper (2012) on MNIST, run again beside its figures."""

from .experiments import Cell, Experiment, Printed, Reproduced, Row, Run
from .parts import Options, Part, Result
from .reproduction import check, parts, planned_seeds, reproduce

__all__ = [
    "Cell",
    "Experiment",
    "Options",
    "Part",
    "Printed",
    "Reproduced",
    "Result",
    "Row",
    "Run",
    "check",
    "parts",
    "planned_seeds",
    "reproduce",
]
