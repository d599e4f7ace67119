"""A shard of the parameter server: its slice of the parameters, the rule's state for it, and nothing of other shards.

There is no transport here: a push goes in and a receipt comes out (Dean et al. 2012, section 4.1).
"""

from __future__ import annotations

import collections
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

import torch
from torch import Tensor

from ..program import lower
from ..sparsity import scales_without_gradient
from ..specification import Rule
from ..torch import optimizer
from ..torch.storing import Storing
from .memory import as_tensor
from .messages import FIRST, Fetched, Push, Receipt, Rows, Version
from .partition import Piece

__all__ = ["Shard"]

_DECIDING: Final = ("decoupled_weight_decay", "maximize", "state_dtype", "master_copies", "seed", "sparse")
"""The options, beside numbers, that decide a step."""


class Shard:
    """One shard: parameters, state, and what it has seen of each replica.

    `parameters` is its slice, flat, float32 or float64, which is copied; `pieces` says what lies in it
    (`Partition.pieces[s]`). `options` are those of the class of `steprule.torch` for the rule: its hyperparameters,
    `weight_decay`, `state_dtype`, and so on. A rule that takes the step count gets the shard's own. With `device="cuda"`,
    parameters and state live and step on the GPU.

    A push that holds an infinite number or NaN is not applied; with `on_nonfinite="raise"` it is an error, too.

    Raises `TypeError` and `ValueError` for options as that class does, for a rule that takes curvature, and for parameters
    of another type or size.
    """

    def __init__(
        self,
        rule: Rule,
        parameters: NDArray[Any],
        pieces: Sequence[Piece],
        *,
        on_nonfinite: Literal["skip", "raise"] = "skip",
        device: str = "cpu",
        **options: Any,
    ) -> None:
        if on_nonfinite not in ("skip", "raise"):
            raise ValueError(f'on_nonfinite is {on_nonfinite!r}; allowed are "skip" and "raise"')
        if rule.curvature:
            raise TypeError(f"rule {rule.name} takes {rule.curvature[0]}; a push brings the gradient and nothing else")
        size = sum(piece.size for piece in pieces)
        if parameters.dtype not in (np.float32, np.float64) or parameters.shape != (size,):
            raise ValueError(
                f"parameters is an array of {parameters.dtype} and shape {parameters.shape}; allowed is one of float32 or "
                f"float64 and shape ({size},)"
            )
        self.rule: Final = rule
        self.pieces: Final = tuple(pieces)
        self.dtype: Final = parameters.dtype
        self._raises: Final = on_nonfinite == "raise"
        self._flat: Final = torch.tensor(parameters, device=device)
        self._tensors: Final = [_part(self._flat, piece.start, piece) for piece in self.pieces]
        self._optimizer: Final = optimizer(rule)(self._tensors, **options)
        stored = Storing.of(rule, self._optimizer.param_groups[0])
        for tensor in self._tensors:
            stored.check(tensor)  # which a step would refuse, long after the first snapshot
        self._rows_alone: Final = self._can_step_rows_alone()
        self._dense_size: Final = sum(piece.size for piece in self.pieces if not piece.sparse)
        self.version = FIRST
        self.outcomes: collections.Counter[str] = collections.Counter()
        """How many pushes came to each outcome of `Receipt`."""
        self.staleness: collections.Counter[int] = collections.Counter()
        """How many pushes were applied with each staleness."""
        self.refused_in_a_row = 0
        """How many pushes were refused since one was applied."""
        self._seen: dict[int, int] = {}
        self._begun: dict[int, int] = {}
        """The updates that each life but the first began with."""
        self._lost: dict[int, int] = {}
        """The updates that were lost at the end of each life, as far as replicas have told."""

    @property
    def parameters(self) -> NDArray[Any]:
        """The slice as it is, flat and read-only; on the CPU it is the shard's own memory, which later pushes change."""
        found: NDArray[Any] = self._flat.numpy(force=True).view()
        found.flags.writeable = False
        return found

    @property
    def lost(self) -> int:
        """Updates that replicas had been told of, and that the shard had not any more when it was restored."""
        return sum(self._lost.values())

    @property
    def history(self) -> dict[str, list[tuple[int, int]]]:
        """What `begin_life` takes, as JSON can hold it: by the life, the updates that it began with and those lost."""
        return {"begun": list(self._begun.items()), "lost": list(self._lost.items())}

    def fetch(self) -> Fetched:
        """Return a copy of the slice, with its version."""
        return Fetched(self.version, self.parameters.copy())

    def last_number(self, replica: int) -> int:
        """Return the highest number that an applied push of `replica` has had, -1 if none was applied."""
        return self._seen.get(replica, -1)

    def push(self, push: Push) -> Receipt:
        """Apply a push, unless it was seen, is older than one that was, or holds what is no finite number.

        Raises `TypeError` and `ValueError`, before anything changes, for arrays of another type or size, or rows that there
        are not, `FloatingPointError` as `on_nonfinite` says, and `RuntimeError` where the replica knows of updates that
        this shard has yet to come to: it was restored, and not from its own files.
        """
        self._learn_of_losses(push)
        last = self.last_number(push.replica)
        if push.number <= last:
            return self._receipt("repeat" if push.number == last else "old", push)
        gradients = list(self._gradients(push))
        if not all(map(_finite, gradients)):
            if self._raises:
                raise FloatingPointError(
                    f"push {push.number} of replica {push.replica} is infinite or NaN in some elements "
                    '(on_nonfinite="raise")'
                )
            return self._receipt("refused", push)
        self._step(gradients)
        receipt = self._receipt("applied", push)
        self._seen[push.replica] = push.number
        self.staleness[receipt.staleness] += 1
        return receipt

    def _step(self, gradients: Sequence[Tensor]) -> None:
        for tensor, gradient in zip(self._tensors, gradients, strict=True):
            tensor.grad = gradient
        try:
            self._optimizer.step()
        finally:
            for tensor in self._tensors:
                tensor.grad = None  # its memory is the sender's

    def _receipt(self, outcome: Literal["applied", "repeat", "old", "refused"], push: Push) -> Receipt:
        self.outcomes[outcome] += 1
        life, updates = self.version.life, self.version.updates
        # Of what an earlier life had applied, only what the shard was restored to since is still part of it.
        since = [updates for begun, updates in self._begun.items() if begun > push.fetched.life]
        fetched = min([push.fetched.updates, *since])
        if outcome == "applied":
            self.version = Version(life, updates + 1)
            self.refused_in_a_row = 0
        self.refused_in_a_row += outcome == "refused"
        return Receipt(outcome, self.version, updates - fetched)

    def _learn_of_losses(self, push: Push) -> None:
        known, life = push.known, self.version.life
        if known.life > life or (known.life == life and known.updates > self.version.updates):
            raise RuntimeError(
                f"replica {push.replica} knows of update {known.updates} in life {known.life} of a shard that is at update "
                f"{self.version.updates} in life {life}; allowed is a shard that was restored from its own snapshots: on "
                "several machines, their folder must be one that all of them see"
            )
        # Of an older life too: it may have been restored more than once before this replica came to tell.
        kept = self._begun.get(known.life + 1, known.updates)
        if known.updates > kept:
            self._lost[known.life] = max(self._lost.get(known.life, 0), known.updates - kept)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return what a snapshot holds: the shard's own tensors by name, and counts that JSON can hold."""
        arrays = {"x": self._flat}
        for number, slots in self._optimizer.state_dict()["state"].items():
            arrays |= {f"{number}.{name}": tensor for name, tensor in slots.items()}
        counts = {
            "rule": self.rule.name,
            "options": self._options(),
            "pieces": [[piece.name, piece.first_row, *piece.shape] for piece in self.pieces],
            "life": self.version.life,
            "updates": self.version.updates,
            **self.history,
            "seen": list(self._seen.items()),
            "outcomes": list(self.outcomes.items()),
            "staleness": list(self.staleness.items()),
        }
        return arrays, json.loads(json.dumps(counts))  # as a snapshot gives it back

    def load(self, arrays: Mapping[str, Tensor], counts: Mapping[str, Any]) -> None:
        """Take over what `state` returned, of a shard of the same rule, options and pieces; to be followed by `begin_life`.

        Raises `ValueError` for the state of another rule, of other options or pieces, or of another type.
        """
        expected = self.state()[1]
        for name in ("rule", "pieces"):
            if counts[name] != expected[name]:
                raise ValueError(
                    f"the state to load has the {name} {counts[name]!r}; allowed for this shard is {expected[name]!r}"
                )
        known = counts.get("options", {})  # an older snapshot has none
        for name, value in expected["options"].items():
            if known.get(name, value) != value:
                raise ValueError(
                    f"{name} is {value}; allowed for the state to load is {known[name]}, which it was trained with"
                )
        if arrays["x"].dtype is not self._flat.dtype:
            raise ValueError(
                f"the state to load is of {arrays['x'].dtype}; allowed for this shard is {self._flat.dtype}"
            )
        slots: dict[int, dict[str, Tensor]] = {}
        for key, tensor in arrays.items():
            number, _, name = key.partition(".")
            if name:
                slots.setdefault(int(number), {})[name] = tensor
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": slots})
        self._flat.copy_(arrays["x"])
        self._seen = {int(replica): int(number) for replica, number in counts["seen"]}
        self.outcomes = collections.Counter(dict(counts["outcomes"]))
        self.staleness = collections.Counter(dict(counts["staleness"]))
        self._begun, self._lost = dict(counts["begun"]), dict(counts["lost"])
        self.version = Version(int(counts["life"]), int(counts["updates"]))

    def begin_life(
        self, life: int, begun: Iterable[tuple[int, int]] = (), lost: Iterable[tuple[int, int]] = ()
    ) -> None:
        """Begin a later `life` with what the shard has now; `begun` and `lost` are the `history` that it may not know.

        What replicas know it to have applied beyond that in an earlier life is lost, and counted when they tell
        (`Push.known`). Raises `ValueError` for a life that is not later.
        """
        if life <= self.version.life:
            raise ValueError(f"life is {life}; allowed is a whole number above {self.version.life}, the present one")
        self._begun |= dict(begun) | {life: self.version.updates}
        for each, updates in lost:
            self._lost[each] = max(self._lost.get(each, 0), updates)
        self.version = Version(life, self.version.updates)

    def _gradients(self, push: Push) -> Iterator[Tensor]:
        """Return the gradient of each piece, checked; that of a sparse piece in the form that the rule can step by."""
        if push.dense.dtype != self.dtype or push.dense.shape != (self._dense_size,):
            raise ValueError(
                f"push {push.number} of replica {push.replica} has a dense gradient of {push.dense.dtype} and shape "
                f"{push.dense.shape}; allowed is one of {self.dtype} and shape ({self._dense_size},)"
            )
        dense, start = as_tensor(push.dense).to(self._flat.device), 0
        for number, piece in enumerate(self.pieces):
            if piece.sparse:
                yield self._by_rows(push.rows.get(number), piece)
            else:
                yield _part(dense, start, piece)
                start += piece.size

    def _by_rows(self, rows: Rows | None, piece: Piece) -> Tensor:
        if rows is None:
            rows = Rows(np.zeros(0, np.int64), np.zeros((0, *piece.row_shape), self.dtype))
        rows.check(piece.name, piece.shape, self.dtype)
        places, values = (as_tensor(each).to(self._flat.device) for each in (rows.numbers, rows.values))
        if self._rows_alone:
            return torch.sparse_coo_tensor(places[None], values, piece.shape, check_invariants=False)
        return values.new_zeros(piece.shape).index_add_(0, places, values)

    def _options(self) -> dict[str, Any]:
        """Return what decides a step beside the rule, as JSON can hold it."""
        group = self._optimizer.param_groups[0]
        _, values = self._optimizer.keywords.form_and_values(group)
        return {name: float(value) for name, value in values.items()} | {name: str(group[name]) for name in _DECIDING}

    def _can_step_rows_alone(self) -> bool:
        """Whether a step by a gradient of some rows leaves the parameters of all others as they are."""
        group = self._optimizer.param_groups[0]
        around, values = self._optimizer.keywords.form_and_values(group)
        program = lower(self.rule, around)
        try:
            scales = scales_without_gradient(program, values, self.rule.slots, t=1, real=self.dtype)
        except (TypeError, ValueError):
            scales = {"x": 0.0}
        return "x" not in scales or bool(group["sparse"] == "lazy")


def _part(flat: Tensor, start: int, piece: Piece) -> Tensor:
    return flat[start : start + piece.size].view(piece.shape)


def _finite(gradient: Tensor) -> bool:
    values = gradient._values() if gradient.is_sparse else gradient
    # A sum is one pass over memory, and finite numbers whose sum is not are rare.
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())
