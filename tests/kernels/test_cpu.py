"""The fused CPU loop by itself: its table, its chunks, its threads, its source."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import subprocess
import sys
import threading
from types import ModuleType
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest
from llvmlite import ir
from tests.conformance.cases import RULES

from steprule import NonNegative, Positive, Real, Rule, around, reference, rule, rules
from steprule.kernels import cpu, native
from steprule.kernels.chunks import LAUNCH_FIELDS
from steprule.kernels.cpu import CHUNK
from steprule.notation import maximum, minimum, sign, sqrt, where
from steprule.program import Program, lower

FLUSHES = {"x86_64", "amd64", "aarch64", "arm64"}

VALUES = {
    "sgd": {"lr": 0.1},
    "momentum": {"lr": 0.1},
    "nesterov": {"lr": 0.1},
    "delta_bar_delta": {"initial_rate": 0.1, "kappa": 0.01, "phi": 0.1},
    "diagonal_newton": {"mu": 0.1},
}


def arrays_of(each: Rule, sizes: list[int], dtype: str = "float64", seed: int = 0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [
        {name: rng.standard_normal(size).astype(dtype) for name in ("x", "g", "h")}
        | {"g2": rng.standard_normal(size).astype(dtype) ** 2}
        | {name: np.full(size, initial, dtype) for name, initial in each.slots.items()}
        for size in sizes
    ]


def table_of(program: Program, tensors: list[dict[str, Any]]) -> cpu.Table:
    addresses = [[arrays[name].ctypes.data for name in program.arrays] for arrays in tensors]
    pointers = np.array(addresses, np.int64).reshape(len(tensors), len(program.arrays))
    return cpu.Table(pointers, [len(each["x"]) for each in tensors])


def stepped(each: Rule, tensors: list[dict[str, Any]], threads: int = 1, steps: int = 1, **values: float) -> None:
    """Step all tensors, in place."""
    program, complete = lower(each), around.validated(each, VALUES.get(each.name, {}) | values)
    dtype = str(tensors[0]["x"].dtype)
    table = table_of(program, tensors)
    for t in range(1, steps + 1):
        scalars = np.array([program.fold(t=t, **complete)], dtype)
        cpu.launch(cpu.kernel(program, dtype), table, scalars, threads)


def expected(each: Rule, arrays: dict[str, Any], steps: int = 1, **values: float) -> dict[str, Any]:
    x, state = arrays["x"], {"step": 0} | {name: arrays[name] for name in each.slots}
    for _ in range(steps):
        x, state = reference.step(each, x, arrays["g"], state, **(VALUES.get(each.name, {}) | values))
    return {"x": x} | {name: state[name] for name in each.slots}


def equal(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return all(np.array_equal(found[name], value, equal_nan=True) for name, value in wanted.items())


def test_many_tensors_in_one_launch():
    sizes = [*np.random.default_rng(1).integers(0, 300, 500).tolist(), 0, 2 * CHUNK + 5]
    tensors = arrays_of(rules.rmsprop_nesterov, sizes)
    wanted = [expected(rules.rmsprop_nesterov, arrays, steps=3) for arrays in tensors]
    stepped(rules.rmsprop_nesterov, tensors, threads=2, steps=3)
    assert all(map(equal, tensors, wanted))


@pytest.mark.parametrize("size", [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 1])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_step_ends_where_the_tensor_ends(size: int, threads: int):
    whole = {name: np.full(size + 2, 7.0) for name in ("x", "g", "square_avg", "acc_delta")}
    # From the second element on, which also is at an address of odd alignment.
    inner = {name: array[1:-1] for name, array in whole.items()}
    wanted = expected(rules.adadelta, {name: array.copy() for name, array in inner.items()})
    stepped(rules.adadelta, [inner], threads)
    assert equal(inner, wanted)
    assert all(array[0] == array[-1] == 7.0 for array in whole.values())
    assert np.all(whole["g"] == 7.0)


def test_chunks_cover_each_element_once():
    table = cpu.Table(np.zeros((4, 2)), [2 * CHUNK + 1, 0, 3, CHUNK])
    assert table.chunks.tolist() == [
        [0, 0, CHUNK],
        [0, CHUNK, CHUNK],
        [0, 2 * CHUNK, 1],
        [2, 0, 3],
        [3, 0, CHUNK],
    ]
    assert table.elements == 3 * CHUNK + 4


@pytest.mark.parametrize("threads", [1, 2])
def test_tensors_that_are_left_out_stay_as_they_are(threads: int):
    tensors = arrays_of(rules.sgd, [3, 2 * CHUNK + 1, 0, 5, CHUNK])
    program = lower(rules.sgd)
    table = table_of(program, tensors)
    scalars = np.array([program.fold(t=1, **around.validated(rules.sgd, VALUES["sgd"]))])
    for left_out in ([False, True, True, True, False], [True] * 5, [False] * 5):
        before = [each["x"].copy() for each in tensors]
        table.leave_out(left_out)
        cpu.launch(cpu.kernel(program, "float64"), table, scalars, threads)
        for each, x, out in zip(tensors, before, left_out, strict=True):
            assert np.array_equal(each["x"], x if out else x - 0.1 * each["g"])
        assert table.elements == sum(len(x) for x, out in zip(before, left_out, strict=True) if not out)


def test_launches_that_are_under_way_at_once_share_nothing():
    table = cpu.Table(np.zeros((1, 2)), [3])
    some, others = np.zeros((1, 4)), np.zeros((1, 4))
    begun = [(ctypes.c_int64 * len(LAUNCH_FIELDS)).from_address(table.begin(each)) for each in (some, others, some)]
    claimed, scalars = ([launch[LAUNCH_FIELDS.index(name)] for launch in begun] for name in ("claimed", "scalars"))
    assert len({*claimed}) == 3
    assert [ctypes.c_int64.from_address(each).value for each in claimed] == [0, 0, 0]
    assert scalars == [some.ctypes.data, others.ctypes.data, some.ctypes.data]


def test_each_tensor_takes_its_row_of_scalars():
    tensors = arrays_of(rules.sgd, [5, CHUNK + 3, 2])
    before = [arrays["x"].copy() for arrays in tensors]
    program = lower(rules.sgd)
    table = table_of(program, tensors)
    table.rows[:] = [1, 0, 1]
    rates = [0.5, 0.25]
    scalars = np.array([program.fold(t=1, lr=lr, weight_decay=0.0, lr_decay=0.0) for lr in rates])
    cpu.launch(cpu.kernel(program, "float64"), table, scalars, threads=2)
    for arrays, x, lr in zip(tensors, before, [0.25, 0.5, 0.25], strict=True):
        assert np.array_equal(arrays["x"], x - lr * arrays["g"])


def test_no_tensors_and_no_elements_are_no_work():
    for tensors in ([], arrays_of(rules.sgd, [0, 0])):
        program = lower(rules.sgd)
        scalars = np.array([program.fold(t=1, lr=1.0, weight_decay=0.0, lr_decay=0.0)])
        cpu.launch(cpu.kernel(program, "float64"), table_of(program, tensors), scalars, threads=2)


@pytest.mark.parametrize("name", rules.ALL)
def test_any_number_of_threads_gives_the_same_bits(name: str):
    sizes = [3 * CHUNK + 11, 5, CHUNK]
    results = []
    for threads in (1, 2, 8):
        tensors = arrays_of(rules.ALL[name], sizes, "float32")
        stepped(rules.ALL[name], tensors, threads, steps=3)
        results.append([{key: array.tobytes() for key, array in arrays.items()} for arrays in tensors])
    assert results[0] == results[1] == results[2]


@pytest.mark.skipif(platform.machine().lower() not in FLUSHES, reason="what this processor does with them is not known")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_step_has_0_in_place_of_subnormal_numbers_and_who_asked_for_it_has_them(dtype: str, threads: int):
    tiny = np.finfo(dtype).tiny
    (arrays,) = arrays_of(rules.adadelta, [2 * CHUNK + 1], dtype)
    arrays["g"][:] = 0
    arrays["square_avg"][:], arrays["acc_delta"][:] = tiny, tiny / 2
    stepped(rules.adadelta, [arrays], threads)
    assert not arrays["square_avg"].any()
    assert not arrays["acc_delta"].any()
    assert np.all(np.full(3, tiny) * 0.5 != 0)


def test_an_arm_processor_is_told_in_a_register_of_its_own(monkeypatch: pytest.MonkeyPatch):
    triple = "aarch64-unknown-linux-gnu"
    monkeypatch.setattr(llvm, "get_process_triple", lambda: triple)
    function = ir.Function(ir.Module(), ir.FunctionType(ir.IntType(64), []), "told")
    builder = ir.IRBuilder(function.append_basic_block())
    read, write, flushed = native._control(builder)
    before = read()
    write(builder.or_(before, ir.Constant(before.type, flushed)))
    builder.ret(before)
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(triple).create_target_machine()
    code = machine.emit_assembly(llvm.parse_assembly(str(function.module)))
    assert re.findall(r"mrs|orr|#0x1000000|msr|FPCR", code) == ["mrs", "FPCR", "orr", "#0x1000000", "msr", "FPCR"]


@pytest.mark.parametrize("threads", [1, 2])
def test_several_python_threads_step_at_once(threads: int):
    sizes = [2 * CHUNK + 1, 100]
    tensors = [arrays_of(rules.rmsprop_nesterov, sizes, seed=seed) for seed in range(4)]
    wanted = [[expected(rules.rmsprop_nesterov, arrays, steps=20) for arrays in mine] for mine in tensors]
    together = threading.Barrier(4)

    def train(mine: list[dict[str, Any]]) -> None:
        together.wait()
        stepped(rules.rmsprop_nesterov, mine, threads, steps=20)

    workers = [threading.Thread(target=train, args=(mine,)) for mine in tensors]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(all(map(equal, mine, others)) for mine, others in zip(tensors, wanted, strict=True))


def test_the_gradient_may_be_the_parameter_itself():
    tensors = arrays_of(rules.rmsprop_nesterov, [CHUNK + 3])
    tensors[0]["g"] = tensors[0]["x"]
    wanted = expected(rules.rmsprop_nesterov, {name: array.copy() for name, array in tensors[0].items()})
    stepped(rules.rmsprop_nesterov, tensors, threads=2)
    assert np.array_equal(tensors[0]["x"], wanted["x"])


def test_curvature_and_squares_are_inputs_like_the_gradient():
    @rule
    def newton(g, h, g2, mean=0.5, *, mu: NonNegative = 0.25):
        mean = 0.5 * mean + g2
        return -g / (abs(h) + mu) * mean, mean

    rng = np.random.default_rng(5)
    (arrays,) = arrays_of(newton, [CHUNK + 1])
    arrays |= {"h": rng.standard_normal(CHUNK + 1), "g2": rng.standard_normal(CHUNK + 1)}
    x, state = reference.step(
        newton, arrays["x"], arrays["g"], reference.init(newton, arrays["x"]), h=arrays["h"], g2=arrays["g2"]
    )
    stepped(newton, [arrays], threads=2)
    assert equal(arrays, {"x": x, "mean": state["mean"]})


def test_slots_may_change_places():
    @rule
    def swap(g, first=1.0, second=2.0):
        return -g * first, second, first

    tensors = arrays_of(swap, [4])
    stepped(swap, tensors)
    assert tensors[0]["first"].tolist() == [2.0] * 4
    assert tensors[0]["second"].tolist() == [1.0] * 4


def test_a_slot_may_be_set_to_a_number():
    @rule
    def marks(g, seen=0.0, up=0.0):
        return -g * seen * up, 1.0, where(g > 0, 1.0, 0.0)

    tensors = arrays_of(marks, [6])
    stepped(marks, tensors)
    assert tensors[0]["seen"].tolist() == [1.0] * 6
    assert tensors[0]["up"].tolist() == (tensors[0]["g"] > 0).astype(float).tolist()


def test_a_slot_may_be_written_without_being_read():
    @rule
    def remembers(g, last=0.0):
        return -g, g

    tensors = arrays_of(remembers, [4])
    stepped(remembers, tensors)
    assert np.array_equal(tensors[0]["last"], tensors[0]["g"])


@pytest.mark.parametrize(
    "name",
    [
        *("first", "row", "rows", "size", "tensor", "chunk", "chunks", "scalars", "inputs", "pointers", "claimed"),
        *("fields", "launch", "claim", "carray", "cfunc", "njit", "len", "v", "a", "b", "condition", "ZERO"),
        *("ONE", "sqrt_", "x_", "x_at", "g_at", "new_x", "c1", "c2", "v1", "float32_at"),
        *("int64_at", "self", "numba", "steprule", "True_", "lr_", "math"),
        *("i", "range", "float64", "float64_at", "arrays", "place", "scratch", "noise", "x_draw"),
    ],
)
def test_users_names_do_not_meet_the_kernels(name: str, tmp_path, monkeypatch):
    monkeypatch.setenv("STEPRULE_CACHE", str(tmp_path))
    scope: dict[str, Any] = {}
    text = (
        f"def named(g, {name}=0.5, {name}_at=2.0, *, {name}_=3.0): return -g * {name} * {name}_, {name} + g, -{name}_at"
    )
    exec(text, scope)
    each = rule(scope["named"])
    tensors = arrays_of(each, [5])
    wanted = expected(each, tensors[0], steps=2)
    stepped(each, tensors, steps=2)
    assert equal(tensors[0], wanted)


@pytest.mark.parametrize("name", ["row", "c1", "lr_at", "i"])
def test_hyperparameters_do_not_meet_the_kernels_names(name: str, tmp_path, monkeypatch):
    monkeypatch.setenv("STEPRULE_CACHE", str(tmp_path))
    scope: dict[str, Any] = {}
    # Used beside an element, so that the loop itself holds it.
    exec(f"def named(g, mean=0.5, *, {name}=3.0): return -(g + {name}), mean * {name}", scope)
    each = rule(scope["named"])
    tensors = arrays_of(each, [5])
    wanted = expected(each, tensors[0])
    stepped(each, tensors)
    assert equal(tensors[0], wanted)


def test_a_rule_may_be_long(tmp_path, monkeypatch):
    monkeypatch.setenv("STEPRULE_CACHE", str(tmp_path))

    @rule
    def settles(g, mean=0.0, *, pull: Real = 0.75):
        for _ in range(300):
            mean = (mean + g) * pull
        return -mean, mean

    tensors = arrays_of(settles, [5])
    wanted = expected(settles, tensors[0])
    stepped(settles, tensors)
    assert equal(tensors[0], wanted)


def test_scalars_may_be_long(tmp_path, monkeypatch):
    monkeypatch.setenv("STEPRULE_CACHE", str(tmp_path))

    @rule
    def rooted(g, *, a: Positive = 2.0):
        root = 1.0
        for _ in range(300):
            root = 0.5 * (root + a / root)  # written out without lines, twice as long each time
        return -g / root

    tensors = arrays_of(rooted, [5])
    wanted = expected(rooted, tensors[0])
    stepped(rooted, tensors)
    np.testing.assert_allclose(tensors[0]["x"], wanted["x"], rtol=1e-12)


def test_an_identifier_need_not_be_ascii(tmp_path, monkeypatch):
    monkeypatch.setenv("STEPRULE_CACHE", str(tmp_path))

    @rule
    def größe(g, schätzung=0.5, *, ρ: Real = 0.5):
        return -ρ * g * schätzung, schätzung + ρ * g

    tensors = arrays_of(größe, [5])
    wanted = expected(größe, tensors[0])
    stepped(größe, tensors)
    assert equal(tensors[0], wanted)


def _module(source: str) -> ModuleType:
    module = ModuleType("compiled_by_a_test")
    module.CACHE = False
    exec(source, module.__dict__)
    return module


@rule
def every_function(g, x, t, mean=0.5, *, rate: Real = 0.1, power: Real = 1.5):
    """A rule of all that the notation has, numbers of its own among it."""
    mean = maximum(minimum(abs(g), 2.5), sign(mean) * 0.1) + sqrt(abs(x)) ** power
    return -rate / t * where(g <= mean, g, 0.7) + 1 / (abs(x) + 3), mean


@pytest.mark.parametrize("each", [*RULES.values(), every_function], ids=lambda each: each.name)
def test_no_float32_kernel_computes_in_float64(each: Rule):
    module = _module(cpu.source(lower(each, around.Around("coupled")), "float32"))
    code = module.step.inspect_llvm()
    assert "float" in code
    assert "double" not in code


def test_the_source_says_what_a_step_costs():
    source = cpu.source(lower(rules.adadelta), "float32")
    assert source.startswith(
        '"""One float32 step of adadelta, made by steprule: 28 bytes, 16 operations per element."""'
    )
    assert "c1 = scalars[row + 1]  # 1 - rho" in source
    assert "new_square_avg = rho * square_avg + c1 * (g * g)" in source


def test_the_source_is_the_same_in_every_process():
    # Otherwise no process would find what another has compiled.
    code = (
        "from steprule import rules; from steprule.program import lower; from steprule.kernels import cpu; import hashlib;"
        "print(hashlib.sha256(''.join(cpu.source(lower(r), 'float32') for r in rules.ALL.values()).encode()).hexdigest())"
    )
    seeds = ("0", "1")
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True
        )
        for seed in seeds
    ]
    assert runs[0].stdout == runs[1].stdout


@pytest.mark.parametrize("make", [cpu.source, cpu.kernel, lambda program, real: cpu.row_source(program, real, ())])
def test_a_type_that_no_kernel_computes_in_is_refused(make: Any):
    with pytest.raises(ValueError, match=r"^a kernel computes in 'float16'; allowed are 'float32' and 'float64'$"):
        make(lower(rules.sgd), "float16")


def test_a_program_is_compiled_once_for_each_type():
    program = lower(rules.sgd)
    assert cpu.kernel(program, "float32") is cpu.kernel(program, "float32")
    assert cpu.kernel(program, "float32") is not cpu.kernel(program, "float64")


# --- Rows ----------------------------------------------------------------------------------------------------------------


def rows_stepped(each: Rule, arrays: dict[str, Any], numbers: list[int], factors: dict[str, Any], **values: float):
    """Step some rows of arrays of two dimensions, in place; `g` has a row for each of `numbers`."""
    program, complete = lower(each), around.validated(each, values)
    dtype = str(arrays["x"].dtype)
    named = np.array(numbers, np.int64)
    addresses = [arrays[name].ctypes.data for name in program.arrays]
    addresses += [arrays["x"].shape[1], named.ctypes.data, *(array.ctypes.data for array in factors.values())]
    table = cpu.Table(np.array([addresses]), [len(numbers)], arrays["x"].shape[1])
    scalars = np.array([program.fold(t=1, **complete)], dtype)
    cpu.launch(cpu.row_kernel(program, dtype, tuple(factors)), table, scalars, threads=2)


@pytest.mark.parametrize("width", [1, 5, 64, CHUNK + 1])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_are_multiplied_and_step_and_no_other(width: int, dtype: str):
    rng, numbers = np.random.default_rng(0), [5, 0, 3]
    before = {name: rng.random((7, width)).astype(dtype) for name in ("x", "square_avg", "acc_delta")}
    arrays = {name: array.copy() for name, array in before.items()} | {"g": rng.random((3, width)).astype(dtype)}
    factors = {name: rng.random((3, 2)).astype(dtype) for name in ("x", "acc_delta")}
    rows_stepped(rules.adadelta, arrays, numbers, factors)
    dense = {name: before[name][numbers] for name in before}
    for name, pairs in factors.items():
        dense[name] = dense[name] * pairs[:, :1] * pairs[:, 1:]
    dense = {name: np.ascontiguousarray(array.reshape(-1)) for name, array in dense.items()} | {
        "g": arrays["g"].reshape(-1)
    }
    stepped(rules.adadelta, [dense])
    for name in before:
        assert np.array_equal(arrays[name][numbers].reshape(-1), dense[name])
        assert np.array_equal(arrays[name][[1, 2, 4, 6]], before[name][[1, 2, 4, 6]])


def test_names_of_the_row_kernel_are_free_for_rules():
    words = ["k", "width", "numbers", "here", "soon", "line", "min", "prefetch", "k_by", "k_by_1", "tensor", "first"]
    scope: dict[str, Any] = {}
    slots, doubled = ", ".join(f"{word}=1.0" for word in words), ", ".join(f"{word} * 2" for word in words)
    exec(f"def busy(g, {slots}): return -g, {doubled}", scope)
    arrays = {"x": np.ones((2, 3)), "g": np.ones((1, 3))} | {word: np.ones((2, 3)) for word in words}
    rows_stepped(rule(scope["busy"]), arrays, [1], {word: np.array([[0.5, 0.5]]) for word in ["x", *words]})
    assert arrays["x"].tolist() == [[1] * 3, [-0.75] * 3]
    assert all(arrays[word].tolist() == [[1] * 3, [0.5] * 3] for word in words)
