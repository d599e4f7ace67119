"""The functions of an equation, on numbers and on the arrays of each library."""

from __future__ import annotations

import decimal
import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import pytest

import torch
from steprule import notation
from steprule.notation import maximum, minimum, sign, sqrt, where

NAN, INF = math.nan, math.inf

LIBRARIES = {
    "NumPy": lambda values: np.array(values, np.float32),
    "torch": lambda values: torch.tensor(values, dtype=torch.float32),
    "JAX": lambda values: jnp.array(values, jnp.float32),
}

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


@pytest.mark.parametrize("name", ONE_OPERAND)
def test_on_numbers(name: str):
    for operand, expected in ONE_OPERAND[name]:
        found = getattr(notation, name)(operand)
        assert isinstance(found, float)
        assert same(found, expected)


@pytest.mark.parametrize("name", ONE_OPERAND)
@pytest.mark.parametrize("library", LIBRARIES)
def test_on_arrays(library: str, name: str):
    array = LIBRARIES[library]([operand for operand, _ in ONE_OPERAND[name]])
    with np.errstate(invalid="ignore"):
        found = getattr(notation, name)(array)
    assert type(found) is type(array)
    assert found.dtype == array.dtype
    assert same(found, [expected for _, expected in ONE_OPERAND[name]])


@pytest.mark.parametrize("library", LIBRARIES)
def test_sign_of_nan_is_nan(library: str):
    assert math.isnan(sign(NAN))
    assert same(sign(LIBRARIES[library]([NAN])), [NAN])


@pytest.mark.parametrize("kind", [float, np.float32, np.float64])
def test_sign_of_a_librarys_own_number(kind: Callable):
    assert [float(sign(kind(value))) for value in (-2.0, 0.0, 3.0)] == [-1.0, 0.0, 1.0]


@pytest.mark.parametrize("name", TWO_OPERANDS)
def test_two_numbers(name: str):
    assert all(same(getattr(notation, name)(a, b), expected) for a, b, expected in TWO_OPERANDS[name])


@pytest.mark.parametrize("name", TWO_OPERANDS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_two_arrays(library: str, name: str):
    a, b, expected = zip(*TWO_OPERANDS[name], strict=True)
    make = LIBRARIES[library]
    assert same(getattr(notation, name)(make(a), make(b)), list(expected))


@pytest.mark.parametrize("name", TWO_OPERANDS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_an_array_and_a_number_in_either_order(library: str, name: str):
    array = LIBRARIES[library]([-1.0, 0.1, 7.0, NAN])
    function = getattr(notation, name)
    expected = [
        {"maximum": max, "minimum": min}[name](value, np.float32(0.1)) for value in (-1.0, np.float32(0.1), 7.0)
    ]
    for found in (function(array, 0.1), function(0.1, array)):
        assert found.dtype == array.dtype
        assert same(found, [*expected, NAN])


def test_a_number_beside_a_float64_tensor_keeps_its_digits():
    assert maximum(torch.zeros(1, dtype=torch.float64), 0.1).item() == 0.1
    assert minimum(1.0, torch.tensor([0.1], dtype=torch.float64)).item() == 0.1


@pytest.mark.parametrize("library", LIBRARIES)
def test_where_chooses_by_element(library: str):
    make = LIBRARIES[library]
    array = make([-1.0, 0.0, 2.0, NAN])
    assert same(where(array > 0, array, make([5.0, 6.0, 7.0, 8.0])), [5.0, 6.0, 2.0, 8.0])
    assert where(array > 0, array, 0.5).dtype == array.dtype
    assert same(where(array > 0, array, 0.5), [0.5, 0.5, 2.0, 0.5])
    assert same(where(array > 0, 0.5, array), [-1.0, 0.0, 0.5, NAN])


def test_where_on_numbers():
    assert where(1.0 > 0.0, 2.0, 3.0) == 2.0
    assert where(1.0 < 0.0, 2.0, 3.0) == 3.0


@pytest.mark.parametrize("library", LIBRARIES)
def test_where_of_two_numbers_keeps_their_digits(library: str):
    found = where(LIBRARIES[library]([1.0]) > 0, 0.1, 0.2)
    # JAX without its x64 mode has no float64.
    assert float(found[0]) == (float(np.float32(0.1)) if library == "JAX" else 0.1)


@pytest.mark.parametrize("library", LIBRARIES)
def test_where_takes_a_condition_on_the_step_count(library: str):
    array = LIBRARIES[library]([1.0, 2.0])
    assert same(where(3 > 2, array, 0.0), [1.0, 2.0])
    assert same(where(3 < 2, array, -array), [-1.0, -2.0])


def test_a_parameter_is_a_tensor():
    assert sqrt(torch.nn.Parameter(torch.tensor([4.0]))).item() == 2.0


@pytest.mark.parametrize("operand", ["4", None, [4.0], decimal.Decimal(4), 4j])
def test_an_operand_of_no_library_is_refused(operand: object):
    with pytest.raises(
        TypeError, match=rf"^an operand is of type \w+\.{type(operand).__name__}; allowed are numbers and"
    ):
        sqrt(operand)
