"""What the learning rate is now: the steps of any optimizer divided by the gradients, for a few dimensions of each layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch.nn.parameter import is_lazy

import torch
from torch import Tensor, nn

from ..rates import Rates, Record, Sampler
from .catching_up import CatchingUp
from .compiled import outside_compiled_code
from .elements import SampledElements, plain
from .refusals import check_model

__all__ = ["RateMonitor"]


class RateMonitor(Rates):
    """Records effective learning rates, -update / gradient, of random dimensions of each parameter of an optimizer.

    `optimizer` is any `torch.optim.Optimizer`, of ours or not: a hook before its step and one after it look at the
    parameters. Steps 1, 1 + `every`, 1 + 2 `every`, ... are recorded, `sample` dimensions of each parameter (all, where it
    has fewer), the same at each step, chosen by `seed`. Layers have the names that the parameters have in `model`, or those
    that the optimizer was given, else numbers. `writer` is a `torch.utils.tensorboard.SummaryWriter` or alike, which is told
    of each recorded step at once.

    Parameters of every real and complex dtype, strided or DTensor, with dense or sparse (COO) gradients; those without a
    gradient at a step are left out. The update is what the stored parameter has changed by, so that rounding to its dtype
    is in it: `table()["rounding"]` bounds that. Under `torch.amp.GradScaler` the gradient is the unscaled one, and in the
    place of a step that the scaler leaves out the next one is recorded. With a closure, the gradient is that of its last
    call. A step that is replayed from a CUDA graph calls no hook and is not recorded.

    Between the recorded steps nothing but a number is counted; a recorded one copies 3 * `sample` numbers a parameter to the
    host. The monitor ends with `remove()` or as a context manager; copies of the optimizer are not monitored.

    Raises `TypeError` for what is no optimizer or no model, and `ValueError` for an `every` or a `sample` below 1::

        monitor = RateMonitor(optimizer, model=net)
        ...  # train
        print(monitor)
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        every: int = 60,
        sample: int = 10,
        *,
        model: nn.Module | None = None,
        seed: int = 0,
        writer: Any = None,
    ) -> None:
        super().__init__(writer)
        watched: Any = optimizer
        if isinstance(optimizer, torch.optim.Optimizer) and not hasattr(optimizer, "_optimizer_step_pre_hooks"):
            watched = getattr(optimizer, "optimizer", None)  # accelerate's wrapper has no hooks of its own
        if not isinstance(watched, torch.optim.Optimizer):
            raise TypeError(f"optimizer is a {type(optimizer).__name__}; allowed is a torch.optim.Optimizer")
        if model is not None:
            check_model(model)
        self.step = 0
        """Steps since the monitor was made; settable, where a run goes on from a checkpoint."""
        self._optimizer: Final = watched
        self._sampler: Final = Sampler(every, sample, seed)
        self._names: Final = {} if model is None else {each: name for name, each in model.named_parameters()}
        self._elements: dict[Tensor, SampledElements] = {}
        self._before: _Looked | None = None
        self._is_due = False
        self._handles: Final = [
            watched.register_step_pre_hook(self._look_before),
            watched.register_step_post_hook(self._look_after),
        ]

    def dimensions(self) -> dict[str, NDArray[np.int64]]:
        """Return the elements that are looked at, by layer: their numbers in the parameter, read row by row."""
        return {name: elements.numbers for name, _, elements in self._layers(self._optimizer)}

    def remove(self) -> None:
        """Look at no further step. What was recorded stays."""
        for handle in self._handles:
            handle.remove()

    def __enter__(self) -> RateMonitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def state_dict(self) -> dict[str, Any]:
        """Return the number of the step and what was recorded, as plain numbers and text."""
        return {"steps": self.step, "table": super().state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned; raises `ValueError` where it lacks something."""
        missing = [name for name in ("steps", "table") if name not in state]
        if missing:
            raise ValueError(f"state has no {', '.join(missing)}; allowed is what state_dict() returned")
        super().load_state_dict(state["table"])
        self.step = int(state["steps"])

    @outside_compiled_code
    def _look_before(self, optimizer: Any, args: Sequence[Any], named: Mapping[str, Any]) -> None:
        self.step += 1
        self._is_due = self._is_due or (self.step - 1) % self._sampler.every == 0
        self._before = None
        # On a GPU, to look at `found_inf` waits for it.
        if not self._is_due or _is_captured() or float(getattr(optimizer, "found_inf", None) or 0.0):
            return
        with_closure = (args[1] if len(args) > 1 else named.get("closure")) is not None
        self._before = _Looked(optimizer, list(self._layers(optimizer)), with_closure)

    @outside_compiled_code
    def _look_after(self, *_: Any) -> None:
        if self._before is None:
            return
        self.add(self._before.records(self.step))
        self._before, self._is_due = None, False

    def _layers(self, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor, SampledElements]]:
        """Yield each parameter with its name and its sampled elements."""
        number = 0
        for group in optimizer.param_groups:
            names = group.get("param_names") or [None] * len(group["params"])
            for name, parameter in zip(names, group["params"], strict=True):
                if is_lazy(parameter):  # of a module that has not run yet: it has no elements, and does not step
                    number += 1
                    continue
                found = self._elements.get(parameter)
                if found is None or not found.fit(parameter):
                    found = SampledElements(parameter, self._sampler.dimensions(number, plain(parameter).numel()))
                    self._elements[parameter] = found
                if len(found) and not parameter.is_meta:
                    yield self._names.get(parameter) or name or f"parameter {number}", parameter, found
                number += 1


class _Looked:
    """The sampled elements before a step: of the parameters, and of the gradients where no closure makes others."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        layers: Sequence[tuple[str, Tensor, SampledElements]],
        with_closure: bool,
    ) -> None:
        self._optimizer = optimizer
        self._layers = layers
        self._scale = getattr(optimizer, "grad_scale", None)
        self._before = [self._parameter(parameter, elements) for _, parameter, elements in layers]
        self._gradients = None if with_closure else self._all_gradients()

    def _parameter(self, parameter: Tensor, elements: SampledElements) -> Tensor:
        grad = parameter.grad
        if isinstance(self._optimizer, CatchingUp) and grad is not None and grad.layout is torch.sparse_coo:
            self._optimizer.lags.catch_up_rows(parameter, elements.rows())
        return elements.of(parameter)

    def _all_gradients(self) -> list[Tensor | None]:
        grads = [None if each.grad is None else elements.of(each.grad) for _, each, elements in self._layers]
        if self._scale is None:
            return grads
        return [None if grad is None else grad / self._scale for grad in grads]

    def records(self, step: int) -> Iterator[Record]:
        """Yield what the step has done to each parameter with a gradient, all being on the host."""
        gradients = self._all_gradients() if self._gradients is None else self._gradients
        stepped = [
            (name, parameter, elements, [before, self._parameter(parameter, elements), gradient])
            for (name, parameter, elements), before, gradient in zip(self._layers, self._before, gradients, strict=True)
            if gradient is not None
        ]
        numbers = iter(_on_host([each for *_, three in stepped for each in three]))
        for name, parameter, elements, _ in stepped:
            three = next(numbers), next(numbers), next(numbers)
            yield Record.of(step, name, elements.numbers, *three, torch.finfo(parameter.dtype).eps)


def _on_host(tensors: Sequence[Tensor]) -> list[NDArray[np.float64]]:
    """Return them as arrays, with one copy from each device."""
    on: dict[torch.device, list[int]] = {}
    for place, each in enumerate(tensors):
        on.setdefault(each.device, []).append(place)
    found: dict[int, NDArray[np.float64]] = {}
    for places in on.values():
        # `cat` widens mixed dtypes to one that holds all of them.
        joined = torch.cat([tensors[place] for place in places]).cpu().to(torch.float64).numpy()
        ends = np.cumsum([len(tensors[place]) for place in places])
        found |= dict(zip(places, np.split(joined, ends[:-1]), strict=True))
    return [found[place] for place in range(len(tensors))]


def _is_captured() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
