"""Measured speed, in one run: steps against PyTorch's own and the memory's limit, steps by sparse gradients, the first step,
and a whole epoch.
"""

from .epoch import measure_epoch
from .first_step import measure_first_step
from .on_gpu import GPU_SIZES, measure_steps_on_gpu, require_gpu
from .sparse import measure_sparse
from .steps import SIZES, measure_steps
from .tables import as_json, tables

__all__ = [
    "GPU_SIZES",
    "SIZES",
    "as_json",
    "measure_epoch",
    "measure_first_step",
    "measure_sparse",
    "measure_steps",
    "measure_steps_on_gpu",
    "require_gpu",
    "tables",
]
