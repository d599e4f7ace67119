"""The fused loop for the GPU by itself: its source, interpreted on the CPU, and compiled for GPUs that need not be here."""

from __future__ import annotations

import ast
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from tests.conformance.cases import RULES, hyper
from tests.interpreter import interpreting, require_interpreter
from tests.requirements import require_release

import torch
from steprule import Positive, Real, Rule, around, reference, rule, rules
from steprule.around import Around
from steprule.kernels import gpu
from steprule.kernels.gpu import BLOCK
from steprule.notation import abs, maximum, minimum, sign, sqrt, where
from steprule.program import Program, lower

Tensors = Mapping[str, torch.Tensor]


def tensors_of(each: Rule, sizes: Sequence[int], formats: Mapping[str, str] | str = "float64") -> list[Tensors]:
    generator = torch.Generator().manual_seed(0)
    arrays = ("x", "g", *each.slots)
    formats = dict.fromkeys(arrays, formats) if isinstance(formats, str) else formats
    return [
        {name: torch.randn(size, generator=generator).to(getattr(torch, formats[name])) for name in ("x", "g")}
        | {name: torch.full((size,), start, dtype=getattr(torch, formats[name])) for name, start in each.slots.items()}
        for size in sizes
    ]


def step(each: Rule, tensors: Sequence[Tensors], t: int = 1, **values: float) -> None:
    """Step all tensors, in place, in one launch of the interpreted kernel."""
    program, complete = lower(each), around.validated(each, hyper(each.name) | values)
    formats = {name: str(tensors[0][name].dtype).removeprefix("torch.") for name in program.arrays}
    addresses = [[arrays[name].data_ptr() for name in program.arrays] for arrays in tensors]
    real = getattr(torch, gpu.real_of(formats))
    scalars = torch.tensor([program.fold(t=t, **complete)], dtype=torch.float64).to(real)
    table = torch.from_numpy(gpu.chunk_table([len(arrays["x"]) for arrays in tensors]))
    with interpreting():
        kernel = gpu.kernel(program, formats)
        gpu.launch(kernel, torch.tensor(addresses), torch.zeros(len(tensors), dtype=torch.int64), table, scalars)


def exactly(tensor: torch.Tensor) -> np.ndarray:
    return tensor.to(torch.float64, copy=True).numpy()


def expected(each: Rule, arrays: Tensors, t: int = 1, **values: float) -> dict[str, Any]:
    state = {"step": t - 1} | {name: exactly(arrays[name]) for name in each.slots}
    x, g = (exactly(arrays[name]) for name in ("x", "g"))
    x, state = reference.step(each, x, g, state, **(hyper(each.name) | values))
    return {"x": x} | {name: state[name] for name in each.slots}


def agrees(each: Rule, sizes: Sequence[int] = (7,), **values: float) -> None:
    """Assert that a step in float64 is the reference's to the last bit."""
    tensors = tensors_of(each, sizes)
    wanted = [expected(each, arrays, **values) for arrays in tensors]
    step(each, tensors, **values)
    for arrays, those in zip(tensors, wanted, strict=True):
        for name, value in those.items():
            assert np.array_equal(arrays[name].numpy(), np.broadcast_to(value, arrays["x"].shape), equal_nan=True), name


class TestTheStep:
    def test_takes_many_tensors_in_one_launch(self) -> None:
        agrees(rules.rmsprop_nesterov, [3, 0, BLOCK, 1, 2 * BLOCK + 5, 17])

    def test_takes_no_tensor_and_no_element(self) -> None:
        step(rules.sgd, tensors_of(rules.sgd, [0, 0]))

    @pytest.mark.parametrize("size", [1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK])
    def test_ends_where_the_tensor_ends(self, size: int) -> None:
        whole = {name: torch.full((size + 2,), 7.0) for name in ("x", "g", "square_avg", "acc_delta")}
        step(rules.adadelta, [{name: tensor[1:-1] for name, tensor in whole.items()}])
        assert all(tensor[0] == tensor[-1] == 7.0 for tensor in whole.values())
        assert torch.all(whole["x"][1:-1] != 7.0)
        assert torch.all(whole["g"] == 7.0)

    def test_takes_each_tensors_row_of_scalars(self) -> None:
        tensors, program = tensors_of(rules.sgd, [5, BLOCK + 3, 2]), lower(rules.sgd)
        wanted = [
            expected(rules.sgd, arrays, lr=lr)["x"] for arrays, lr in zip(tensors, [0.25, 0.5, 0.25], strict=True)
        ]
        scalars = torch.tensor(
            [program.fold(t=1, lr=lr, weight_decay=0.0, lr_decay=0.0) for lr in (0.5, 0.25)], dtype=torch.float64
        )
        pointers = torch.tensor([[arrays[name].data_ptr() for name in program.arrays] for arrays in tensors])
        with interpreting():
            kernel = gpu.kernel(program, dict.fromkeys(program.arrays, "float64"))
            table = torch.from_numpy(gpu.chunk_table([5, BLOCK + 3, 2]))
            gpu.launch(kernel, pointers, torch.tensor([1, 0, 1]), table, scalars)
        assert all(np.array_equal(arrays["x"].numpy(), x) for arrays, x in zip(tensors, wanted, strict=True))

    def test_takes_a_type_of_its_own_for_each_array(self) -> None:
        formats = {"x": "bfloat16", "g": "float32", "square_avg": "float16", "acc_delta": "float64"}
        (arrays,) = tensors = tensors_of(rules.adadelta, [BLOCK + 1], formats)
        arrays["acc_delta"].fill_(1 / 3)
        wanted = expected(rules.adadelta, {**arrays, "acc_delta": arrays["acc_delta"].float()})
        step(rules.adadelta, tensors)
        for name, value in wanted.items():
            found = arrays[name]
            assert str(found.dtype) == f"torch.{formats[name]}"
            digits = torch.finfo(torch.float32 if name == "acc_delta" else found.dtype).eps
            np.testing.assert_allclose(found.double().numpy(), value, rtol=digits, atol=1e-6)

    def test_writes_the_parameter_a_second_time(self) -> None:
        program = lower(rules.sgd)
        arrays = {name: torch.randn(BLOCK + 3) for name in program.arrays}
        arrays |= {"copy": torch.zeros(BLOCK + 3, dtype=torch.bfloat16)}
        formats = {"x": "float32", "g": "float32", "copy": "bfloat16"}
        pointers = torch.tensor([[arrays[name].data_ptr() for name in (*program.arrays, "copy")]])
        table, scalars = torch.from_numpy(gpu.chunk_table([BLOCK + 3])), torch.tensor([[-0.5]])
        with interpreting():
            gpu.launch(gpu.kernel(program, formats), pointers, torch.zeros(1, dtype=torch.int64), table, scalars)
        assert torch.equal(arrays["copy"], arrays["x"].to(torch.bfloat16))
        assert "sgd, made by steprule: 14 bytes, " in gpu.source(program, formats)

    def test_lets_slots_change_places(self) -> None:
        @rule
        def swap(g, first=1.0, second=2.0):
            return -g * first, second, first

        agrees(swap)

    def test_writes_a_slot_that_it_does_not_read_and_one_that_is_a_number(self) -> None:
        @rule
        def marks(g, seen=0.0, up=0.0, last=3.0):
            return -g * seen, 1.0, where(g > 0, 1.0, 0.0), g

        agrees(marks)

    def test_knows_every_function_of_the_notation(self) -> None:
        @rule
        def all_of_them(g, x, *, a: Real = 0.5, b: Real = 3.0):
            near = maximum(g, x) * minimum(g, -x) - sign(g) * abs(x)
            far = sqrt(abs(g)) / (1 + x * x) + where(g <= x, a, g) + where(a > b, g, x)
            return near + where((g != x), far, -far) + minimum(a, g) ** 2

        agrees(all_of_them, [BLOCK + 1])

    def test_lets_nan_and_infinities_through(self) -> None:
        @rule
        def bounds(g, x, up=0.0, down=0.0):
            return sign(g), maximum(g, x), minimum(x, g)

        values = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, -0.0, 1.0], dtype=torch.float64)
        x, g = (each.reshape(-1).contiguous() for each in torch.meshgrid(values, values, indexing="ij"))
        arrays = {"x": x, "g": g, "up": torch.zeros_like(x), "down": torch.zeros_like(x)}
        with np.errstate(invalid="ignore"):
            wanted = expected(bounds, arrays)
        step(bounds, [arrays])
        assert all(np.array_equal(arrays[name].numpy(), value, equal_nan=True) for name, value in wanted.items())

    def test_raises_to_any_power(self) -> None:
        @rule
        def powers(g, *, p: Real = 0.7):
            return -(abs(g) ** p) + 2.0**g

        (arrays,) = tensors = tensors_of(powers, [40])
        wanted = expected(powers, arrays)["x"]
        step(powers, tensors)
        np.testing.assert_allclose(arrays["x"].numpy(), wanted, rtol=1e-14)

    @pytest.mark.parametrize(
        "name",
        [
            *("first", "row", "rows", "size", "tensor", "chunk", "chunks", "scalars", "pointers", "elements", "inside"),
            *("tl", "triton", "step_", "fold", "count", "counts", "counted", "values", "groups", "BLOCK", "WHOLE", "i"),
            *("c1", "v1", "n1", "x_at", "new_x", "power", "a", "b", "v", "float", "t_", "größe"),
        ],
    )
    def test_lets_a_rule_use_any_name(self, name: str) -> None:
        scope: dict[str, Any] = {}
        text = f"def named(g, {name}=0.5, *, {name}_=3.0): return -g * {name} * {name}_, (g + {name}_) * {name}"
        exec(text, scope)
        agrees(rule(scope["named"]))

    def test_lets_a_hyperparameter_have_any_name(self) -> None:
        for name in ("row", "n1", "n2", "counted", "tl", "t_"):
            scope: dict[str, Any] = {}
            exec(f"def named(g, t, m=1.0, *, {name}=3.0): return -g * (1 - {name} / 7) * 5, m / (2 + t)", scope)
            each = rule(scope["named"])
            agrees(each)
            values = around.validated(each, {})
            (found,) = folded(lower(each), 4, [values])
            np.testing.assert_allclose(found, lower(each).fold(t=5, **values), rtol=4e-16)


def folded(program: Program, count: float, values: list[dict[str, float]], groups: Sequence[int] = (0,)) -> list[tuple]:
    """Return each tensor's scalars in float64, as the device would have them in the step after `count`."""
    values = [{"grad_scale": 1.0} | each for each in values]
    counts = [torch.tensor(float(count)) for _ in groups]
    scalars = torch.zeros((len(groups), len(program.scalars)), dtype=torch.float64)
    with interpreting():
        kernel = gpu.kernel(program, dict.fromkeys(program.arrays, "float64"))
        gpu.fold(
            kernel,
            torch.tensor([each.data_ptr() for each in counts]),
            torch.tensor(groups),
            torch.tensor([[each[name] for name in gpu.value_names(program)] for each in values], dtype=torch.float64),
            scalars,
        )
    assert [each.item() for each in counts] == [count + 1] * len(groups)
    return [tuple(row.tolist()) for row in scalars]


class TestTheScalars:
    @pytest.mark.parametrize("form", [Around(), Around("coupled"), Around("decoupled", maximize=True)], ids=str)
    @pytest.mark.parametrize("name", RULES)
    @pytest.mark.parametrize("count", [0, 1, 1000])
    def test_are_on_the_device_what_they_are_on_the_host(self, name: str, form: Around, count: int) -> None:
        program = lower(RULES[name], form)
        values = around.validated(RULES[name], {**hyper(name), "weight_decay": 0.03})
        (found,) = folded(program, count, [values])
        np.testing.assert_allclose(found, program.fold(t=count + 1, **values), rtol=4e-16)

    def test_are_those_of_the_tensors_group(self) -> None:
        program = lower(rules.sgd)
        values = [around.validated(rules.sgd, {"lr": lr}) for lr in (0.5, 0.25)]
        assert folded(program, 2, values, [1, 0, 1]) == [(-0.25,), (-0.5,), (-0.25,)]

    def test_have_what_gradients_are_divided_by(self) -> None:
        program = lower(rules.sgd, Around(unscale=True))
        values = around.validated(rules.sgd, {"lr": 0.5}) | {"grad_scale": 8.0}
        assert folded(program, 0, [values]) == [program.fold(t=1, **values)]
        assert 0.125 in program.fold(t=1, **values)

    def test_may_be_infinite_or_no_number(self) -> None:
        @rule
        def odd(g, t, *, a: Real = 0.0):
            return g * (1 / a) + g * sqrt(a - t) + g * where(t > 2, t, a) * maximum(t, a) * sign(a - t) * abs(a - t)

        program = lower(odd)
        values = around.validated(odd, {})
        (found,) = folded(program, 4, [values])
        assert np.array_equal(found, program.fold(t=5, **values), equal_nan=True)

    def test_may_be_long(self) -> None:
        @rule
        def rooted(g, t, *, s1: Positive = 2.0):
            root = t
            for _ in range(40):
                root = 0.5 * (root + s1 / root)
            return -g / root

        program = lower(rooted)
        values = around.validated(rooted, {})
        (found,) = folded(program, 4, [values])
        np.testing.assert_allclose(found, program.fold(t=5, **values), rtol=4e-16)
        np.testing.assert_allclose(program.fold(t=5, **values)[0], 0.5**0.5, rtol=1e-15)


class TestTheSource:
    @pytest.mark.parametrize("dtype", gpu.TYPES)
    @pytest.mark.parametrize("name", RULES)
    def test_is_python(self, name: str, dtype: str) -> None:
        module = ast.parse(gpu.source(lower(RULES[name]), dtype))
        functions = [node.name for node in module.body if isinstance(node, ast.FunctionDef)]
        assert functions[-3:] == ["elements", "step", "fold"]

    def test_says_what_a_step_moves(self) -> None:
        program = lower(rules.adam)
        assert "adam, made by steprule: 28 bytes, " in gpu.source(program, "float32")
        mixed = {"x": "bfloat16", "g": "bfloat16", "exp_avg": "float32", "exp_avg_sq": "float32"}
        assert "adam, made by steprule: 22 bytes, " in gpu.source(program, mixed)

    def test_tells_of_a_type_that_there_is_not(self) -> None:
        with pytest.raises(
            ValueError, match=r"the type of x is 'int8'; allowed are float64, float32, bfloat16, float16"
        ):
            gpu.source(lower(rules.sgd), "int8")

    def test_tells_of_an_array_without_a_type(self) -> None:
        with pytest.raises(KeyError, match="g"):
            gpu.source(lower(rules.sgd), {"x": "float32"})


def compiled(name: str, dtype: str, function: str = "step") -> str:
    """Return the assembly that Triton makes for an H100, which takes no GPU."""
    require_interpreter()
    require_release("triton", "3.6", "divisions and roots take numbers below 2**-126 for zero")
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    program = lower(RULES[name])
    kernel = gpu.kernel(program, dict.fromkeys(program.arrays, dtype))
    real = "*fp64" if dtype == "float64" else "*fp32"
    if function == "step":
        signature = {"pointers": "*i64", "rows": "*i64", "chunks": "*i64", "scalars": real, "BLOCK": "constexpr"}
    else:
        signature = {"counts": "*i64", "groups": "*i64", "values": "*fp64", "scalars": real}
    source = ASTSource(getattr(kernel, function), signature, {"BLOCK": BLOCK} if function == "step" else {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Triton's own
        made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=dict(gpu._OPTIONS))
    assert made.asm["cubin"]
    return str(made.asm["ptx"])


class TestTheMachineCode:
    @pytest.mark.parametrize(
        ("dtype", "wide", "times"), [("float32", "v4.b32", 1), ("bfloat16", "v2.b32", 1), ("float64", "v2.b64", 2)]
    )
    @pytest.mark.parametrize("name", ["adadelta", "adam"])
    def test_moves_a_threads_elements_at_once(self, name: str, dtype: str, wide: str, times: int) -> None:
        found = Counter(re.findall(r"\b(?:ld|st)\.global\.\S+", compiled(name, dtype)))
        program = lower(RULES[name])
        assert found[f"ld.global.{wide}"] == times * len(program.inputs)
        assert found[f"st.global.{wide}"] == times * len(program.outputs)

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
    @pytest.mark.parametrize("name", RULES)
    def test_rounds_each_operation(self, name: str, dtype: str) -> None:
        code = compiled(name, dtype)
        real = "f64" if dtype == "float64" else "f32"
        assert re.findall(r"\b(?:fma|mad)\.\S*f\d+|\.(?:approx|full)\b|\.ftz\b", code) == []
        operations = {value.operation for value in lower(RULES[name]).values()}
        for operation, word in (("divide", "div"), ("sqrt", "sqrt")):
            assert (f"{word}.rn.{real}" in code) == (operation in operations)
        if dtype == "bfloat16":
            assert "cvt.rn.bf16" in code

    @pytest.mark.parametrize("name", RULES)
    def test_of_the_scalars_is_there(self, name: str) -> None:
        assert re.findall(r"\bst\.global\.\S+", compiled(name, "float32", "fold"))
