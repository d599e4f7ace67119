"""The data sets that the experiments use: what they are, where their files lie, and their contents as NumPy arrays.

A file is looked for in `$STEPRULE_DATA`, then in the user's cache, then at its public addresses, and is used only when
its SHA-256 is the one in the registry.
"""

from .files import Overview, locate, overview
from .formats import read_idx, read_numbers
from .readers import Digits, Mnist, airfoil, digits, fsdd, mnist
from .registry import DATA_SETS, DataError, DataFile, DataSet

__all__ = [
    "DATA_SETS",
    "DataError",
    "DataFile",
    "DataSet",
    "Digits",
    "Mnist",
    "Overview",
    "airfoil",
    "digits",
    "fsdd",
    "locate",
    "mnist",
    "overview",
    "read_idx",
    "read_numbers",
]
