"""What `torch.compile` is to leave as it is, and how not to load it where nothing is compiled: it takes some seconds.

And how not to have PyTorch record a step where there is no profiler.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar, cast

import torch

__all__ = ["Optimizer", "outside_compiled_code"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

_wrapped: Final[Any] = getattr(torch, "_disable_dynamo", torch.compiler.disable)
_SEEN: Final = "__dynamo_disable"
"""Where the wrapper that PyTorch puts around its own methods looks for what it calls; without it, it loads the compiler."""


def outside_compiled_code(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Return `function`, which compiled code then calls as it is. Calls before anything is compiled load no compiler."""
    disabled: Callable[_P, _T] = _wrapped(function)

    def until_there_is_a_compiler(*args: _P.args, **named: _P.kwargs) -> _T:
        if "torch._dynamo" not in sys.modules:
            return function(*args, **named)
        # Not at once, since it may be the compiler that goes through here, and it knows of no attribute that goes.
        sys.modules["torch._dynamo"].disable(delattr)(function, _SEEN)
        return disabled(*args, **named)

    setattr(function, _SEEN, until_there_is_a_compiler)
    return disabled


def _of_torch(method: Callable[_P, _T]) -> Callable[_P, _T]:
    """Return a method of PyTorch's in a wrapper of ours in place of PyTorch's; as it is, where it has another or none."""
    bare: Any = getattr(method, "__wrapped__", None)
    wrapper: Any = method
    if bare is None or wrapper.__code__.co_filename != sys.modules[_wrapped.__module__].__file__:
        return method
    copy = types.FunctionType(bare.__code__, bare.__globals__, bare.__name__, bare.__defaults__, bare.__closure__)
    copy.__kwdefaults__ = bare.__kwdefaults__
    return outside_compiled_code(functools.update_wrapper(copy, bare))


_optimizers: Final = sys.modules[torch.optim.Optimizer.__module__]


def _is_watched(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a profiler or a hook is to know of a step, as far as can be told: yes in a version that has them elsewhere."""
    hooks = (
        getattr(_optimizers, "_global_optimizer_pre_hooks", None),
        getattr(_optimizers, "_global_optimizer_post_hooks", None),
        optimizer._optimizer_step_pre_hooks,
        optimizer._optimizer_step_post_hooks,
    )
    profiled: bool = getattr(torch.autograd.profiler, "_is_profiler_enabled", True)
    return profiled or any(each is None or each for each in hooks)


class Optimizer(torch.optim.Optimizer):
    """`torch.optim.Optimizer`, some of whose methods load the compiler when they are first called; here they do not."""

    add_param_group = _of_torch(torch.optim.Optimizer.add_param_group)
    load_state_dict = _of_torch(torch.optim.Optimizer.load_state_dict)
    state_dict = _of_torch(torch.optim.Optimizer.state_dict)
    zero_grad = _of_torch(torch.optim.Optimizer.zero_grad)

    @staticmethod
    def profile_hook_step(func: Callable[_P, _T]) -> Callable[_P, _T]:
        """Return a step as PyTorch has it called: with hooks around it, and a record of it for profilers.

        The record takes 0.06 ms after a step of 400 tensors, which itself takes 0.4; it is left out where there is neither a
        profiler nor a hook. A `torch.profiler.ExecutionTraceObserver` by itself, of which nothing tells, sees no step.
        """
        watched: Callable[..., _T] = torch.optim.Optimizer.profile_hook_step(func)

        @functools.wraps(watched)
        def step(*args: _P.args, **named: _P.kwargs) -> _T:
            # A closure may register a hook.
            bare = len(args) == 1 and not named and not _is_watched(cast(torch.optim.Optimizer, args[0]))
            return func(*args, **named) if bare else watched(*args, **named)

        return step
