"""What PyTorch keeps of a tensor in memory tells of every change of its layout."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import torch
from steprule.torch import description, layout
from steprule.torch.description import Descriptions
from steprule.torch.layout import Layout

Tensor = torch.Tensor

MEMORY = torch.zeros(5000, dtype=torch.float32)
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64, torch.int32)


@pytest.fixture(autouse=True)
def found() -> None:
    if description._PLACE is None:
        pytest.skip("this version of PyTorch keeps it where it is not found")


def inference(shape: tuple[int, ...]) -> Tensor:
    with torch.inference_mode():
        return torch.zeros(shape)


KINDS: dict[str, Callable[[tuple[int, ...]], Tensor]] = {
    **{str(dtype): lambda shape, dtype=dtype: torch.zeros(shape, dtype=dtype) for dtype in DTYPES},
    "elsewhere": torch.ones,
    "parameter": lambda shape: torch.nn.Parameter(torch.zeros(shape)),
    "buffer": lambda shape: torch.nn.Buffer(torch.zeros(shape)),
    "in the graph": lambda shape: torch.zeros(shape, requires_grad=True) * 2,
    "behind others": lambda shape: torch.zeros(3, *shape)[1],
    "transposed": lambda shape: torch.zeros(tuple(reversed(shape))).permute(tuple(reversed(range(len(shape))))),
    "with gaps": lambda shape: torch.zeros(*shape, 2)[..., 0],
    "expanded": lambda shape: torch.zeros(()).expand(shape),
    "of negatives": lambda shape: torch._neg_view(torch.zeros(shape)),
    "of conjugates": lambda shape: torch.zeros(shape, dtype=torch.complex64).conj(),
    "without memory": lambda shape: torch._efficientzerotensor(shape),
    "on no device": lambda shape: torch.zeros(shape, device="meta"),
    "of inference": inference,
}
shapes = st.lists(st.integers(0, 3), max_size=description._DIMENSIONS).map(tuple)
kinds = st.sampled_from(sorted(KINDS))


@given(kinds, kinds, shapes, shapes, st.booleans())
def test_of_one_description_are_only_tensors_of_one_kind(
    one: str, other: str, shape: tuple[int, ...], another: tuple[int, ...], same_shape: bool
):
    before, after = KINDS[one](shape), KINDS[other](shape if same_shape else another)
    described = Descriptions.of([MEMORY, before])
    assert described is not None
    assert described.hold([MEMORY, before])
    if described.hold([MEMORY, after]):
        assert layout._look_at([after]) == layout._look_at([before])
    described.take([MEMORY, after])
    assert described.hold([MEMORY, after])


@given(shapes, st.integers(0, 30), st.data())
def test_a_change_in_place_is_seen(shape: tuple[int, ...], offset: int, data: st.DataObject):
    strides = data.draw(st.tuples(*[st.integers(0, 50)] * len(shape)))
    tensor = torch.zeros(shape)
    described = Descriptions.of([tensor])
    assert described is not None
    before = layout._look_at([tensor])
    tensor.data = MEMORY
    assert not described.hold([tensor])
    torch.as_strided_(tensor, shape, strides, offset)
    assert not described.hold([tensor]) or layout._look_at([tensor]) == before


def test_of_the_same_kind_are_new_tensors_and_what_happens_to_one():
    tensor = torch.zeros(3, 4, requires_grad=True)
    described = Descriptions.of([tensor])
    assert described is not None
    kept = (tensor * tensor).sum()
    kept.backward()
    with torch.no_grad():
        tensor += 1
    assert described.hold([tensor])
    assert described.hold([torch.ones(3, 4)])


@pytest.mark.skipif(sys.platform != "linux", reason="what memory had before is seen by glibc's way to give it again")
def test_what_memory_had_before_makes_no_difference():
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(144, 5)
    )
    described = None
    for number in range(40):
        net.zero_grad()
        some = [torch.zeros([2] * (each % 4)) for each in range(number % 7)]
        net(torch.randn(number % 3 + 2, 1, 8, 8)).sum().backward()
        grads = [parameter.grad for parameter in net.parameters()]
        described = described or Descriptions.of(grads)  # type: ignore[arg-type]
        assert described is not None
        assert described.hold(grads)  # type: ignore[arg-type]
        del some


class Own(torch.Tensor):
    pass


@pytest.mark.parametrize("other", [torch.zeros(1, 1, 1, 1, 1, 2), torch.zeros(3).as_subclass(Own)])
def test_what_lies_elsewhere_is_not_compared(other: Tensor):
    assert Descriptions.of([torch.zeros(3), other]) is None
    # Of these, PyTorch or Python tells.
    alike = Layout([torch.zeros(3), other])
    assert alike.fits([torch.ones(3), other])
    assert not alike.fits([torch.ones(3), other.transpose(0, -1)[:1]])


def test_nothing_is_compared_where_a_change_was_not_found(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(description, "_CHANGES", (*description._CHANGES, lambda tensor: tensor.add_(1)))
    assert description._found() is None
    monkeypatch.setattr(description, "_PLACE", None)
    assert Descriptions.of([torch.zeros(3)]) is None
    alike = Layout([torch.zeros(3)])
    assert alike.fits([torch.ones(3)])
    assert not alike.fits([torch.ones(4)])


def test_nothing_is_compared_where_none_may_change():
    found: list[object] = [0]

    def watched(x: Tensor) -> Tensor:
        found.append(description._found())
        return x.sum()

    torch.func.grad(watched)(torch.ones(2))
    assert found == [0, None]


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, lambda: torch.device("meta")])
def test_it_is_found_in_every_mode(mode: Callable[[], Any]):
    with mode():
        assert description._found() == description._PLACE


def test_a_difference_of_no_weight_is_asked_of_pytorch_once(monkeypatch: pytest.MonkeyPatch):
    first, second = torch.zeros(1, 3), torch.zeros(1, 3)
    second.as_strided_((1, 3), (3, 1), 0)
    alike = Layout([first])
    shifted = torch.zeros(4).as_strided((1, 3), (3, 1), 1)
    assert not Descriptions.of([first]).hold([shifted])  # type: ignore[union-attr]
    assert alike.fits([shifted])
    monkeypatch.setattr(alike, "_check", None)
    monkeypatch.setattr(alike, "_looked_at", [])
    assert alike._descriptions is not None
    assert alike._descriptions.hold([shifted])
