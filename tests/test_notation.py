"""The functions of an equation, on numbers and on the arrays of each library."""

from __future__ import annotations

import decimal
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from steprule import notation
from steprule.notation import maximum, minimum, sign, sqrt, where
from tests.libraries import LIBRARIES, Library
from tests.requirements import require_installed

NAN, INF = math.nan, math.inf


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> Iterator[Library]:
    with LIBRARIES[request.param].within():
        yield LIBRARIES[request.param]


ONE_OPERAND = {
    "sqrt": [(4.0, 2.0), (0.0, 0.0), (-0.0, 0.0), (-1.0, NAN), (INF, INF), (-INF, NAN), (NAN, NAN)],
    "abs": [(3.0, 3.0), (-3.0, 3.0), (-0.0, 0.0), (-INF, INF), (NAN, NAN)],
    "sign": [(0.5, 1.0), (-7.0, -1.0), (0.0, 0.0), (-0.0, 0.0), (INF, 1.0), (-INF, -1.0)],
}
TWO_OPERANDS = {
    "maximum": [
        (1.0, 2.0, 2.0),
        (-1.0, -2.0, -1.0),
        (INF, 1.0, INF),
        (-INF, 1.0, 1.0),
        (NAN, 1.0, NAN),
        (1.0, NAN, NAN),
    ],
    "minimum": [
        (1.0, 2.0, 1.0),
        (-1.0, -2.0, -2.0),
        (INF, 1.0, 1.0),
        (-INF, 1.0, -INF),
        (NAN, 1.0, NAN),
        (1.0, NAN, NAN),
    ],
}


def same(found: object, expected: list[float]) -> bool:
    return np.array_equal(np.asarray(found), np.asarray(expected), equal_nan=True)


def float32(values: list[float]) -> list[float]:
    return np.array(values, np.float32).tolist()


@pytest.mark.parametrize("name", ONE_OPERAND)
def test_on_numbers(name: str):
    for operand, expected in ONE_OPERAND[name]:
        found = getattr(notation, name)(operand)
        assert isinstance(found, float)
        assert same(found, expected)


@pytest.mark.parametrize("name", ONE_OPERAND)
def test_on_arrays(library: Library, name: str):
    array = library.array([operand for operand, _ in ONE_OPERAND[name]], "float32")
    with np.errstate(invalid="ignore"):
        found = getattr(notation, name)(array)
    assert type(found) is type(array)
    assert found.dtype == array.dtype
    assert same(library.numbers(found), [expected for _, expected in ONE_OPERAND[name]])


def test_sign_of_nan_is_nan(library: Library):
    assert math.isnan(sign(NAN))
    assert same(library.numbers(sign(library.array([NAN], "float32"))), [NAN])


@pytest.mark.parametrize("kind", [float, np.float32, np.float64])
def test_sign_of_a_librarys_own_number(kind: Callable):
    assert [float(sign(kind(value))) for value in (-2.0, 0.0, 3.0)] == [-1.0, 0.0, 1.0]


@pytest.mark.parametrize("name", TWO_OPERANDS)
def test_two_numbers(name: str):
    assert all(same(getattr(notation, name)(a, b), expected) for a, b, expected in TWO_OPERANDS[name])


@pytest.mark.parametrize("name", TWO_OPERANDS)
def test_two_arrays(library: Library, name: str):
    a, b, expected = zip(*TWO_OPERANDS[name], strict=True)
    found = getattr(notation, name)(library.array(a, "float32"), library.array(b, "float32"))
    assert same(library.numbers(found), list(expected))


@pytest.mark.parametrize("name", TWO_OPERANDS)
def test_an_array_and_a_number_in_either_order(library: Library, name: str):
    array = library.array([-1.0, 0.1, 7.0, NAN], "float32")
    function = getattr(notation, name)
    expected = [{"maximum": max, "minimum": min}[name](value, 0.1) for value in (-1.0, 0.1, 7.0)]
    for found in (function(array, 0.1), function(0.1, array)):
        assert found.dtype == array.dtype
        assert same(library.numbers(found), float32([*expected, NAN]))


@pytest.mark.parametrize("name", TWO_OPERANDS)
def test_an_array_and_a_scalar_of_numpy_in_either_order(library: Library, name: str):
    array = library.array([-1.0, 0.5, 7.0, NAN], "float32")
    function = getattr(notation, name)
    expected = [{"maximum": max, "minimum": min}[name](value, 0.25) for value in (-1.0, 0.5, 7.0)]
    for scalar in (np.float32(0.25), np.float64(0.25)):
        for found in (function(array, scalar), function(scalar, array)):
            assert type(found) is type(array)
            assert same(library.numbers(found), [*expected, NAN])


def test_where_keeps_a_scalar_of_numpy_as_it_is():
    assert type(where(np.float32(3) > 2, np.float32(0.5), 0.0)) is np.float32


def test_two_scalars_of_numpy():
    found = maximum(np.float32(0.1), np.float32(0.2))
    assert isinstance(found, np.float32)
    assert found == np.float32(0.2)


def test_what_is_made_of_numpys_float64_divides_by_zero_as_it_does():
    zero, one = np.float64(0), np.float64(1)
    made = [sqrt(zero), abs(zero), sign(zero), maximum(zero, -1.0), minimum(1.0, zero), where(one > zero, 0.0, 1.0)]
    with np.errstate(divide="ignore"):
        assert [1 / each for each in made] == [math.inf] * len(made)


def test_a_number_beside_a_float64_array_keeps_its_digits(library: Library):
    assert library.numbers(maximum(library.array([0.0], "float64"), 0.1)).tolist() == [0.1]
    assert library.numbers(minimum(1.0, library.array([0.1], "float64"))).tolist() == [0.1]


def test_a_number_beyond_the_type_is_infinite(library: Library):
    array = library.array([-1.0, 2.0], "float32")
    with np.errstate(over="ignore"):
        assert library.numbers(minimum(array, 1e300)).tolist() == [-1.0, 2.0]
        assert library.numbers(maximum(-1e300, array)).tolist() == [-1.0, 2.0]
        chosen = library.numbers(where(array > 0, array, 1e300))
        # NumPy 1 makes float64 of a float32 array and a number beyond it.
        assert chosen.astype("float32").tolist() == [INF, 2.0]


def test_where_chooses_by_element(library: Library):
    array = library.array([-1.0, 0.0, 2.0, NAN], "float32")
    other = library.array([5.0, 6.0, 7.0, 8.0], "float32")
    assert same(library.numbers(where(array > 0, array, other)), [5.0, 6.0, 2.0, 8.0])
    assert where(array > 0, array, 0.5).dtype == array.dtype
    assert same(library.numbers(where(array > 0, array, 0.5)), [0.5, 0.5, 2.0, 0.5])
    assert same(library.numbers(where(array > 0, 0.5, array)), [-1.0, 0.0, 0.5, NAN])


def test_where_on_numbers():
    assert where(1.0 > 0.0, 2.0, 3.0) == 2.0
    assert where(1.0 < 0.0, 2.0, 3.0) == 3.0


def test_where_of_two_numbers_keeps_their_digits(library: Library):
    condition = library.array([1.0, -1.0], "float64") > 0
    assert library.numbers(where(condition, 0.1, 0.2)).tolist() == [0.1, 0.2]


def test_where_of_two_integers_makes_no_integers(library: Library):
    array = library.array([1.0, -1.0], "float64")
    # In 64 bits, let alone 32, the larger one's power would overflow; integers have no negative power at all.
    assert library.numbers(where(array > 0, 100_000, 2) ** 4).tolist() == [1e20, 16.0]
    assert library.numbers(where(array > 0, 1, 2) ** -1).tolist() == [1.0, 0.5]


def test_where_of_two_numbers_has_the_type_of_what_it_is_beside(library: Library):
    array = library.array([1.0, -1.0], "float32")
    with notation.beside(array):
        found = array * where(array > 0, 0.5, 0.25)
    assert library.numbers(found).tolist() == [0.5, -0.25]


def test_where_takes_a_condition_on_the_step_count(library: Library):
    array = library.array([1.0, 2.0], "float32")
    assert same(library.numbers(where(3 > 2, array, 0.0)), [1.0, 2.0])
    assert same(library.numbers(where(3 < 2, array, -array)), [-1.0, -2.0])


def test_where_takes_a_condition_on_a_scalar_of_numpy(library: Library):
    array, scalar = library.array([1.0, 2.0], "float32"), np.float32(3)
    assert same(library.numbers(where(scalar > 2, array, 0.0)), [1.0, 2.0])
    assert same(library.numbers(where(scalar < 2, array, -array)), [-1.0, -2.0])
    assert where(scalar > 2, 0.5, array) == 0.5


def test_where_takes_scalars_of_numpy(library: Library):
    array = library.array([1.0, -1.0], "float32")
    assert same(library.numbers(where(array > 0, np.float32(0.5), array)), [0.5, -1.0])
    assert same(library.numbers(where(array > 0, np.float32(0.5), np.float32(0.25))), [0.5, 0.25])


def test_a_number_beside_a_tensor_of_a_gpu_is_made_there():
    require_installed("torch")
    from torch._subclasses import FakeTensorMode
    from torch.utils._python_dispatch import TorchDispatchMode

    import torch

    class Operations(TorchDispatchMode):
        def __torch_dispatch__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            names.append(str(func))
            return func(*args, **(kwargs or {}))

    names: list[str] = []
    with FakeTensorMode():
        tensor = torch.empty(3, device="cuda")
        with Operations():
            made = [where(tensor > 0, 0.5, tensor), where(tensor > 0, 0.5, 0.25), maximum(tensor, 1.0)]
    assert {str(each.device) for each in made} == {"cuda:0"}
    # A copy would be one from the host.
    assert [name for name in names if "copy" in name] == []


def test_a_parameter_is_a_tensor():
    require_installed("torch")
    import torch

    assert sqrt(torch.nn.Parameter(torch.tensor([4.0]))).item() == 2.0


@pytest.mark.parametrize("operand", ["4", None, [4.0], decimal.Decimal(4), 4j])
def test_an_operand_of_no_library_is_refused(operand: object):
    with pytest.raises(
        TypeError, match=rf"^an operand is of type \w+\.{type(operand).__name__}; allowed are numbers and"
    ):
        sqrt(operand)
