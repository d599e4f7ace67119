"""Parameters on a GPU: the fused loop's stepper there, which never waits for the device.

What a launch needs is sent ahead, from pinned memory and only where it has changed: the table of addresses and the scalars,
computed on the host. With `capturable`, steps are counted and scalars computed on the device, so that a CUDA graph that
holds the step is right at every replay.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import torch
from torch import Tensor

from .. import around
from ..around import Around
from ..kernels import gpu
from ..kernels.chunks import without
from ..kernels.codecs import STORAGES
from ..kernels.cpu import Elements
from ..specification import Rule
from .launch import Bound, Launch, lie_alike
from .sending import CAPTURED, Sent
from .storing import Storing

__all__ = [
    "DEVICES",
    "DeviceLaunch",
    "Kind",
    "check_capturable",
    "count_there",
    "counted",
    "is_live",
    "kind_of",
    "refuse_capture",
    "validated",
]

DEVICES: Final = {"cuda"}
"""The types of devices on which kernels run, as PyTorch calls them; AMD's GPUs are "cuda" too."""

_FORMATS: Final = {
    torch.float64: "float64",
    torch.float32: "float32",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}


@dataclass(frozen=True)
class Kind:
    """What the parameters of one launch have in common: arrays' types, by name, the device, and who counts."""

    formats: tuple[tuple[str, str], ...]
    device: torch.device
    capturable: bool


def kind_of(bound: Bound, given: Mapping[str, Tensor]) -> Kind | None:
    """Return the kind of launch that can step this parameter by what is `given`, None where none can or it is on no GPU."""
    parameter = bound.parameter
    # These kernels neither round at random, nor decode codes, nor report a gradient that is not finite.
    if not _served(parameter.device) or bound.raises or _at_random(bound.storing, parameter):
        return None
    arrays = bound.columns() | dict(given)
    tensors = list(arrays.values())
    fits = all(tensor.device == parameter.device and tensor.dtype in _FORMATS for tensor in tensors)
    if not fits or not lie_alike(tensors):
        return None
    formats = tuple((name, _FORMATS[tensor.dtype]) for name, tensor in arrays.items())
    return Kind(formats, parameter.device, bound.capturable)


def _at_random(storing: Storing, parameter: Tensor) -> bool:
    """Whether some slot is rounded at random."""
    return any(STORAGES[storage].random for _, storage in storing.stored(parameter))


def check_capturable(storing: Storing, raises: bool, parameter: Tensor) -> None:
    """Raise `ValueError` for what a graph cannot repeat: rounding at random, and an error for what is not finite."""
    if _at_random(storing, parameter):
        raise ValueError(
            "state_dtype is rounded at random, by bits that the host draws, and capturable is True; allowed with it are "
            "state_dtype None and torch.float32"
        )
    if raises:
        raise ValueError(
            'on_nonfinite is "raise", which waits for the device, and capturable is True; allowed with it are "propagate" '
            'and "skip"'
        )


def _served(device: torch.device) -> bool:
    if device.type not in DEVICES:
        return False
    if not gpu.installed():
        _warn_once()
        return False
    # The interpreter runs on the host, where a device's addresses mean nothing, and a device knows none of the host's.
    return gpu.interpreted() == (device.type == "cpu")


@functools.cache
def _warn_once() -> None:
    warnings.warn(
        "triton is not installed, so that parameters on the GPU step through torch's operations, which takes longer",
        RuntimeWarning,
        stacklevel=2,
    )


def is_live(value: object) -> bool:
    """Whether a hyperparameter's value is on a device, so that to read it would be to wait."""
    return isinstance(value, Tensor) and value.device.type in DEVICES


def validated(rule: Rule, values: Mapping[str, Any], group: Mapping[str, Any]) -> dict[str, Any]:
    """Return `around.validated(rule, values)`; in a capturable group, an `lr` on a device stays there, unread.

    Raises `TypeError` where another hyperparameter is a tensor on a device, or `lr` has more than one element.
    """
    live = {name: value for name, value in values.items() if group.get("capturable", False) and is_live(value)}
    for name, value in live.items():
        if name != "lr" or value.numel() != 1:
            raise TypeError(
                f"{name} is a tensor of shape {tuple(value.shape)} on {value.device}; allowed is a number, and for lr a "
                "tensor of one element"
            )
    # A stand-in that every range has; nobody reads it.
    checked: dict[str, Any] = dict(around.validated(rule, {**values, **dict.fromkeys(live, 1.0)}))
    return checked | live


def count_there(count: Tensor, device: torch.device) -> Tensor:
    """Return a step count as it is counted on `device`: itself where it is so already, so that graphs still find it."""
    if torch.is_tensor(count) and count.device == device and count.dtype is torch.float32:
        return count
    return torch.full((), float(count), dtype=torch.float32, device=device)


@torch.no_grad()
def counted(bound: Bound) -> Tensor | int:
    """Count a step, on its device, of a parameter that steps by itself; return the count in float64."""
    if "step" not in bound.state:
        return 0  # a rule that keeps no state does not ask
    count: Tensor = bound.state["step"]
    return count.add_(1).double()


def _capturing(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def refuse_capture(devices: Iterable[torch.device], why: str) -> None:
    """Raise `RuntimeError(why)` where the present stream of one of the devices is being captured in a graph."""
    if any(map(_capturing, devices)):
        raise RuntimeError(why)


def _on(device: torch.device) -> AbstractContextManager[Any]:
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


class DeviceLaunch(Launch):
    """The parameters that one kernel steps on one device."""

    def __init__(self, rule: Rule, around: Around, kind: Kind, bounds: Mapping[int, Bound]) -> None:
        self._kind: Final = kind
        formats = dict(kind.formats)
        super().__init__(rule, around, Elements(gpu.real_of(formats), copy=formats.get("copy", "")), bounds)
        with _on(kind.device):
            sizes = [parameter.numel() for parameter in self.parameters]
            self._all_chunks: Final = gpu.chunk_table(sizes)
            self._chunks: Final = self._sent(self._all_chunks)
            self._pointers: Final = self._sent(self._table.pointers)
            self._rows_there: Final = self._sent(self._table.rows)
            self._scalars_there: Sent | None = None
            self._counted: Final = _Counted(self, bounds) if kind.capturable else None
        self._folds = not kind.capturable
        self._moves_seen = 0
        self._rows_seen: object = None
        self._scalars_seen: object = None
        if self._counted is not None:
            self.kept.extend(self._counted.counts)

    def _sent(self, values: NDArray[Any]) -> Sent:
        return Sent(values, self._kind.device)

    @property
    def may_rest(self) -> Sequence[int]:
        """As on the CPU; none where the device counts the steps, of all of them."""
        return self.places if self._counted is None else ()

    def _leave_out(self, tensors: Sequence[bool]) -> None:
        if self._counted is None:
            with _on(self._kind.device):
                self._chunks.send(without(self._all_chunks, tensors))

    def _kernel(self) -> gpu.Kernel:
        return gpu.kernel(self.program, dict(self._kind.formats))

    def _launch(self, values: Sequence[Mapping[str, Any]], changed: bool) -> None:
        with _on(self._kind.device):
            if self._counted is not None and _capturing(self._kind.device):
                pointers = self._pointers.in_graph(self._table.pointers)
                rows, scalars = self._counted.folded(values, changed, capturing=True)
                CAPTURED.append((self._chunks.there, rows, scalars, self._counted.tables))
            else:
                if self._moves_seen != self._moves:
                    self._pointers.send(self._table.pointers)
                    self._moves_seen = self._moves
                pointers = self._pointers.there
                rows, scalars = self._on_device(values, changed)
            gpu.launch(self._run, pointers, rows, self._chunks.there, scalars)

    def _on_device(self, values: Sequence[Mapping[str, Any]], changed: bool) -> tuple[Tensor, Tensor]:
        """Return each tensor's row of scalars, and those rows."""
        if self._counted is not None:
            self._pointers.await_capture()
            return self._counted.folded(values, changed, capturing=False)
        if self._rows_seen is not self._rows:
            self._rows_there.send(self._table.rows)
            self._rows_seen = self._rows
        scalars = self._scalars
        assert scalars is not None
        if self._scalars_there is None or self._scalars_there.there.shape != scalars.shape:
            self._scalars_there = self._sent(scalars)
        elif self._scalars_seen is not scalars:
            self._scalars_there.send(scalars)
        self._scalars_seen = scalars
        return self._rows_there.there, self._scalars_there.there


class _Counted:
    """Step counts and scalars on the device, a row of scalars for each parameter."""

    def __init__(self, launch: DeviceLaunch, bounds: Mapping[int, Bound]) -> None:
        self._launch: Final = launch
        device, number = launch._kind.device, len(bounds)
        states = [bound.state for bound in bounds.values()]
        spare = torch.zeros(number, dtype=torch.float32, device=device)  # for rules without state, which count nothing
        self.counts: Final[list[Tensor]] = [
            state.get("step", unused) for state, unused in zip(states, spare.unbind(), strict=True)
        ]
        self._counts: Final = launch._sent(np.array([count.data_ptr() for count in self.counts], dtype=np.int64))
        self._groups: Final = sorted({bound.group for bound in bounds.values()})
        places = np.searchsorted(self._groups, [bound.group for bound in bounds.values()])
        self._group_of: Final = launch._sent(places.astype(np.int64))
        self._rows: Final = launch._sent(np.arange(number, dtype=np.int64))
        shape = (len(self._groups), len(gpu.value_names(launch.program)))
        self._values: Final = launch._sent(np.zeros(shape))
        real: torch.dtype = getattr(torch, launch._run.real)
        self._scalars: Final = torch.empty((number, len(launch.program.scalars)), dtype=real, device=device)
        self._stale = True
        """Whether what steps outside of graphs read has other values than the groups."""

    @property
    def tables(self) -> tuple[Tensor, ...]:
        """What the device reads beside what `folded` returns."""
        return self._counts.there, self._group_of.there, *self.counts

    def folded(self, values: Sequence[Mapping[str, Any]], changed: bool, *, capturing: bool) -> tuple[Tensor, Tensor]:
        """Count a step and return each tensor's row of scalars, and those rows."""
        names = gpu.value_names(self._launch.program)
        table = [[values[group].get(name, 1.0) for name in names] for group in self._groups]
        live = [
            (row, column, value)
            for row, known in enumerate(table)
            for column, value in enumerate(known)
            if is_live(value)
        ]
        self._stale |= changed
        there = self._values.there
        if capturing:
            there = self._values.in_graph(self._numbers(table))
        else:
            self._values.await_capture()
            if self._stale:
                self._values.send(self._numbers(table))
                self._stale = False
        for row, column, value in live:
            there[row, column].copy_(value.detach().reshape(()), non_blocking=True)
        gpu.fold(self._launch._run, self._counts.there, self._group_of.there, there, self._scalars)
        return self._rows.there, self._scalars

    @staticmethod
    def _numbers(table: Sequence[Sequence[Any]]) -> NDArray[np.float64]:
        """Return the values without those that are on a device, which go there without the host."""
        numbers = [[0.0 if is_live(value) else value for value in known] for known in table]
        return np.array(numbers, dtype=np.float64).reshape(len(table), -1)
