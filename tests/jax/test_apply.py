"""Whole steps in one computation: what they share with transformations, and where the fused loop serves."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import optax
import pytest
from examples.own_rule import lion, yogi
from tests.conformance.cases import beside, hyper
from tests.conformance.tolerances import SHARES

import steprule.jax as ours
from steprule import NonNegative, Rule, rule, rules
from steprule.jax import apply, kernel, transformation
from steprule.kernels import xla, xla_handler
from steprule.kernels.cpu import CHUNK

RULES = {**rules.ALL, "yogi": yogi, "lion": lion}


def close(found: Any, expected: Any) -> None:
    allowed = SHARES["compiled otherwise"]
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.max(np.abs(np.asarray(a) - b), initial=0.0) <= allowed.amount * max(
            1.0, np.max(np.abs(b), initial=0.0)
        )


def trees() -> tuple[dict[str, Any], dict[str, Any]]:
    rng = np.random.default_rng(0)
    shapes = {"a": (3, 5), "b": (), "c": (0, 2), "d": (2 * CHUNK + 3,)}
    made = [
        {name: jnp.asarray(rng.standard_normal(shape), jnp.float32) for name, shape in shapes.items()} for _ in "xg"
    ]
    return made[0], made[1]


@pytest.mark.parametrize("name", RULES)
def test_steps_as_the_transformation_traced_once_in_the_same_memory(name: str) -> None:
    made, (params, grads) = transformation(RULES[name])(**hyper(name)), trees()
    given = {each: beside(RULES[name], np.asarray(g)) for each, g in grads.items()}
    more = {each: {key: jnp.asarray(of[each]) for key, of in given.items()} for each in given["a"]}
    expected, state = params, made.init(params)
    update = jax.jit(made.update)
    for _ in range(3):
        updates, state = update(grads, state, expected, **more)
        expected = optax.apply_updates(expected, updates)
    step = apply(RULES[name], **hyper(name))
    found = step.init(params)
    for _ in range(3):
        before = [params["d"], *(tree["d"] for tree in found.slots.values())]
        places = sorted(array.unsafe_buffer_pointer() for array in before)
        params, found = step(params, grads, found, **more)
        assert all(array.is_deleted() for array in before)
        after = [params["d"], *(tree["d"] for tree in found.slots.values())]
        assert sorted(array.unsafe_buffer_pointer() for array in after) == places
    close((params, found), (expected, state))
    assert step._compiled._cache_size() == 1


def test_the_loop_is_one_call_and_nothing_is_copied() -> None:
    params, grads = trees()
    step = apply(rules.adam)
    text = step._compiled.lower(True, params, grads, step.init(params), {}).compile().as_text()
    assert len(re.findall(r'custom_call_target="steprule_adam_\w+"', text)) == 1
    assert not re.findall(rf"f32\[{2 * CHUNK + 3}\]\S* copy\(", text)


def test_a_rule_that_is_made_twice_is_the_same_to_xla() -> None:
    def made() -> Rule:
        @rule
        def made_twice(g, *, lr: NonNegative = 0.1):
            return -lr * g

        return made_twice

    x = jnp.ones(3)
    for each in (made(), made()):
        step = apply(each, donate=False)
        close(step(x, x, step.init(x))[0], jnp.full(3, 0.9))


def test_many_tensors_are_some_calls() -> None:
    params = [jnp.full(3, float(number)) for number in range(150)]
    step = apply(ours.adamw, lr=0.1, donate=False)
    text = step._compiled.lower(True, params, params, step.init(params), {}).compile().as_text()
    assert len(re.findall(r'custom_call_target="steprule_adam_\w+"', text)) == 3
    found, _ = step(params, params, step.init(params))
    alone, _ = step(params[-1], params[-1], step.init(params[-1]))
    np.testing.assert_array_equal(found[-1], alone)


def test_without_donation_what_was_is_left_as_it_was() -> None:
    params, grads = trees()
    kept = jax.tree.map(np.array, params)
    step = apply(rules.adadelta, donate=False)
    state = step.init(params)
    first, _ = step(params, grads, state)
    again, _ = step(params, grads, state)
    jax.tree.map(np.testing.assert_array_equal, params, kept)
    jax.tree.map(np.testing.assert_array_equal, first, again)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.complex64])
def test_where_there_is_no_gradient_nothing_steps(dtype: Any) -> None:
    step, params = apply(rules.adam, lr=0.1), {"w": jnp.ones(3, dtype), "frozen": jnp.ones(2, dtype)}
    state = step.init(params)
    for _ in range(2):
        params, state = step(params, {"w": jnp.full(3, 0.5, dtype), "frozen": None}, state)
    close(params["frozen"], jnp.ones(2))
    close(state.slots["exp_avg"], {"w": jnp.full(3, 0.095, dtype), "frozen": jnp.zeros(2, dtype)})


def test_low_complex_and_mixed_arrays() -> None:
    params = {
        "low": jnp.ones(5, jnp.bfloat16),
        "half": jnp.ones(5, jnp.float16),
        "complex": jnp.full(5, 1 + 2j, jnp.complex64),
        "mixed": jnp.ones(5, jnp.bfloat16),
    }
    grads = {**jax.tree.map(lambda x: 2 * x, params), "mixed": jnp.full(5, 0.3)}
    step = apply(rules.adagrad, lr=0.1)
    found, state = step(params, grads, step.init(params))
    assert jax.tree.map(lambda x: str(x.dtype), found) == {
        "low": "bfloat16",
        "half": "float16",
        "complex": "complex64",
        "mixed": "bfloat16",
    }
    # The first step of Adagrad is the rate, whatever the gradient.
    assert np.asarray(found["low"], np.float64)[0] == 0.8984375  # 0.9 rounded once
    close(found["complex"], jnp.full(5, 0.9 + 1.9j))
    assert state.slots["sum"]["mixed"].dtype == jnp.bfloat16


def test_inside_other_computations() -> None:
    x, g = jnp.asarray([1.0, 2.0]), jnp.asarray([0.5, -1.0])
    step = apply(rules.adam, lr=0.1, donate=False)
    state = step.init(x)
    expected, _ = step(x, g, state)
    assert "custom_call" in jax.jit(lambda x: step(x, g, state)[0]).lower(x).as_text()
    close(jax.jit(lambda x: step(x, g, state)[0])(x), expected)
    close(jax.vmap(step, in_axes=(0, None, None))(jnp.stack([x, x + 1]), g, state)[0][0], expected)
    close(jax.jit(jax.vmap(lambda x: step(x, g, state)[0]))(jnp.stack([x, x + 1]))[1], expected + 1)
    close(jax.grad(lambda x: jnp.sum(step(x, g, state)[0] ** 2))(x), 2 * expected)
    by_rate = jax.grad(lambda lr: jnp.sum(apply(rules.adam, lr=lr, donate=False)(x, g, state)[0]))(0.1)
    close(by_rate, jnp.asarray(0.0))  # one goes up and one goes down

    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("x",))
    along, whole = jax.sharding.PartitionSpec("x"), jax.sharding.PartitionSpec()
    mapped = jax.shard_map(
        lambda x, g, state: step(x, g, state)[0], mesh=mesh, in_specs=(along, along, whole), out_specs=along
    )
    close(mapped(x, g, state), expected)

    def body(carry: Any, _: Any) -> Any:
        return step(carry[0], g, carry[1]), None

    (scanned, _), _ = jax.lax.scan(body, (x, state), None, length=3)
    for _ in range(3):
        x, state = step(x, g, state)
    close(scanned, x)


def test_under_a_mesh_of_explicit_axes() -> None:
    mesh = jax.make_mesh((1,), ("x",), axis_types=(jax.sharding.AxisType.Explicit,))
    step, g = apply(rules.adam, lr=0.1, donate=False), jnp.asarray([0.5, -1.0])
    expected, _ = step(jnp.ones(2), g, step.init(jnp.ones(2)))
    with jax.set_mesh(mesh):
        x, g = jax.device_put((jnp.ones(2), g), jax.sharding.PartitionSpec("x"))
        for made in (step, jax.jit(lambda x, g, state: step(x, g, state))):
            new, _ = made(x, g, step.init(x))
            close(new, expected)
            assert jax.typeof(new) == jax.typeof(x)


def test_nothing_that_is_traced_is_kept() -> None:
    step, x = apply(rules.adam, lr=0.1, donate=False), {"a": jnp.ones(2), "b": jnp.ones(3)}
    with jax.checking_leaks():
        close(step(x, x, step.init(x))[0], {"a": jnp.full(2, 0.9), "b": jnp.full(3, 0.9)})


def test_steps_in_many_threads_at_once_come_to_an_end() -> None:
    """Whoever waits for helpers that have not begun would wait forever: more callers than the pool has threads."""
    step, found = apply(rules.adadelta, donate=False), {}
    params, grads = trees()
    expected, _ = step(params, grads, step.init(params))

    def work(number: int) -> None:
        x, state = params, step.init(params)
        for _ in range(20):
            found[number], _ = jax.block_until_ready(step(x, grads, state))

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
        assert not thread.is_alive()
    for each in found.values():
        jax.tree.map(np.testing.assert_array_equal, each, expected)


def test_a_schedule_and_traced_numbers() -> None:
    x = jnp.ones(3)
    step = apply(rules.sgd, lr=optax.linear_schedule(0.1, 0.3, 2))
    state, found = step.init(x), [1.0]
    for _ in range(3):
        x, state = step(x, jnp.ones(3), state)
        found.append(float(x[0]))
    close(np.diff(found), np.array([-0.1, -0.2, -0.3]))


def test_only_rules_and_what_is_made_of_them_are_applied() -> None:
    with pytest.raises(
        TypeError, match="apply takes a rule or a function that steprule.jax.transformation made of one"
    ):
        apply(optax.adam)
    with pytest.raises(ValueError, match=r"rho is 2.0; allowed is a number in \[0, 1\)"):
        apply(rules.adadelta, rho=2)


def test_a_handler_has_the_same_name_in_every_process() -> None:
    from steprule.kernels.elements import Elements
    from steprule.program import lower

    code = (
        "from steprule import rules; from steprule.kernels import xla; from steprule.kernels.elements import Elements; "
        "from steprule.program import lower; print(xla.target(lower(rules.adam), Elements('float32')))"
    )
    named = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert named == xla.target(lower(rules.adam), Elements("float32"))


def test_offsets_are_those_of_the_interface_of_this_jaxlib() -> None:
    """`xla_handler` counts words of 8 bytes; the header lists the functions in the order of their words."""
    header = Path(jaxlib.__file__).with_name("include") / "xla/ffi/api/c_api.h"
    text = header.read_text(encoding="utf-8")
    functions = re.findall(r"_XLA_FFI_API_STRUCT_FIELD\(XLA_FFI_(\w+)\)", text)
    assert re.search(r"#define XLA_FFI_API_MAJOR 0\b", text)
    # Before them: size, extension, a version of three words, the internal functions.
    assert functions.index("Error_Destroy") + 6 == xla_handler.ERROR_DESTROY
    assert functions.index("ThreadPool_Schedule") + 6 == xla_handler.SCHEDULE
    assert functions.index("ThreadPool_NumThreads") + 6 == xla_handler.NUMBER_OF_THREADS


def test_devices_that_are_not_one_cpu_are_not_served() -> None:
    class Place:
        platform = "gpu"

    assert kernel.serves([jnp.ones(2)])
    assert kernel.serves([np.ones(2)])  # it goes where JAX puts it
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda: [Place()])
        assert not kernel.serves([np.ones(2)])
        patch.setattr(jax, "devices", lambda: [*Place.__subclasses__(), Place(), Place()])
        assert not kernel.serves([np.ones(2)])
        patch.setattr(xla, "available", lambda: False)
        assert not kernel.serves([jnp.ones(2)])
