"""What a rule is tried on."""

from __future__ import annotations

import functools
import hashlib
import inspect
import math
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from .. import named
from ..counts import check_count
from ..specification import Rule
from .results import Epoch, Metric

__all__ = ["BUILT_IN", "Data", "Problem", "error_rate", "find_problem", "refuse_trainer", "with_corpus"]

Data = tuple[Tensor, Tensor]
"""Inputs and targets, with the examples along the first dimension of both."""

# Examples per forward pass of an evaluation.
_EVALUATED_AT_ONCE: Final = 2000

# Examples of which a process is asked whether it has the same; not all, whose last digits may depend on its threads.
_SAMPLED: Final = 32


class _Model:
    """Makes a problem's models, each from random numbers of PyTorch that its seed decides, whatever was drawn before."""

    def __init__(self, problem: str, make: Callable[[int], nn.Module]) -> None:
        self._problem: Final = problem
        self._make: Final = make
        self._made: Final[weakref.WeakSet[nn.Module]] = weakref.WeakSet()

    def __call__(self, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        made = self._make(seed)
        if not isinstance(made, nn.Module):
            raise TypeError(
                f"problem {self._problem}: model({seed}) is of type {type(made).__name__}; allowed is a module"
            )
        if made in self._made:
            raise ValueError(
                f"problem {self._problem}: model({seed}) is the module of an earlier call, which may be trained by now; "
                "allowed is a new one from each call"
            )
        self._made.add(made)
        return made


@dataclass(frozen=True)
class Problem:
    """A model, its data, and what is minimised and measured.

    `model(seed)` makes a new module with the initial weights of that seed, by which PyTorch's random numbers are seeded
    before. `loss(outputs, targets)` is a scalar, the mean over the examples of a batch. `measure(outputs, targets)` is the
    metric over a whole data set. Where there are `validation` data, a rule's best setting is chosen on them; else it is
    chosen on the test data, and every page says so.
    `trainer(problem, rule, hyperparameters, seed, epochs)` trains in place of the plain loop, where there is one, and yields
    each `Epoch` as it ends.
    """

    name: str
    description: str
    model: Callable[[int], nn.Module]
    train: Data
    test: Data
    loss: Callable[[Tensor, Tensor], Tensor]
    metric: Metric
    measure: Callable[[Tensor, Tensor], float]
    validation: Data | None = None
    batch_size: int = 100
    epochs: int = 10
    trainer: Callable[[Problem, Rule, Mapping[str, float], int, int], Iterator[Epoch]] | None = None

    def __post_init__(self) -> None:
        for name in ("train", "test") if self.validation is None else ("train", "test", "validation"):
            self._check_data_pair(name, getattr(self, name))
        if isinstance(self.model, nn.Module) or not callable(self.model):
            raise TypeError(
                f"problem {self.name}: model is of type {type(self.model).__name__}; allowed is a function that makes a "
                "module of a seed"
            )
        if not isinstance(self.model, _Model):
            object.__setattr__(self, "model", _Model(self.name, self.model))
        if not isinstance(self.metric, Metric):
            raise TypeError(f"problem {self.name}: metric is {self.metric!r}; allowed is a steprule.lab.Metric")
        for name, value in {"batch_size": self.batch_size, "epochs": self.epochs}.items():
            check_count(f"problem {self.name}: {name}", value)

    def _check_data_pair(self, name: str, data: Any) -> None:
        if not isinstance(data, (tuple, list)) or len(data) != 2:
            found = f"{len(data)} things" if isinstance(data, (tuple, list)) else type(data).__name__
            raise TypeError(f"problem {self.name}: {name} is {found}; allowed is the pair of inputs and targets")
        for part, given in zip(("inputs", "targets"), data, strict=True):
            if not isinstance(given, Tensor):
                raise TypeError(
                    f"problem {self.name}: the {part} of {name} are of type {type(given).__name__}; allowed is a "
                    "tensor, such as torch.as_tensor makes"
                )
            if given.layout is not torch.strided or not given.dim():
                found = "a single number" if given.layout is torch.strided else f"of the layout {given.layout}"
                raise ValueError(
                    f"problem {self.name}: the {part} of {name} are {found}; allowed is a dense tensor with the "
                    "examples along its first dimension"
                )
        if len(data[0]) != len(data[1]) or len(data[0]) == 0:
            raise ValueError(
                f"problem {self.name}: {name} has {len(data[0])} inputs and {len(data[1])} targets; allowed is the same "
                "number of both, at least 1"
            )

    @property
    def batches_per_epoch(self) -> int:
        """How many batches one pass through the training data has."""
        return math.ceil(len(self.train[0]) / self.batch_size)

    def data_digest(self) -> str:
        """Return a short hash of all its data: what is read from a file may change where no code does."""
        found = hashlib.sha256()
        for data in (self.train, self.test, self.validation or ()):
            for part in data:
                found.update(f"{part.dtype} {tuple(part.shape)} ".encode())
                found.update(part.detach().cpu().resolve_conj().contiguous().view(torch.uint8).numpy().data)
        return found.hexdigest()[:12]

    def data_sample(self) -> list[list[float]]:
        """Return the mean size of some examples of each part of its data: whether another process has the same."""
        parts = [part.detach() for data in (self.train, self.test, self.validation or ()) for part in data]
        places = [torch.linspace(0, len(part) - 1, _SAMPLED, dtype=torch.float64).long() for part in parts]
        some = [part.cpu()[each].to(torch.complex128).abs() for part, each in zip(parts, places, strict=True)]
        return [each.flatten(1).mean(1).tolist() if each.dim() > 1 else each.tolist() for each in some]

    def check_data(self, sample: Sequence[Sequence[float]]) -> None:
        """Raise `ValueError` where its data are not, but for rounding, those that have this `data_sample`."""
        for mine, other in zip(self.data_sample(), sample, strict=True):
            here, there = torch.tensor(mine), torch.tensor(other)
            rounding = 1e-3 * there.nan_to_num(0.0, posinf=0.0).max().item()
            if not torch.allclose(here, there, 1e-3, rounding, equal_nan=True):
                raise ValueError(
                    f"problem {self.name} has other data in each process; allowed are the same: seed what draws or splits "
                    "them"
                )

    def batches(self, order: torch.Generator) -> Iterator[Tensor]:
        """Yield the numbers of the examples of each batch, int64, once through the training data in a new order."""
        yield from torch.split(torch.randperm(len(self.train[0]), generator=order), self.batch_size)

    @torch.no_grad()
    def measured(self, model: nn.Module, data: Data) -> float:
        """Return the metric of `model`, set to evaluation, on a whole data set."""
        model.eval()
        # Copies, since a model may write to what it is given.
        outputs = self.joined([model(part.clone()) for part in torch.split(data[0], _EVALUATED_AT_ONCE)])
        return self.value(outputs, data[1])

    def joined(self, outputs: Sequence[Any], dim: int = 0) -> Tensor:
        """Return what a model says of several batches as one. Raises `TypeError` where that is no tensor, or a number."""
        for each in outputs:
            if not isinstance(each, Tensor) or not each.dim():
                # As squeeze() makes of a batch of one example.
                found = "tensor without dimensions" if isinstance(each, Tensor) else type(each).__name__
                raise TypeError(
                    f"problem {self.name}: the model returned a {found}; allowed is one tensor, with the examples along its "
                    "first dimension"
                )
        return torch.cat(list(outputs), dim)

    def value(self, outputs: Tensor, targets: Tensor) -> float:
        """Return the metric of what a model has said of a data set; NaN where that diverged and says nothing of it."""
        if outputs.isnan().all():
            return math.nan  # an error rate, of the largest of several NaN, would be a number
        try:
            found: Any = self.measure(outputs, targets)
        except Exception:
            if outputs.isfinite().all():
                raise
            return math.nan
        return self.number(found, "measure returned")

    def number(self, found: Any, said: str) -> float:
        """Return as a float what a function of the user's gave. Raises `TypeError`, in which it is `said` what that is."""
        try:
            return float(found)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"problem {self.name}: {said} {found!r:.80}; allowed is a number") from None


BUILT_IN: Final[Mapping[str, str]] = {
    "digits": "steprule.lab.problems.digits:digits",
    "mnist": "steprule.lab.problems.mnist:mnist",
    "airfoil": "steprule.lab.problems.airfoil:airfoil",
    "speech": "steprule.lab.problems.speech:speech",
    "speech_logistic": "steprule.lab.problems.speech:speech_logistic",
    "speech_full": "steprule.lab.problems.speech:speech_full",
    "speech_full_logistic": "steprule.lab.problems.speech:speech_full_logistic",
}

_SPEECH: Final = ", ".join(name for name, place in BUILT_IN.items() if "speech" in place)


def refuse_trainer(problem: Problem, elsewhere: str) -> None:
    """Raise `ValueError` where a problem is trained in a way of its own, which is not that of `elsewhere`."""
    if problem.trainer is not None:
        raise ValueError(
            f"{problem.name} is trained in a way of its own, which {elsewhere} does not follow; allowed are problems "
            "without a trainer"
        )


def find_problem(name: str) -> Callable[[], Problem]:
    """Return the function that makes the problem `name`: a built-in one, or the user's (see `named.load`).

    `NAME@100` is the problem NAME, trained by 100 replicas of a simulated cluster (`cluster.simulated`), and `NAME=FOLDER`
    the built-in problem NAME with its data from a folder of the user's (see `with_corpus`). Raises `ValueError` where there
    is none, and `TypeError` where it is no function, or one that needs arguments.
    """
    whole, at, replicas = name.rpartition("@")
    if at and replicas.isdecimal():
        from .cluster.simulated import on_replicas

        return on_replicas(find_problem(whole), int(replicas))
    base, equals, corpus = name.partition("=")
    if equals and base in BUILT_IN:
        return _on_corpus(base, corpus)
    if ":" not in name and name not in BUILT_IN:
        raise ValueError(
            f"there is no problem {name!r}; allowed are {', '.join(BUILT_IN)}, and your own as package.module:function or "
            "path/to/file.py:function"
        )
    found: Any = named.load(BUILT_IN.get(name, name))
    if not callable(found):
        raise TypeError(f"{name} is of type {type(found).__name__}; allowed is a function that returns a Problem")
    needed = [each.name for each in _parameters(found) if _is_needed(each)]
    if needed:
        raise TypeError(
            f"{name} needs {', '.join(needed)}; allowed is a function without arguments that returns a Problem"
        )
    return found  # type: ignore[no-any-return]


def _parameters(function: Callable[..., Any]) -> Iterable[inspect.Parameter]:
    """Return the parameters of a function itself, and not of one that it wraps; none where they cannot be known."""
    try:
        return inspect.signature(function, follow_wrapped=False).parameters.values()
    except ValueError:
        return ()


def _is_needed(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind not in (
        parameter.VAR_POSITIONAL,
        parameter.VAR_KEYWORD,
    )


def with_corpus(name: str, corpus: Path) -> str:
    """Return the name under which `find_problem` finds the problem `name` on the data in the folder `corpus`.

    Raises `ValueError` for a problem whose data cannot be replaced.
    """
    named_so = f"{name}={corpus.resolve()}"
    if name not in BUILT_IN:
        raise ValueError(f"the corpus {corpus} is given with the problem {name}; allowed are {_SPEECH}")
    find_problem(named_so)
    return named_so


def _on_corpus(name: str, corpus: str) -> Callable[[], Problem]:
    make: Any = named.load(BUILT_IN[name])
    if "corpus" not in inspect.signature(make).parameters:
        raise ValueError(f"the corpus {corpus} is given with the problem {name}; allowed are {_SPEECH}")

    @functools.wraps(make)
    def made() -> Problem:
        return make(corpus)  # type: ignore[no-any-return]

    return made


def error_rate(outputs: Tensor, targets: Tensor) -> float:
    """Return the share of examples, in %, whose largest output is not that of the target class."""
    return 100.0 * (outputs.argmax(dim=1) != targets).to(torch.float64).mean().item()
