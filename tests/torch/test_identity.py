"""Machine code and Python tell the same of objects and of where tensors lie."""

from __future__ import annotations

import sys
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import torch
from steprule.torch import identity
from steprule.torch.identity import Addresses, Held, same


@pytest.fixture(params=["machine code", "Python"], autouse=True)
def who_asks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "Python":
        monkeypatch.setattr(identity, "natives", lambda: None)


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="machine code asks CPython")
def test_machine_code_is_to_be_had_here(who_asks, request: pytest.FixtureRequest):
    asked = request.node.callspec.params["who_asks"]
    assert (identity.natives() is not None) == (asked == "machine code")


# --- same --------------------------------------------------------------------------------------------------------------


def test_equal_objects_are_not_the_same():
    one, other = torch.ones(2), torch.ones(2)
    assert same([one, other], [one, other])
    assert not same([one, other], [other, one])
    assert not same([one], [one, one])
    assert same([], [])
    assert same((one,), [one])


@given(st.lists(st.integers(0, 3)), st.lists(st.integers(0, 3)))
def test_lists_hold_the_same_objects(some: list[int], others: list[int]):
    objects = [object() for _ in range(4)]
    assert same([objects[each] for each in some], [objects[each] for each in others]) == (some == others)


# --- Held --------------------------------------------------------------------------------------------------------------


def a_state() -> dict[str, Any]:
    return {"step": torch.zeros(()), "slot": torch.zeros(3)}


CHANGES = {
    "replaced by an equal one": lambda state: state.update(slot=state["slot"].clone()),
    "gone": lambda state: state.pop("slot"),
    "none": lambda state: state.update(slot=None),
    "all gone": lambda state: state.clear(),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", [dict, OrderedDict])
@pytest.mark.parametrize("place", [0, 2])
def test_a_dict_holds_another_object(change: str, kind: type, place: int):
    states = [kind(a_state()) for _ in range(3)]
    held = Held([(state, name) for state in states for name in ("step", "slot")])
    states[0]["more"] = 1
    assert held.still()
    CHANGES[change](states[place])
    assert not held.still()


def test_a_class_of_dicts_may_look_names_up_in_its_own_way():
    class Other(dict):
        def __getitem__(self, name: str) -> Any:
            return found

        def get(self, name: str, default: Any = None) -> Any:
            return found

    found = object()
    held = Held([(Other(), "slot")])
    assert held.still()
    found = object()
    assert not held.still()


# --- Addresses ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 3), max_size=8), st.lists(st.integers(0, 3), max_size=8), st.integers(1, 3))
def test_tensors_have_moved_where_one_lies_elsewhere(before: list[int], after: list[int], columns: int):
    memory = torch.zeros(4, 5, dtype=torch.float64)
    after = (after + before)[: len(before)]
    table = np.full((len(before), columns), -1)
    addresses = Addresses(table[:, columns - 1])
    assert addresses.follow([memory[row] for row in before]) == bool(before)
    assert addresses.hold([memory[row] for row in before])
    assert addresses.hold([memory[row] for row in after]) == (before == after)
    assert list(table[:, columns - 1]) == [memory[row].data_ptr() for row in before]
    assert addresses.follow([memory[row] for row in after]) == (before != after)
    assert list(table[:, columns - 1]) == [memory[row].data_ptr() for row in after]
    assert (table[:, : columns - 1] == -1).all()


class Own(torch.Tensor):
    pass


KINDS = {
    "tensor": lambda: torch.zeros(3),
    "parameter": lambda: torch.nn.Parameter(torch.zeros(3)),
    "buffer": lambda: torch.nn.Buffer(torch.zeros(3)),
    "of another class": lambda: torch.zeros(3).as_subclass(Own),
    "view": lambda: torch.zeros(5)[2:],
    "empty": lambda: torch.zeros(0),
    "on a device without memory": lambda: torch.zeros(3, device="meta"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_any_tensor_lies_where_pytorch_says(kind: str):
    tensor = KINDS[kind]()
    addresses = Addresses.of([tensor, tensor])
    assert list(addresses._column) == [tensor.data_ptr()] * 2
    assert addresses.hold([tensor, tensor])


def test_a_tensor_whose_data_is_replaced_does_not_lie_where_it_did():
    tensors = [torch.zeros(3) for _ in range(3)]
    addresses = Addresses.of(tensors)
    tensors[1].data = torch.zeros(3)
    assert not addresses.hold(tensors)
    # To ask is not to write.
    assert not addresses.hold(tensors)


def test_what_does_not_fit_is_refused():
    one = torch.zeros(3)
    with pytest.raises(ValueError, match=r"there are 2 tensors; allowed are 1"):
        Addresses.of([one]).hold([one, one])
    with pytest.raises(ValueError, match=r"the column is int64 \(1, 1\); allowed is int64 \(tensors,\)"):
        Addresses(np.zeros((1, 1), np.int64))
    with pytest.raises(ValueError, match=r"the column is float64 \(1,\)"):
        Addresses(np.zeros(1))
    addresses = Addresses.of([one])
    assert addresses.hold((one,))  # type: ignore[arg-type]


def test_a_tensor_without_memory_is_an_error_and_not_the_end_of_the_process():
    leaked: list[torch.Tensor] = []
    torch.vmap(lambda g: leaked.append(g * 2) or g)(torch.ones(2, 3))
    addresses = Addresses(np.zeros(1, np.int64))
    for _ in range(2):
        with pytest.raises(RuntimeError, match="data pointer"):
            addresses.follow(leaked)
