"""Measured speed: steps against PyTorch's own and the memory's limit, the first step, and a whole epoch, in one run."""

from .epoch import measure_epoch
from .first_step import measure_first_step
from .on_gpu import GPU_SIZES, measure_steps_on_gpu, require_gpu
from .steps import SIZES, measure_steps
from .tables import as_json, tables

__all__ = [
    "GPU_SIZES",
    "SIZES",
    "as_json",
    "measure_epoch",
    "measure_first_step",
    "measure_steps",
    "measure_steps_on_gpu",
    "require_gpu",
    "tables",
]
