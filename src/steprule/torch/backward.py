"""Steps taken within the backward pass: each parameter's as soon as its gradient is there, which is freed then."""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import torch
from torch import Tensor

from ..specification import Rule
from .compiled import outside_compiled_code
from .optimizer import RuleOptimizer, optimizer

__all__ = ["BackwardSteps", "step_in_backward"]


class BackwardSteps:
    """The steps that `step_in_backward` has arranged: what they go by, how to keep them, and how to end them."""

    def __init__(self, made: RuleOptimizer) -> None:
        self.optimizer: Final = made
        """Holds hyperparameters and state, for schedulers and for changes by hand: it steps what has a gradient left."""
        self._held = False
        self._parts: Final[dict[Tensor, RuleOptimizer]] = {}
        self._stepped: Callable[[], set[Tensor] | None] = lambda: None
        """Returns what has stepped in the backward pass that runs, None where none runs."""
        self._removals: Final[list[Callable[[], None]]] = []
        self._take_in()
        # What is added to the optimizer must step here too: nothing else would step it.
        vars(made)["add_param_group"] = self._add

    def _take_in(self) -> None:
        self._places = _places(self.optimizer)
        new = [parameter for parameter in self._places if parameter not in self._parts]
        for parameter in new:
            _refuse_hooked(parameter)
        hook = _Hook(self)
        for number, parameter in enumerate(new, len(self._parts)):
            self._parts[parameter] = self._part(parameter, self._places[parameter][0], number)
            self._removals.extend(self._hooked(parameter, hook))

    def _add(self, param_group: dict[str, Any]) -> None:
        made = self.optimizer
        type(made).add_param_group(made, param_group)
        try:
            self._take_in()
        except ValueError:
            for parameter in made.param_groups.pop()["params"]:
                made.state.pop(parameter, None)
            raise

    def _part(self, parameter: Tensor, number: int, place: int) -> RuleOptimizer:
        part = type(self.optimizer)([{**_values(self.optimizer.param_groups[number]), "params": [parameter]}])
        # Rows that a sparse gradient leaves behind are caught up where the whole is asked for its state, or told to watch.
        vars(part)["lags"] = self.optimizer.lags
        part.first_number = place
        return part

    def _hooked(self, parameter: Any, hook: _Hook) -> Iterator[Callable[[], None]]:
        # A frozen parameter takes no hook, and may be trained later.
        frozen = not parameter.requires_grad
        parameter.requires_grad_(True)
        yield parameter.register_post_accumulate_grad_hook(hook).remove
        yield parameter.register_hook(self._outlive).remove
        parameter.requires_grad_(not frozen)

    def _outlive(self, grad: Tensor) -> None:
        """Do nothing: hooked to a parameter, this keeps these steps alive as long as the parameter is.

        Python's garbage collector sees through hooks of this kind and not through those that come after accumulation: held
        by one of those, parameters and state would stay in memory for good.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return what the optimizer of an ordinary training loop would: either may load the other's."""
        state: dict[str, Any] = self.optimizer.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over hyperparameters and state; errors as those of `torch.optim.Optimizer.load_state_dict`."""
        self.optimizer.load_state_dict(state_dict)

    @contextlib.contextmanager
    def accumulate(self) -> Iterator[None]:
        """Within, a backward pass steps nothing and its gradients stay; the next one outside adds to them and steps."""
        before, self._held = self._held, True
        try:
            yield
        finally:
            self._held = before

    def remove(self) -> None:
        """Step no more in backward passes. `optimizer` stays as it is and can go on in an ordinary loop."""
        for remove in self._removals:
            remove()
        self._removals.clear()
        vars(self.optimizer).pop("add_param_group", None)

    def _step(self, parameter: Tensor) -> None:
        if self._held:
            return
        part, whole, group = self._parts[parameter], self.optimizer, self._group_of(parameter)
        if group is None:
            return
        self._refuse_twice(parameter)
        part.param_groups[0].update(_values(group))
        # The part has this parameter's entry of the whole's state, which a user may have replaced or cleared.
        part.state.clear()
        if parameter in whole.state:
            part.state[parameter] = whole.state[parameter]
        try:
            part.step()
        except FloatingPointError:
            # What is finite has stepped, and must not do so again by the same gradient.
            self._end(parameter, part)
            raise
        self._end(parameter, part)

    @outside_compiled_code
    def _refuse_twice(self, parameter: Tensor) -> None:
        stepped = self._stepped()
        if stepped is None:
            stepped = set()
            # Autograd holds it until the pass is over or has failed. Passes within it, of checkpoints, are parts of it.
            torch.autograd.Variable._execution_engine.queue_callback(stepped.clear)
            self._stepped = weakref.ref(stepped)
        if parameter in stepped:
            self._stepped = lambda: None  # the error's traceback holds what has stepped
            raise RuntimeError(
                f"a parameter of shape {tuple(parameter.shape)} has stepped in this backward pass by a part of its "
                "gradient, and now comes another: several places use it, some of them within "
                "checkpoint(..., use_reentrant=True); allowed is use_reentrant=False"
            )
        stepped.add(parameter)

    def _end(self, parameter: Tensor, part: RuleOptimizer) -> None:
        if parameter in part.state:
            self.optimizer.state[parameter] = part.state[parameter]
        parameter.grad = None
        vars(self.optimizer)["_opt_called"] = True  # or a scheduler warns that no step came before its own

    def _group_of(self, parameter: Tensor) -> Mapping[str, Any] | None:
        """Return the group that the parameter is in at present, None where it is in none."""
        groups, place = self.optimizer.param_groups, self._places.get(parameter)
        if place is not None and place[0] < len(groups):
            group, number = groups[place[0]], place[1]
            if number < len(group["params"]) and group["params"][number] is parameter:
                return group
        # Groups have come, gone or changed places.
        self._places = _places(self.optimizer)
        return groups[self._places[parameter][0]] if parameter in self._places else None


def _places(optimizer: RuleOptimizer) -> dict[Tensor, tuple[int, int]]:
    """Return of each parameter the number of its group and its place in that: the last, of one that is listed twice."""
    return {
        each: (number, place)
        for number, group in enumerate(optimizer.param_groups)
        for place, each in enumerate(group["params"])
    }


def _values(group: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name not in ("params", "param_names")}


class _Hook:
    """What autograd calls when a parameter's gradient is complete."""

    def __init__(self, steps: BackwardSteps) -> None:
        self._steps: Final = weakref.ref(steps)

    def __call__(self, parameter: Tensor) -> None:
        steps = self._steps()
        assert steps is not None
        steps._step(parameter)


def _refuse_hooked(parameter: Tensor) -> None:
    hooks: Any = parameter._post_accumulate_grad_hooks or {}
    if any(isinstance(each, _Hook) for each in hooks.values()):
        raise ValueError(
            f"model_or_params has a parameter of shape {tuple(parameter.shape)} that steps in the backward pass already; "
            "`remove()` those steps first"
        )


def step_in_backward(
    model_or_params: torch.nn.Module | Iterable[Any], rule_or_class: Rule | type[RuleOptimizer], **hyperparameters: Any
) -> BackwardSteps:
    """Step each parameter within `loss.backward()`, as soon as its gradient is complete, and free the gradient.

    The gradients of a net are never all there at one time, which saves their memory; a training loop calls neither
    `step` nor `zero_grad`. What needs all gradients before a step (clipping by their norm, `GradScaler`) cannot be had.

    `model_or_params` is a module, or what the optimizer's class takes: tensors, named parameters or groups.
    `rule_or_class` is a rule or a class that `optimizer` has made of one, or a subclass; `hyperparameters` are that
    class's arguments. Frozen parameters stand still until they are trained; one that is used in several places of a net
    steps once. Copies of the module, pickled or deep, do not step, nor do parameters that `torch.utils.swap_tensors` has
    exchanged for others.

    Raises `TypeError` for another kind of `rule_or_class` and for a module that averages gradients after they are
    complete (`DistributedDataParallel`, also by `replicate`, and `FullyShardedDataParallel`; use `fully_shard`), and
    `ValueError` for a parameter that steps in the backward pass already. A backward pass raises `RuntimeError` where a
    parameter gets its gradient in several parts, of which each would be a step: by `torch.utils.checkpoint.checkpoint` with
    `use_reentrant=True`, from one place of several that use the parameter.
    """
    cls = optimizer(rule_or_class) if isinstance(rule_or_class, Rule) else rule_or_class
    if not (isinstance(cls, type) and issubclass(cls, RuleOptimizer)):
        raise TypeError(f"rule_or_class is {cls!r}; allowed is a rule, or a class of steprule.torch")
    if isinstance(model_or_params, torch.nn.Module):
        _refuse_wrappers(model_or_params)
        return BackwardSteps(cls(model_or_params.parameters(), **hyperparameters))
    return BackwardSteps(cls(model_or_params, **hyperparameters))


def _refuse_wrappers(model: torch.nn.Module) -> None:
    fsdp = sys.modules.get("torch.distributed.fsdp")
    # The class that `replicate` gives a module is private to PyTorch, and may go.
    replicated: Any = getattr(sys.modules.get("torch.distributed._composable.replicate"), "DDP", None)
    wrappers = (
        torch.nn.parallel.DistributedDataParallel,
        *([fsdp.FullyShardedDataParallel] if fsdp else []),
        *([replicated] if replicated else []),
    )
    for module in model.modules():
        if isinstance(module, wrappers):
            raise TypeError(
                f"model_or_params holds a {type(module).__name__}, which averages gradients over ranks only after they "
                "are complete here; allowed are modules without one, and those that `fully_shard` has sharded"
            )
