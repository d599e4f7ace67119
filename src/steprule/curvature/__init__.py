"""What feeds the inputs `h` (diagonal curvature) and `g2` (mean of per-example squared gradients) of rules, for PyTorch
models, and Newton's method, for small ones.

`Curvature` sets `.grad`, `.h` and `.g2` of a model's parameters, which the optimizers of `steprule.torch` read; `bbprop`,
`exact`, `hutchinson` and `mean_square_gradients` return the arrays by the parameter's name.
"""

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(f"steprule.curvature needs {missing.name}: pip install 'steprule[torch]'") from missing

from .estimates import Curvature, bbprop, exact, hutchinson, mean_square_gradients
from .losses import half_squared_error
from .newton import Newton

__all__ = ["Curvature", "Newton", "bbprop", "exact", "half_squared_error", "hutchinson", "mean_square_gradients"]
