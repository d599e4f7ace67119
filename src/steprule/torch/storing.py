"""How an optimizer keeps its state: the options `state_dtype`, `master_copies` and `seed` of a parameter group."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np

import torch
from torch import Tensor

from ..kernels.codecs import STORAGES, keys
from ..signs import never_negative
from ..specification import Rule
from . import codecs
from .memory import PLAIN_TYPES, alike, dense, is_sharded

__all__ = [
    "MASTER",
    "NEAREST",
    "OPTIONS",
    "Storing",
    "load",
    "random_bits",
    "restore",
    "save",
    "with_codes_named",
    "with_slots_named",
]

_ABOUT_DTYPE: Final = (
    "how slots are kept: None (as the parameter, or its master copy), torch.float32, torch.bfloat16 (rounded at random), "
    '"int8" (codes of 8 bits, see `steprule.kernels.codecs`), or a mapping of slots to these'
)
_ABOUT_NONFINITE: Final = (
    'what an infinite or NaN element of a gradient does: "propagate", as in torch; "skip", its parameter and state stay '
    'as they are; "raise", the same, and then a `FloatingPointError` that names the parameter'
)

OPTIONS: Final[Mapping[str, tuple[Any, str]]] = {
    "state_dtype": (None, _ABOUT_DTYPE),
    "master_copies": (False, "keep a float32 copy of each bfloat16 or float16 parameter, and step that"),
    "seed": (0, "of the random rounding"),
    "on_nonfinite": ("propagate", _ABOUT_NONFINITE),
}
"""The options of a parameter group that are ours alone: the default, and what each does."""

MASTER: Final = "master"
"""What the float32 copy of a parameter is called in its state."""

_ALLOWED: Final = 'None (that of the parameter, or of its master copy), torch.float32, torch.bfloat16 or "int8"'
NEAREST: Final = {torch.bfloat16: "bfloat16", torch.float16: "float16"}
"""The storage of tensors in lower types that are rounded to nearest."""


@dataclass(frozen=True)
class Storing:
    """How a group of parameters keeps its state.

    `wishes` says for each slot what was asked for: None, a dtype or "int8".
    """

    rule: Rule
    wishes: tuple[Any, ...]
    master_copies: bool
    seed: int

    @classmethod
    def of(cls, rule: Rule, group: Mapping[str, Any]) -> Storing:
        """Return what a parameter group asks for; raise `TypeError` or `ValueError` for what cannot be."""
        wish, seed = group.get("state_dtype"), group.get("seed", 0)
        if isinstance(wish, Mapping):
            unknown = [name for name in wish if name not in rule.slots]
            if unknown:
                slots = ", ".join(rule.slots) or "none"
                raise ValueError(f"state_dtype names the slot {unknown[0]!r}; {rule.name} has: {slots}")
        wishes = tuple(wish.get(name) if isinstance(wish, Mapping) else wish for name in rule.slots)
        for each in (wish,) if not isinstance(wish, Mapping) else wishes:
            if each not in (None, torch.float32, torch.bfloat16, "int8"):
                raise ValueError(f"state_dtype is {each!r}; allowed is {_ALLOWED}, or a mapping of slots to these")
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
            raise ValueError(f"seed is {seed!r}; allowed is an integer from 0 to 2**63 - 1")
        return cls(rule, wishes, bool(group.get("master_copies")), seed)

    def check(self, parameter: Tensor) -> None:
        """Raise `ValueError` where a parameter's state cannot be kept so."""
        low = [wish for wish in self.wishes if wish not in (None, parameter.dtype)]
        if low and (parameter.dtype is torch.float64 or parameter.is_complex()):
            raise ValueError(
                f"state_dtype is {low[0]!r} and a parameter of shape {tuple(parameter.shape)} is {parameter.dtype}; "
                "allowed are real parameters of float32, bfloat16 and float16"
            )
        coded = [slot for slot, storage in self.stored(parameter) if STORAGES[storage].random]
        if coded and is_sharded(parameter):
            raise ValueError(
                f"state_dtype asks for the slot {coded[0]} of a parameter of shape {tuple(parameter.shape)}, a DTensor, to "
                "be rounded at random; allowed for a DTensor are None and torch.float32"
            )

    def has_master(self, parameter: Tensor) -> bool:
        """Whether a float32 copy of the parameter is kept: where it is asked for and is not the parameter itself."""
        return self.master_copies and parameter.dtype in NEAREST

    @cached_property
    def _wish(self) -> Mapping[str, Any]:
        return dict(zip(self.rule.slots, self.wishes, strict=True))

    def storage(self, slot: str, parameter: Tensor) -> str:
        """Return the storage of a slot, a name of `kernels.codecs.STORAGES`, or "" for float32 and float64 as they are."""
        wish = self._wish[slot]
        if wish == "int8":
            return _int8(self.rule, slot)
        if wish is torch.bfloat16:
            return "random bfloat16"
        return NEAREST.get(parameter.dtype, "") if wish is None and not self.has_master(parameter) else ""

    def dtype(self, slot: str, parameter: Tensor) -> torch.dtype:
        """Return the dtype of a slot's tensor."""
        storage = self.storage(slot, parameter)
        if storage:
            return codecs.DTYPES[storage]
        return self._wish[slot] or (torch.float32 if self.has_master(parameter) else parameter.dtype)

    def stored(self, parameter: Tensor) -> tuple[tuple[str, str], ...]:
        """Return the slots that are not kept as they are computed, and how they are, for `kernels.cpu.Elements`."""
        pairs = [(slot, self.storage(slot, parameter)) for slot in self.rule.slots]
        return tuple((slot, storage) for slot, storage in pairs if storage)

    def names(self, parameter: Tensor) -> tuple[str, ...]:
        """Return what a parameter's state holds besides `step`: slots, scales, the master copy."""
        scales = [f"{slot}_scale" for slot, storage in self.stored(parameter) if STORAGES[storage].exponents]
        return (*self.rule.slots, *scales, *((MASTER,) if self.has_master(parameter) else ()))

    def prepare(self, parameter: Tensor, state: dict[str, Any], number: int, starts: Mapping[str, float]) -> None:
        """Make what `state` lacks, and bring what it has otherwise (a checkpoint's) to the form that is asked for.

        `number` is the parameter's place in the optimizer, `starts` what each slot starts with. Slots are laid in memory as
        the parameter is, which may have become channels last since.
        """
        for name, slot in _codes(state, self.rule).items():  # of one who has put a loaded state here by hand
            state[slot] = state.pop(name)
        bits = random_bits(self.seed, number, 0, parameter)
        for name, initial in starts.items():
            storage, dtype = self.storage(name, parameter), self.dtype(name, parameter)
            present = state.get(name)
            if present is not None and present.dtype is dtype and not _turned(present, parameter):
                continue
            if present is None:
                # A complex number is a pair of real ones, which start alike.
                start = _rounded(initial, _real(dtype))
                first = complex(start, start) if parameter.is_complex() else start
                values = torch.full_like(parameter, first, dtype=_real(dtype), memory_format=torch.preserve_format)
            else:
                values = load(state, name, self.rule)
            state.pop(f"{name}_scale", None)
            values = _laid_as(parameter, values)
            if storage and STORAGES[storage].random:
                state[name] = torch.empty_like(values, dtype=dtype)
                save(state, name, storage, values, next(bits))
            else:
                state[name] = values.to(dtype)
        if not self.has_master(parameter):
            state.pop(MASTER, None)
        elif MASTER not in state or state[MASTER].dtype is not torch.float32:
            # In another type, it comes back from `torch.optim`, which casts it and then steps the parameter alone.
            state[MASTER] = parameter.detach().to(torch.float32)
        else:
            # What was written to the parameter since, a module's loaded state for one, is not for the next step to undo.
            master = state[MASTER] = _laid_as(parameter, state[MASTER])
            master.copy_(torch.where(master.to(parameter.dtype) == parameter, master, parameter.to(torch.float32)))


def with_codes_named(saved: dict[str, Any], rule: Rule) -> dict[str, Any]:
    """Return a state dictionary in which codes of 8 bits are no slot's, but `SLOT_codes`.

    Under the slot's name, `torch.optim` would take them for the numbers of its own state.
    """

    def named(state: Any) -> Any:
        if not isinstance(state, dict):
            return state
        coded = [slot for slot in rule.slots if getattr(state.get(slot), "dtype", None) is torch.uint8]
        return {f"{name}_codes" if name in coded else name: each for name, each in state.items()} if coded else state

    return {**saved, "state": {key: named(state) for key, state in saved["state"].items()}}


def with_slots_named(state: dict[str, Any], rule: Rule) -> dict[str, Any]:
    """Return a parameter's state with codes under the names of their slots, as an optimizer has them, and older files."""
    slots = _codes(state, rule)
    return {slots.get(name, name): value for name, value in state.items()}


def _codes(state: Mapping[str, Any], rule: Rule) -> dict[str, str]:
    """Return the slot of each name of codes in `state`."""
    names = {f"{slot}_codes": slot for slot in rule.slots if slot not in state}
    return {name: slot for name, slot in names.items() if name in state}


def restore(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Put the state of a checkpoint back in its own form where `load_state_dict` has cast that to the parameters' dtype.

    `saved` is the state dictionary that was loaded. A form that is not asked for any more is changed at the next step. What
    `load_state_dict` has taken over as it was is copied: steps would write to `saved`, which may be loaded again.
    """
    places = [place for group in saved["param_groups"] for place in group["params"]]
    wanted = [(each, group) for group in optimizer.param_groups for each in group["params"]]
    for place, (parameter, group) in zip(places, wanted, strict=True):
        state = optimizer.state.get(parameter, {})
        rule: Rule = optimizer.rule  # type: ignore[attr-defined]  # it is one of ours
        storing = Storing.of(rule, group)
        for name, value in with_slots_named(saved["state"].get(place, {}), rule).items():
            if not isinstance(value, Tensor) or name == "step":
                continue
            own = name == MASTER or name.endswith("_scale") or value.dtype is torch.uint8
            # On the way to another form, the parameter's dtype may lose what that form can hold.
            lossy = own or (name in rule.slots and storing.dtype(name, parameter) is not parameter.dtype)
            if state[name] is value or (lossy and state[name].dtype is not value.dtype):
                state[name] = value.detach().to(parameter.device, copy=True)


def _turned(slot: Tensor, parameter: Tensor) -> bool:
    """Whether a slot lies otherwise in memory than its parameter, so that no fused loop takes the two, and need not."""
    plain = type(slot) in PLAIN_TYPES and type(parameter) in PLAIN_TYPES and slot.layout is torch.strided
    # What is part of autograd's graph must stay so.
    return plain and not alike(slot, parameter) and dense(parameter) and not slot.requires_grad


def _laid_as(parameter: Tensor, slot: Tensor) -> Tensor:
    return torch.empty_like(parameter, dtype=slot.dtype).copy_(slot) if _turned(slot, parameter) else slot


def _int8(rule: Rule, slot: str) -> str:
    return "unsigned int8" if slot in never_negative(rule) else "signed int8"


def _real(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in NEAREST or dtype is torch.uint8 else dtype


def _rounded(number: float, dtype: torch.dtype) -> float:
    """Return a number as float64 or float32 has it: beyond the latter it is infinite, which PyTorch refuses to fill with."""
    if dtype in (torch.float64, torch.complex128):
        return number
    with np.errstate(over="ignore"):
        return float(np.float32(number))


def random_bits(seed: int, number: int, t: Any, like: Tensor) -> Iterator[Tensor]:
    """Yield 32 random bits for each element of each slot that is rounded at random: those that the fused loop draws.

    They are of parameter `number`, which is `like` in size and device, at step `t`, which is not looked at before the first
    are asked for: it may be on a device. Each two slots share a draw, the second with its halves exchanged.
    """
    key = int(keys(*(np.array([each], np.int64) for each in (seed, number, int(t))))[0])
    for pair in itertools.count():
        bits = codecs.noise(like.numel(), key + pair, like.device)
        yield bits
        yield codecs.turned(bits)


def _flat(dense: Tensor) -> Tensor:
    """Return the elements of a tensor without gaps in their order in memory."""
    return dense.as_strided((dense.numel(),), (1,))


def load(state: Mapping[str, Any], name: str, rule: Rule) -> Tensor:
    """Return the numbers that a slot holds, whatever its form, in float32 (float64 stays)."""
    stored: Tensor = state[name]
    if stored.dtype is not torch.uint8:
        return stored.to(_real(stored.dtype))
    flat = codecs.decode(_flat(stored), _int8(rule, name), state[f"{name}_scale"])
    return flat.as_strided(stored.shape, stored.stride())


def save(state: dict[str, Any], name: str, storage: str, values: Tensor, random: Tensor) -> None:
    """Write numbers to a slot in place, encoded; a scale that is not there yet is made."""
    ordered = torch.empty_like(state[name], dtype=torch.float32).copy_(values)
    encoded, scale = codecs.encode(_flat(ordered), storage, random)
    _flat(state[name]).copy_(encoded)
    if scale is not None:
        state.setdefault(f"{name}_scale", torch.empty_like(scale)).copy_(scale)
