"""`torch.optim.Optimizer` classes, one for each rule, all of them this one class with a rule in it."""

from __future__ import annotations

import collections
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final

import torch

from ..specification import Rule, check_rule
from . import storing
from .catching_up import CatchingUp
from .compiled import outside_compiled_code
from .derived import with_derived
from .describe import docstring
from .keywords import OPTIONS, Keywords
from .memory import is_fake
from .plan import Plan
from .state import begin, check_groups, checked_states, complete_groups, has_state
from .twins import PAIRS

__all__ = ["RuleOptimizer", "optimizer"]


class RuleOptimizer(CatchingUp):
    """What the classes of `steprule.torch` share; make one with `optimizer(rule)`."""

    rule: ClassVar[Rule]
    keywords: ClassVar[Keywords]
    __signature__: ClassVar[inspect.Signature]
    _recipe: ClassVar[tuple[Rule, str, tuple[tuple[str, Any], ...]]]
    _plan: Plan | None = None
    _handed_on: Sequence[torch.Tensor] = ()
    """Step counts that another process is given, which `spawn` must find open after they were pickled."""
    first_number: int = 0
    """The number of the first parameter, where this is a part of a larger optimizer: random rounding and errors go by it."""
    # `torch.amp.GradScaler` then sets `grad_scale` and `found_inf` for the time of a step.
    _step_supports_amp_scaling = True

    def __init__(self, params: Any, *values: Any, **named: Any) -> None:
        if not hasattr(type(self), "rule"):
            raise TypeError("RuleOptimizer has no rule; steprule.torch.optimizer(rule) makes a class that has one")
        if not hasattr(params, "__iter__") and not hasattr(params, "__getitem__"):
            raise TypeError(
                f"params is a {type(params).__name__}; allowed are tensors, named or not, or groups of them"
            )
        params, derived = with_derived(self.rule, params)
        super().__init__(params, self.keywords.bound(params, values, named, derived))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, with its own values of the hyperparameters; errors as in the constructor."""
        if isinstance(param_group, dict):
            if "params" not in param_group:
                raise TypeError(
                    f"a parameter group has {', '.join(map(str, param_group)) or 'nothing'}; params is missing"
                )
            self.keywords.form_and_values(self.defaults | self.keywords.folded(param_group, self.defaults))
            self.keywords.fold(param_group, self.defaults)
        super().add_param_group(param_group)
        if self.keywords.begins_at_once:
            group = self.param_groups[-1]
            first = sum(len(each["params"]) for each in self.param_groups[:-1])
            for number, parameter in enumerate(group["params"], first):
                begin(self.state[parameter], parameter, number, group, self.keywords)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what was loaded or copied; what was loaded and does not fit is refused, and nothing changes."""
        groups = state["param_groups"]
        # A copy brings its defaults, and is what it was copied from, whatever that is.
        if "defaults" in state:
            complete_groups(groups, self.keywords)
        else:
            complete_groups(groups, self.keywords, self.param_groups)
            check_groups(groups, self.keywords)
            found = checked_states(state["state"], groups, self.keywords)
            state = {**state, "state": collections.defaultdict(dict, found)}
        super().__setstate__(state)
        self.defaults = self.keywords.known | self.keywords.folded(self.defaults, self.keywords.defaults)

    @outside_compiled_code
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step every parameter that has a gradient; return the loss of `closure`, which is called first, if given.

        Raises `ValueError` where a hyperparameter, as a scheduler has left it, is out of range, a parameter overlaps itself
        in memory, a gradient or slot is not of its parameter's shape, or the rule takes an `h` or `g2` that is missing or of
        another shape, `TypeError` for a parameter of integers, an `h` or `g2` that is no tensor, or a sparse gradient that
        the rule cannot step by (see `SparseSteps.prepare` for all that may be wrong with one), and `FloatingPointError` as
        `on_nonfinite` says.

        Under `torch.amp.GradScaler` the gradients are unscaled within the step, and are left as they are.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if float(getattr(self, "found_inf", 0.0)):
            return loss
        given = None if self._plan is None else self._plan.fitting(self)
        if self._plan is None or given is None:
            if self._fakes_begun():
                return loss
            self._plan = Plan.after(self, self._plan)
            given = self._plan.fitting(self)
            assert given is not None
        self._plan.step(given)
        self._stepped()
        return loss

    def _fakes_begun(self) -> bool:
        """Return whether the parameters only stand for tensors; of these, a step makes the state and no more."""
        pairs = [(each, group) for group in self.param_groups for each in group["params"]]
        if not all(is_fake(each) for each, _ in pairs):
            return False
        counts, masters = (any(group[name] for group in self.param_groups) for name in ("lr_decay", "master_copies"))
        if has_state(self.rule, counts=counts, masters=masters):
            for number, (parameter, group) in enumerate(pairs):
                if parameter.grad is not None:
                    begin(self.state[parameter], parameter, number, group, self.keywords)
        return True

    def _stepped(self) -> None:
        """Do what a class does after each step; most do nothing."""

    def share_memory(self) -> None:
        """Move the slots that are there to shared memory, as `torch.optim.Adagrad.share_memory`, for several processes.

        Each process counts its own steps.
        """
        self.catch_up()
        for state in self.state.values():
            for name, value in state.items():
                if name != "step":
                    value.share_memory_()

    def state_dict(self) -> dict[str, Any]:
        """Return the state, caught up: it is that of a run with dense gradients.

        It has the names of the twin in `torch.optim`, which can load it, unless there are codes of 8 bits: `SLOT_codes`.
        """
        return storing.with_codes_named(super().state_dict(), self.rule)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, of this optimizer or of its twin in `torch.optim`; low-precision slots come back as they were."""
        loaded: list[dict[str, Any]] = []
        # The last hook before sees what the others have made of it, and the first one after comes before what they do.
        hooks = [
            self.register_load_state_dict_pre_hook(lambda _, made: loaded.append(made)),
            self.register_load_state_dict_post_hook(lambda _: storing.restore(self, loaded[-1]), prepend=True),
        ]
        try:
            super().load_state_dict(state_dict)
        finally:
            for hook in hooks:
                hook.remove()

    def __reduce__(self) -> tuple[Any, ...]:
        cls = type(self)
        self.catch_up()
        kept: dict[str, Any] = self.__getstate__()
        # The counts lie side by side in memory, and pickle would write all of them for each.
        kept["state"] = collections.defaultdict(dict)
        counts = self._handed_on = []
        for parameter, state in self.state.items():
            kept["state"][parameter] = state
            if isinstance(state, dict) and isinstance(state.get("step"), torch.Tensor):
                counts.append(state["step"].clone())
                kept["state"][parameter] = {**state, "step": counts[-1]}
        # A class that `optimizer` made for a user's rule need not be bound to a name in any module; a subclass is.
        return (_bare_of, cls._recipe, kept) if "_recipe" in vars(cls) else (_bare, (cls,), kept)


def _bare(cls: type[RuleOptimizer]) -> RuleOptimizer:
    return cls.__new__(cls)


def _bare_of(rule: Rule, name: str, defaults: tuple[tuple[str, Any], ...]) -> RuleOptimizer:
    return _bare(optimizer(rule, name=name, **dict(defaults)))


def optimizer(rule: Rule, *, name: str | None = None, **defaults: Any) -> type[RuleOptimizer]:
    """Return the `torch.optim.Optimizer` class of `rule`; the same rule gives the same class.

    Its constructor takes `params` (tensors, named parameters or groups, as in torch). Where `torch.optim` has a class that
    makes the same steps, its arguments follow in their order; else `lr`, the rule's hyperparameters in theirs, and
    `weight_decay`. By name it takes `lr_decay`, `decoupled_weight_decay` and torch's options. `beta1` and `beta2` are one
    pair, `betas`, which may be given by its parts too. `defaults` replaces defaults; `name` the class's name, which is the
    rule's in CamelCase. Raises `TypeError` for what is no rule, or one with a hyperparameter of a name that is taken.

    Parameters on the CPU (float32, float64, bfloat16, float16, and complex ones as pairs) and on a GPU, dense in memory in
    any order of dimensions, step in one fused loop; every other one steps through torch's operations, with the same result
    and more slowly. Arithmetic is done in float32 at least; state is kept in the parameter's dtype unless `state_dtype` says
    otherwise.

    A rule that takes `h` or `g2` finds them, at each step, in the attributes `h` and `g2` of each parameter that has a
    gradient: dense tensors of its shape. `steprule.curvature` sets them.
    """
    check_rule(rule)
    name, given = name or rule.class_name, tuple(sorted(defaults.items()))
    key = rule, name, tuple((each, _with_hash(value)) for each, value in given)
    if key not in _classes:
        _classes[key] = _made(rule, name, given)
    return _classes[key]


_classes: Final[dict[tuple[Any, ...], type[RuleOptimizer]]] = {}


def _with_hash(value: Any) -> Any:
    """Return what stands in a key for a mapping, as of slots to dtypes, or for a list."""
    if isinstance(value, Mapping):
        return frozenset(value.items())
    return tuple(value) if isinstance(value, list) else value


def _made(rule: Rule, name: str, defaults: tuple[tuple[str, Any], ...]) -> type[RuleOptimizer]:
    for taken in ("params", "closure", "param_names", *OPTIONS, *PAIRS):
        if taken in rule.hyperparameters:
            raise TypeError(f"rule {rule.name} has a hyperparameter {taken!r}, which has a meaning in every optimizer")
    keywords = Keywords(rule, name, defaults)
    return type(
        name,
        (RuleOptimizer,),
        {
            "__doc__": docstring(keywords),
            "__module__": "steprule.torch",
            "__signature__": keywords.signature,
            "rule": rule,
            "keywords": keywords,
            "_recipe": (rule, name, defaults),
        },
    )
