"""The functions that an equation may use beside Python's operators: `sqrt, abs, sign, where, maximum, minimum`.

A rule is ordinary Python and knows no framework, so these find the library of their operands: by the array API's
`__array_namespace__`, else by the package that defines the operand's class. No framework is imported here: an operand of
it exists, so its module is loaded already. Plain numbers are computed in float64, and NumPy's scalars are numbers too where
an array is beside them, of whatever library; a rule on trial (`steprule.program`) answers for itself.

Where libraries do not agree, torch, TensorFlow, MXNet and those that have no more than the array API's functions are made to
do as NumPy does: a number may stand for an array, and the sign of NaN is NaN.
"""

from __future__ import annotations

import builtins
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, Final

__all__ = ["abs", "maximum", "minimum", "sign", "sqrt", "where"]

# Libraries whose arrays have, in some versions, no `__array_namespace__`, and the module in which they keep functions under
# these names.
_NAMESPACES: Final = {
    "torch": "torch",
    "tensorflow": "tensorflow",
    "mxnet.numpy": "mxnet.numpy",
    "mxnet": "mxnet.ndarray",
    "numpy": "numpy",
    "cupy": "cupy",
    "jax": "jax.numpy",
    "jaxlib": "jax.numpy",
}

# Libraries whose functions take a number in the place of any array, of two numbers too.
_TAKE_NUMBERS: Final = ("numpy", "cupy", "jax.numpy")
_SIGN_OF_NAN_IS_0: Final = ("torch", "mxnet.numpy", "mxnet.ndarray")

_BESIDE: ContextVar[Any] = ContextVar("_BESIDE", default=None)


def beside(array: Any) -> AbstractContextManager[None]:
    """Let `where` of two plain numbers make elements of the type of `array`, within the block; else it makes float64.

    TensorFlow and MXNet compute with arrays of one type alone, and a condition does not tell which.
    """
    namespace = namespace_of(array)
    if namespace is None or namespace.__name__ in (*_TAKE_NUMBERS, "torch"):
        return nullcontext()  # types mix, and what compiles a step (torch.compile) takes no context variable
    return _beside(array)


@contextmanager
def _beside(array: Any) -> Iterator[None]:
    before = _BESIDE.set(array)
    try:
        yield
    finally:
        _BESIDE.reset(before)


def namespace_of(operand: object) -> Any:
    """Return the module whose `sqrt` takes `operand`, or None for a plain number."""
    if isinstance(operand, (bool, int, float)):
        return None
    if hasattr(operand, "__array_namespace__"):
        return operand.__array_namespace__()
    for base in type(operand).__mro__:
        for package, namespace in _NAMESPACES.items():
            if base.__module__ == package or base.__module__.startswith(package + "."):
                return sys.modules[namespace]
    raise TypeError(
        f"an operand is of type {type(operand).__module__}.{type(operand).__qualname__}; allowed are numbers and arrays "
        f"that have __array_namespace__ or come from {', '.join(sorted({k.partition('.')[0] for k in _NAMESPACES}))}"
    )


def _sign(number: float) -> float:
    return math.nan if math.isnan(number) else 1.0 if number > 0 else -1.0 if number < 0 else 0.0


def _sqrt(number: float) -> float:
    return math.nan if math.isnan(number) or number < 0 else math.sqrt(number)


def _maximum(a: float, b: float) -> float:
    return math.nan if math.isnan(a) or math.isnan(b) else builtins.max(a, b)


def _minimum(a: float, b: float) -> float:
    return math.nan if math.isnan(a) or math.isnan(b) else builtins.min(a, b)


def _where(condition: bool, a: float, b: float) -> float:
    return a if condition else b


def _call(name: str, on_numbers: Callable[..., float], *operands: Any) -> Any:
    for operand in operands:
        trace = getattr(operand, "__steprule_trace__", None)
        if trace is not None:
            return trace(name, *operands)
    lead = _lead(operands)
    if lead is None:
        made = on_numbers(*operands)
        # NumPy's float64 is a float that divides by zero as arrays do: what is made of it must, too.
        kind = next((type(each) for each in operands if type(each) not in (bool, int, float)), None)
        return made if kind is None else kind(made)
    if name == "where":
        # Of two integers, some libraries would make integers, which overflow, and have no reciprocal power.
        operands = (operands[0], *(float(each) if isinstance(each, int) else each for each in operands[1:]))
        if _is_number(operands[0]):
            chosen = operands[1] if operands[0] else operands[2]
            return namespace_of(lead).float64(chosen) if lead is operands[0] and isinstance(chosen, float) else chosen
    namespace = namespace_of(lead)
    if name == "sign" and namespace.__name__ in _SIGN_OF_NAN_IS_0:
        return where(lead == lead, namespace.sign(lead), lead)
    if namespace.__name__ not in _TAKE_NUMBERS:
        operands = (*operands[:1], *_arrays(operands[1:], operands[0])) if name == "where" else _arrays(operands, lead)
    return getattr(namespace, name)(*operands)


def _is_number(operand: Any) -> bool:
    """Whether `operand` is a plain number or a scalar of NumPy, which go with the arrays of any library."""
    namespace = namespace_of(operand)
    return namespace is None or (namespace.__name__ == "numpy" and isinstance(operand, namespace.generic))


def _lead(operands: tuple[Any, ...]) -> Any:
    """Return the operand whose library computes: an array, else a scalar of NumPy; None where all are plain numbers."""
    for operand in operands:
        if not _is_number(operand):
            return operand
    return next((operand for operand in operands if namespace_of(operand) is not None), None)


def _arrays(operands: tuple[Any, ...], lead: Any) -> tuple[Any, ...]:
    """Return the operands with each number as an array that goes with the others, or with `lead` where there are none."""
    array = next((operand for operand in operands if not _is_number(operand)), None)
    return tuple(_array(each, array, lead) if _is_number(each) else each for each in operands)


def _array(number: float, array: Any, condition: Any) -> Any:
    """Return a number as an array: of the type of `array`, else of the shape of `condition`."""
    namespace = namespace_of(condition if array is None else array)
    if namespace.__name__ == "torch":
        dtype, beside = (namespace.float64, condition) if array is None else (array.dtype, array)
        # `asarray` would copy the number to a GPU, which waits for it, and is not allowed in a graph; and `full` takes none
        # beyond the type, which is infinite in an array.
        return namespace.full((), 1.0, dtype=dtype, device=beside.device) * number
    if hasattr(number, "item"):
        number = number.item()  # a scalar of NumPy's, which not every library adds to its arrays
    if array is not None:
        return namespace.zeros_like(array) + number
    if namespace.__name__ == "mxnet.ndarray":
        # A condition is made of numbers here, of the type of what was compared.
        return namespace.zeros_like(condition) + number
    dtype = namespace.float64 if _BESIDE.get() is None else _BESIDE.get().dtype
    return namespace.zeros_like(condition, dtype=dtype) + number


def sqrt(x: Any) -> Any:
    """Return the square root of each element; NaN where it is negative."""
    return _call("sqrt", _sqrt, x)


def abs(x: Any) -> Any:
    """Return the absolute value of each element."""
    return _call("abs", builtins.abs, x)


def sign(x: Any) -> Any:
    """Return -1, 0 or 1 for each element; NaN where it is NaN."""
    return _call("sign", _sign, x)


def where(condition: Any, a: Any, b: Any) -> Any:
    """Return `a` where `condition` holds and `b` elsewhere; both are computed."""
    return _call("where", _where, condition, a, b)


def maximum(a: Any, b: Any) -> Any:
    """Return the larger of two elements; NaN where either is NaN."""
    return _call("maximum", _maximum, a, b)


def minimum(a: Any, b: Any) -> Any:
    """Return the smaller of two elements; NaN where either is NaN."""
    return _call("minimum", _minimum, a, b)
