"""The update rules, one file each, as their papers print them.

`dx` is the update: x becomes x + dx. `steprule.rules.ALL` has them by name; every engine, test and table loops over it.
"""

from collections.abc import Mapping
from typing import Final

from ..specification import Rule
from .adadelta import adadelta
from .adagrad import adagrad
from .adam import adam
from .momentum import momentum
from .nesterov import nesterov
from .rmsprop import rmsprop
from .rmsprop_nesterov import rmsprop_nesterov
from .sgd import sgd

__all__ = ["ALL", "adadelta", "adagrad", "adam", "momentum", "nesterov", "rmsprop", "rmsprop_nesterov", "sgd"]

ALL: Final[Mapping[str, Rule]] = {
    each.name: each for each in (sgd, momentum, nesterov, adagrad, rmsprop, rmsprop_nesterov, adadelta, adam)
}
