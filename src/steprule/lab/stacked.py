"""The models of several trials as one: their parameters stacked along a first dimension, each with a rule of its own.

PyTorch maps the model over that dimension. The rules' own optimizers step the stack: the parameters of a trial are a group,
whose tensors are slices of the stack's memory, so that all trials of a rule step in one launch.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from torch.func import functional_call, stack_module_state, vmap

import torch
from torch import Tensor, nn

from ..torch import RuleOptimizer, optimizer
from ..torch.losses import scalar
from .grids import find_rule
from .problem import Data, Problem
from .training import with_batch_size
from .workers import Task

__all__ = ["Stack", "bytes_per_trial", "on_device"]


@contextlib.contextmanager
def _without_fast_path() -> Iterator[None]:
    """Have a transformer that is set to evaluation compute what can be differentiated."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def on_device(problem: Problem, device: torch.device) -> Problem:
    """Return the problem with its data there."""

    def moved(data: Data) -> Data:
        return data[0].to(device), data[1].to(device)

    validation = None if problem.validation is None else moved(problem.validation)
    return replace(problem, train=moved(problem.train), test=moved(problem.test), validation=validation)


class Stack:
    """The trials `tasks` of a problem, whose data are on `device`. Each takes its examples in the order it has alone.

    Raises `ValueError` for models whose gradients are others here than alone.
    """

    def __init__(self, problem: Problem, tasks: Sequence[Task], device: torch.device) -> None:
        self._problem: Final = problem
        models = [problem.model(task.seed) for task in tasks]
        parameters, buffers = stack_module_state(models)
        self._model: Final = models[0].to(device)
        self._values: Final = {name: each.detach().to(device) for name, each in parameters.items()}
        self._buffers: Final = {name: each.to(device) for name, each in buffers.items()}
        self._trained: Final = [name for name, each in models[0].named_parameters() if each.requires_grad]
        for name in self._trained:
            self._values[name].requires_grad_()
        self._gradients: Final = [torch.zeros_like(self._values[name].detach()) for name in self._trained]
        self._slices: Final = [self._of_trial(trial) for trial in range(len(tasks))]
        self._unused: set[int] = set()
        self._frozen: Final[set[int]] = set()
        self._steppers, self._counting = self._optimizers(tasks)
        seeds = sorted({task.seed for task in tasks})
        self._orders: Final = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._order_of: Final = torch.tensor([seeds.index(task.seed) for task in tasks], device=device)
        self._device: Final = device
        for seed in seeds if len(tasks) > 1 else []:  # one alone may fill the device, and is the first model
            trial = [task.seed for task in tasks].index(seed)
            self._refuse_other(models[trial].to(device), trial, seed)

    def _refuse_other(self, model: nn.Module, trial: int, seed: int) -> None:
        """Refuse a model whose gradients, without what is drawn at random, are others in a stack than alone.

        It may differ from that of the first trial in more than is stacked, or PyTorch map it to another function: it drops
        the `padding_idx` of all embeddings but the first of a stack.
        """
        inputs, targets = (each[: self._problem.batch_size].clone() for each in self._problem.train)
        twice = [trial, trial]
        values = {name: each.detach()[twice] for name, each in self._values.items()}
        buffers = {name: each[twice] for name, each in self._buffers.items()}
        stacked = [values[name].requires_grad_() for name in self._trained]
        own = dict(model.named_parameters())
        self._model.eval()
        model.eval()
        with _without_fast_path():
            losses = vmap(self._loss)(values, buffers, torch.stack([inputs, inputs]), torch.stack([targets, targets]))
            loss = scalar(self._problem.loss(model(inputs), targets), self._problem.name)
        here = torch.autograd.grad(losses.sum(), stacked, materialize_grads=True)
        there = torch.autograd.grad(loss, [own[name] for name in self._trained], materialize_grads=True)
        most = max((each.abs().max().item() for each in there), default=0.0)
        for name, (_, found), alone in zip(self._trained, here, there, strict=True):
            rounding = 10 * torch.finfo(alone.dtype).eps ** 0.5 * (alone.abs().max().item() + most / 100)
            if math.isfinite(rounding) and not torch.allclose(found, alone, rtol=0.0, atol=rounding):
                raise ValueError(
                    f"problem {self._problem.name}: with seed {seed}, the gradient of {name} in the batched model is not "
                    "that of the model alone; allowed are models that differ between seeds in parameters and buffers only, "
                    "and embeddings without padding_idx, which PyTorch's vmap drops"
                )

    def _of_trial(self, trial: int) -> list[Tensor]:
        slices = []
        for name, gradient in zip(self._trained, self._gradients, strict=True):
            # A leaf of its own, in the stack's memory, whose gradient is refilled in place at each step.
            each = self._values[name].detach()[trial].requires_grad_()
            each.grad = gradient[trial]
            slices.append(each)
        return slices

    def _optimizers(self, tasks: Sequence[Task]) -> tuple[list[RuleOptimizer], list[RuleOptimizer]]:
        """Return an optimizer for each rule, and those whose rule is told the size of each batch."""
        groups: dict[tuple[str, bool], list[dict[str, object]]] = {}
        for task, slices in zip(tasks, self._slices, strict=True):
            values, takes_batch_size = with_batch_size(self._problem, find_rule(task.rule), task.hyperparameters)
            groups.setdefault((task.rule, takes_batch_size), []).append({"params": slices, **values})
        made = {key: optimizer(find_rule(key[0]))(some) for key, some in groups.items()}
        return list(made.values()), [each for (_, takes_batch_size), each in made.items() if takes_batch_size]

    def train_epoch(self) -> list[float]:
        """Pass once over the training data, in a new order for each seed; return the mean loss of each trial's examples."""
        inputs, targets = self._problem.train
        self._model.train()
        total = torch.zeros(len(self._slices), dtype=torch.float64, device=self._device)
        orders = torch.stack([torch.randperm(len(inputs), generator=order) for order in self._orders]).to(self._device)
        values = [self._values[name] for name in self._trained]
        for batch in torch.split(orders, self._problem.batch_size, dim=1):
            examples = batch.index_select(0, self._order_of)
            losses = vmap(self._loss, randomness="different")(
                self._values, self._buffers, inputs[examples], targets[examples]
            )
            self._take(torch.autograd.grad(losses.sum(), values, allow_unused=True))
            self._tell_size(batch.shape[1])
            for stepper in self._steppers:
                stepper.step()
            total.add_(losses.detach(), alpha=batch.shape[1])
        return [each / len(inputs) for each in total.tolist()]

    def _take(self, found: Sequence[Tensor | None]) -> None:
        """Take the gradients of a batch; a parameter that the loss does not depend on has none, and is not stepped."""
        for gradient, each in zip(self._gradients, found, strict=True):
            if each is not None:
                gradient.copy_(each)
        unused = {number for number, each in enumerate(found) if each is None}
        for number in unused ^ self._unused:
            for trial, slices in enumerate(self._slices):
                has = number not in unused and trial not in self._frozen
                slices[number].grad = self._gradients[number][trial] if has else None
        self._unused = unused

    def _tell_size(self, size: int) -> None:
        for stepper in self._counting:
            for group in stepper.param_groups:
                group["batch_size"] = size

    def _outputs(self, values: dict[str, Tensor], buffers: dict[str, Tensor], inputs: Tensor) -> Tensor:
        state = {**values, **buffers}
        outputs: Tensor = functional_call(self._model, state, (inputs,))
        for name, buffer in buffers.items():
            if state[name] is not buffer:  # the model has put another in its place, rather than written to it
                buffer.copy_(state[name].detach())
        return outputs

    def _loss(self, values: dict[str, Tensor], buffers: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
        return scalar(self._problem.loss(self._outputs(values, buffers, inputs), targets), self._problem.name)

    @torch.no_grad()
    def measured(self, data: Data) -> list[float]:
        """Return the metric of each trial."""
        self._model.eval()
        outputs = vmap(self._outputs, in_dims=(0, 0, None))
        # Copies, as in `Problem.measured`.
        given = (part.clone() for part in torch.split(data[0], self._problem.batch_size))
        parts = [outputs(self._values, self._buffers, part) for part in given]
        return [self._problem.value(each, data[1]) for each in self._problem.joined(parts, dim=1).unbind()]

    def freeze(self, trial: int) -> None:
        """Step this trial no more."""
        self._frozen.add(trial)
        for each in self._slices[trial]:
            each.grad = None


def bytes_per_trial(problem: Problem, tasks: Sequence[Task]) -> int:
    """Return how much memory each of `tasks` takes, about: parameters, gradients, slots, activations."""
    model = problem.model(tasks[0].seed)
    inputs, targets = (each[: problem.batch_size].to("cpu", copy=True) for each in problem.train)
    saved: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        outputs = problem.joined([model(inputs)])
        problem.loss(outputs, targets)
    parameters: int = sum(each.nbytes for each in model.parameters())
    slots = max(len(find_rule(rule).slots) for rule in {task.rule for task in tasks})
    sizes = [len(data[0]) for data in (problem.test, problem.validation) if data is not None]
    measured: int = max(sizes) * outputs.nbytes // len(inputs)
    # Gradients are there twice: as autograd makes them, and where the rules read them.
    return (3 + slots) * parameters + 2 * sum(saved.values()) + 2 * inputs.nbytes + measured
