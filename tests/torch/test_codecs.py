"""The codes of low-precision state: torch's operations against the kernel's, and both against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import torch
from steprule import rule
from steprule.kernels import cpu
from steprule.kernels.codecs import BLOCK, STORAGES, keys
from steprule.kernels.cpu import Elements
from steprule.program import lower
from steprule.torch import codecs


@rule
def keep(g, kept=0.0, *, lr: float = 0.0):  # noqa: ARG001  # so that nothing multiplies the update
    """Remember the gradient."""
    return 0.0 * g, g


def by_kernel(values: NDArray[np.float32], storage: str, key: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the codes and scales of `values` as a kernel that does nothing else makes them."""
    program, elements = lower(keep), Elements("float32", (("kept", storage),))
    stored = torch.zeros(len(values), dtype=codecs.DTYPES[storage])
    scale = torch.zeros(codecs.blocks(len(values)))
    arrays = {"x": torch.zeros(len(values)), "g": torch.from_numpy(values.copy()), "kept": stored, "kept_scale": scale}
    table = cpu.Table(np.array([[arrays[name].data_ptr() for name in elements.columns(program)]]), [len(values)])
    table.keys[:] = key
    scalars = np.array([program.fold(t=1, lr=0.0, weight_decay=0.0, lr_decay=0.0)], np.float32).reshape(1, -1)
    cpu.launch(cpu.kernel(program, elements), table, scalars, threads=2)
    return stored, scale


def by_torch(values: NDArray[np.float32], storage: str, key: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    return codecs.encode(torch.from_numpy(values.copy()), storage, codecs.noise(len(values), key))


def values_of(seed: int, size: int, storage: str) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    made = (rng.standard_normal(size) * 10.0 ** rng.uniform(-9, 3, size)).astype(np.float32)
    made[rng.random(size) < 0.1] = 0.0
    return np.abs(made) if storage == "unsigned int8" else made


@pytest.mark.parametrize("storage", STORAGES)
@settings(derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([1, 255, 256, 257, 1000, 20_000]),
    key=st.integers(0, 2**32 - 1),
)
def test_kernel_and_torch_make_the_same_codes(storage: str, seed: int, size: int, key: int):
    values = values_of(seed, size, storage)
    stored, scale = by_kernel(values, storage, key)
    expected, scales = by_torch(values, storage, key)
    assert torch.equal(stored.view(torch.uint8), expected.view(torch.uint8))
    assert scales is None or torch.equal(scale, scales)


@pytest.mark.parametrize("storage", ["bfloat16", "float16"])
def test_to_nearest_as_torch_rounds(storage: str):
    values = values_of(1, 5000, storage)
    stored, _ = by_kernel(values, storage, 0)
    assert torch.equal(stored, torch.from_numpy(values).to(codecs.DTYPES[storage]))


@pytest.mark.parametrize("storage", ["random bfloat16", "unsigned int8", "signed int8"])
def test_rounding_at_random_goes_to_a_neighbour_and_is_right_in_the_mean(storage: str):
    values = values_of(2, 512, storage)
    if storage != "random bfloat16":
        values *= 1e-3 / np.abs(values).max()
    turns = 4000
    seen = np.stack([_round_trip(values, storage, 17 * turn) for turn in range(turns)])
    exact = np.abs(values.astype(np.float64))
    bits, reach = {"random bfloat16": (7, 0), "unsigned int8": (3, 31), "signed int8": (3, 15)}[storage]
    gap = 2.0 ** (np.floor(np.log2(np.maximum(exact, 1e-30))) - bits)
    if storage != "random bfloat16":
        # A number smaller than the first that has a code lies between 0 and that, or is rounded up to it.
        _, scale = by_torch(values, storage, 0)
        first = np.repeat(scale.numpy().astype(np.float64), BLOCK) * 2.0**-reach * (1 + 2.0**-bits)
        gap = np.where(exact < first, first, gap)
    assert all(len(np.unique(column)) <= 2 for column in seen.T)
    assert np.all(np.abs(seen - values) <= gap)
    error = np.abs(seen.mean(0) - values)
    if storage == "unsigned int8":
        below = (exact < first) & (exact > 0)
        assert below.any() and np.all(np.abs(seen[:, below] / first[below] - 1) < 1e-6)
        error[below] = 0.0
    deviation = np.minimum(gap / 2, np.sqrt(exact * gap))
    assert np.all(error <= 6 * deviation / np.sqrt(turns) + 3 * gap / turns)


def _round_trip(values: NDArray[np.float32], storage: str, key: int) -> NDArray[np.float64]:
    stored, scale = by_torch(values, storage, key)
    return codecs.decode(stored, storage, scale).numpy().astype(np.float64)


@pytest.mark.parametrize("storage", ["unsigned int8", "signed int8"])
def test_a_code_is_within_its_last_bit_of_the_number(storage: str):
    values = np.geomspace(2.0**-14, 1.0, BLOCK).astype(np.float32)
    for number in (values, -values) if storage == "signed int8" else (values,):
        found = _round_trip(number, storage, 5)
        assert np.all(np.abs(found - number) <= 2.0**-3 * values)
        assert np.all(np.sign(found) == np.sign(number))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("storage", ["random bfloat16", "signed int8"])
def test_what_is_no_number_stays_none(storage: str, bad: float):
    values = np.ones(3 * BLOCK, np.float32)
    values[BLOCK + 3] = bad
    stored, scale = by_kernel(values, storage, 3)
    found = codecs.decode(stored, storage, scale)
    if storage == "random bfloat16":
        assert np.array_equal(found.numpy(), values, equal_nan=True)
    else:
        assert found[BLOCK : 2 * BLOCK].isnan().all()
        assert not found[:BLOCK].isnan().any() and not found[2 * BLOCK :].isnan().any()


def test_nothing_is_nothing():
    for storage in STORAGES:
        assert not _round_trip(np.zeros(700, np.float32), storage, 9).any()


def test_keys_differ_by_seed_number_and_step():
    grid = np.meshgrid(np.arange(5), np.arange(20), np.arange(200))
    found = keys(*(axis.ravel().astype(np.int64) for axis in grid))
    assert len(np.unique(found)) > 0.999 * found.size
    assert found.min() >= 0 and found.max() < 2**32
