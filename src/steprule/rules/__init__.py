"""The update rules, one file each, as their papers print them.

`dx` is the update: x becomes x + dx. `steprule.rules.ALL` has them by name; every engine, test and table loops over it.
"""

from collections.abc import Mapping
from typing import Final

from ..specification import Rule
from .adadelta import adadelta
from .adagrad import adagrad
from .adam import adam
from .delta_bar_delta import delta_bar_delta
from .diagonal_newton import diagonal_newton
from .momentum import momentum
from .nesterov import nesterov
from .rmsprop import rmsprop
from .rmsprop_nesterov import rmsprop_nesterov
from .sgd import sgd
from .vsgd import vsgd
from .vsgd_fd import vsgd_fd

__all__ = [
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
]

_FIRST_ORDER: Final = (sgd, momentum, nesterov, adagrad, rmsprop, rmsprop_nesterov, adadelta, adam, delta_bar_delta)
_CURVED: Final = (diagonal_newton, vsgd, vsgd_fd)

ALL: Final[Mapping[str, Rule]] = {each.name: each for each in (*_FIRST_ORDER, *_CURVED)}
