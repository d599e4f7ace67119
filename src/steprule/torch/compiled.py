"""What `torch.compile` is to leave as it is, and how not to load it where nothing is compiled: it takes some seconds."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar

import torch

__all__ = ["Optimizer", "outside_compiled_code"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

# The private form loads the compiler with the first call; the public one, where it is written.
_disabled: Final[Callable[[Any], Any]] = getattr(torch, "_disable_dynamo", torch.compiler.disable)


def outside_compiled_code(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Return `function`, which compiled code then calls as it is. Calls from elsewhere do not load the compiler."""
    disabled = _disabled(function)

    @functools.wraps(function)
    def called(*args: _P.args, **named: _P.kwargs) -> _T:
        # While it compiles, it reads this line too, and takes the other branch.
        if torch.compiler.is_compiling():
            return disabled(*args, **named)  # type: ignore[no-any-return]
        return function(*args, **named)

    return called


def _bare(method: Callable[_P, _T]) -> Callable[_P, _T]:
    return outside_compiled_code(getattr(method, "__wrapped__", method))


class Optimizer(torch.optim.Optimizer):
    """`torch.optim.Optimizer`, some of whose methods load the compiler when they are first called; here they do not."""

    add_param_group = _bare(torch.optim.Optimizer.add_param_group)
    load_state_dict = _bare(torch.optim.Optimizer.load_state_dict)
    state_dict = _bare(torch.optim.Optimizer.state_dict)
    zero_grad = _bare(torch.optim.Optimizer.zero_grad)
