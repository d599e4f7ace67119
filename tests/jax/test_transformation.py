"""Rules as transformations of optax: in all that optax and JAX do with one."""

from __future__ import annotations

import functools
import inspect
import json
import os
import pickle
import re
import subprocess
import sys
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from examples.own_rule import lion, yogi
from tests.conformance.cases import hyper
from tests.conformance.tolerances import SHARES, Allowed

import steprule.jax as ours
from steprule import NonNegative, Positive, Rule, reference, rule, rules
from steprule.jax import RuleState, transformation
from steprule.notation import maximum, minimum, sqrt, where
from steprule.program import lower

RULES = {**rules.ALL, "yogi": yogi, "lion": lion}


# No slot, averages, the step count, a condition on it, curvature, and all of these: for what takes long to compile.
REPRESENTATIVES = ("sgd", "adadelta", "adam", "delta_bar_delta", "diagonal_newton", "vsgd")


def values_of(name: str) -> dict[str, float]:
    """Return a rate, and what else a rule must be given or, as vSGD, would not move without in a few steps."""
    own = RULES[name].hyperparameters
    if name.startswith("vsgd") or any(each.default is None for each in own.values() if each.name != "lr"):
        return hyper(name)
    return {"lr": 0.1} if "lr" in own else {}


def beside(name: str, grads: Any) -> dict[str, Any]:
    """Return the trees that a rule takes beside the gradients of `bowl`: its curvature, and squares as of noisy ones."""
    made = {
        "h": lambda g: 0 * g + (2 + 2j if jnp.iscomplexobj(g) else 2),
        "g2": lambda g: 2 * (g.real**2 + 1j * g.imag**2 if jnp.iscomplexobj(g) else g * g),
    }
    return {each: jax.tree.map(made[each], grads) for each in made if each in RULES[name].inputs}


def params() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {"w": jnp.asarray(rng.standard_normal((3, 5)), jnp.float32), "b": [jnp.asarray(0.5)]}


def bowl(tree: Any) -> Any:
    return sum(jnp.sum((x - 3.0) ** 2) for x in jax.tree.leaves(tree))


@functools.cache
def transformed(name: str, **more: Any) -> optax.GradientTransformationExtraArgs:
    return transformation(RULES[name])(**{**values_of(name), **more})


def trained(name: str, made: optax.GradientTransformation, start: Any, steps: int = 5, jit: bool = True) -> Any:
    state, update = made.init(start), jax.jit(made.update) if jit else made.update
    for _ in range(steps):
        grads = jax.grad(bowl)(start)
        updates, state = update(grads, state, start, **beside(name, grads))
        start = optax.apply_updates(start, updates)
    return start


@functools.cache
def by_itself(name: str, steps: int = 5) -> Any:
    """Return where the rule leads with nothing around it, which many tests compare with."""
    return trained(name, transformed(name), params(), steps)


def close(found: Any, expected: Any, allowed: Allowed = SHARES["compiled otherwise"]) -> None:
    def compare(a: Any, b: Any) -> None:
        assert np.max(np.abs(np.asarray(a) - b)) <= allowed.amount * max(1.0, np.max(np.abs(b))), allowed.reason

    jax.tree.map(compare, found, expected)


@pytest.mark.parametrize("name", RULES)
class TestEveryRule:
    def test_steps_as_the_reference(self, name: str) -> None:
        found = trained(name, transformed(name, weight_decay=0.01), params())
        expected = params()
        states = jax.tree.map(lambda x: reference.init(RULES[name], np.asarray(x, np.float64)), expected)
        leaves, treedef = jax.tree.flatten(expected)
        leaves, states = [np.asarray(x, np.float64) for x in leaves], treedef.flatten_up_to(states)
        for _ in range(5):
            made = [
                reference.step(RULES[name], x, g, state, weight_decay=0.01, **beside(name, g), **values_of(name))
                for x, g, state in zip(leaves, [2 * (x - 3) for x in leaves], states, strict=True)
            ]
            leaves, states = [x for x, _ in made], [state for _, state in made]
        close(found, treedef.unflatten(leaves))

    def test_hyperparameters_as_part_of_the_state(self, name: str) -> None:
        injected = optax.inject_hyperparams(transformation(RULES[name]))(**values_of(name))
        close(trained(name, injected, params()), by_itself(name), SHARES["hyperparameters in float32"])

    def test_under_scan_vmap_and_no_jit_at_all(self, name: str) -> None:
        made, expected = transformed(name), by_itself(name)
        close(trained(name, made, params(), jit=False), expected)

        def body(carry: Any, _: Any) -> Any:
            x, state = carry
            grads = jax.grad(bowl)(x)
            updates, state = made.update(grads, state, x, **beside(name, grads))
            return (optax.apply_updates(x, updates), state), None

        (scanned, state), _ = jax.lax.scan(body, (params(), made.init(params())), None, length=5)
        close(scanned, expected)
        assert state.count == (5 if lower(RULES[name]).counts else None)
        several = jax.tree.map(lambda x: jnp.stack([x, x + 1]), params())
        state, update = jax.vmap(made.init)(several), jax.jit(jax.vmap(made.update))
        for _ in range(5):
            grads = jax.grad(bowl)(several)
            updates, state = update(grads, state, several, **beside(name, grads))
            several = optax.apply_updates(several, updates)
        close(jax.tree.map(lambda x: x[0], several), expected)

    def test_complex_numbers_are_pairs(self, name: str) -> None:
        z = jnp.asarray([1 + 2j, -0.5 + 0.1j], jnp.complex64)
        pairs = jnp.stack([z.real, z.imag])
        made = transformed(name)
        update, of_z, of_pairs = jax.jit(made.update), made.init(z), made.init(pairs)
        for _ in range(3):
            dz, of_z = update(2 * z, of_z, z, **beside(name, 2 * z))
            dpairs, of_pairs = update(2 * pairs, of_pairs, pairs, **beside(name, 2 * pairs))
            assert dz.dtype == jnp.complex64
            z, pairs = z + dz, pairs + dpairs
        close(jnp.stack([z.real, z.imag]), pairs)

    def test_low_types_are_computed_with_in_float32_and_rounded_once(self, name: str) -> None:
        made = transformed(name)
        step = jax.jit(made.update)

        def rounded(tree: Any, dtype: Any) -> Any:
            return jax.tree.map(lambda array: array.astype(dtype), tree)

        for dtype in (jnp.bfloat16, jnp.float16):
            x, g = jnp.asarray([1.0, -0.5, 2.0], dtype), jnp.asarray([0.1, -3.0, 1e-3], dtype)
            low = made.init(x)
            wide = low._replace(slots=rounded(low.slots, jnp.float32))
            given = (g, x, beside(name, g))
            wide_g, wide_x, wide_more = rounded(given, jnp.float32)
            for _ in range(3):
                update, low = step(g, low, x, **given[2])
                exact, wide = step(wide_g, wide, wide_x, **wide_more)
                assert update.dtype == dtype
                assert {slot.dtype for slot in low.slots.values()} <= {jnp.dtype(dtype)}
                np.testing.assert_array_equal(update, exact.astype(dtype))
                jax.tree.map(np.testing.assert_array_equal, low.slots, rounded(wide.slots, dtype))
                wide = wide._replace(slots=rounded(low.slots, jnp.float32))

    def test_is_traced_once_and_donates(self, name: str) -> None:
        made, traces = transformed(name), []

        def step(x: Any, g: Any, state: Any) -> Any:
            traces.append(1)
            updates, state = made.update(g, state, x, **beside(name, g))
            return optax.apply_updates(x, updates), state

        step = jax.jit(step, donate_argnums=(0, 2))
        x, g = jnp.ones(1000), jnp.ones(1000)
        state = made.init(x)
        for _ in range(3):
            before = [x, *jax.tree.leaves(state.slots)]
            places = sorted(array.unsafe_buffer_pointer() for array in before)
            x, state = step(x, g, state)
            assert all(array.is_deleted() for array in before)
            after = [x, *jax.tree.leaves(state.slots)]
            assert sorted(array.unsafe_buffer_pointer() for array in after) == places
        assert len(traces) == 1

    def test_signature_and_docstring_say_what_the_rule_says(self, name: str) -> None:
        made = transformation(RULES[name])
        own = RULES[name].hyperparameters
        defaults = {each.name: each.default for each in inspect.signature(made).parameters.values()}
        assert {each: defaults[each] for each in own} == {each: own[each].default for each in own}
        assert {
            "lr",
            "weight_decay",
            "lr_decay",
            "decoupled_weight_decay",
            "maximize",
            "learning_rate",
        } <= defaults.keys()
        assert (made.__name__, made.__module__) == (name, "steprule.jax")
        assert made.__doc__.startswith(inspect.cleandoc(RULES[name].__doc__))
        assert RULES[name].source in made.__doc__

    def test_state_goes_through_pickle_and_is_found_by_name(self, name: str) -> None:
        state = transformed(name).init(params())
        assert jax.tree.structure(pickle.loads(pickle.dumps(state))) == jax.tree.structure(state)
        assert list(state.slots) == list(RULES[name].slots)
        for slot in RULES[name].slots:
            close(optax.tree.get(state, slot), state.slots[slot])


@pytest.mark.parametrize("name", REPRESENTATIVES)
class TestRulesOfEachKind:
    def test_many_small_steps_as_one(self, name: str) -> None:
        several = optax.MultiSteps(transformed(name), 2)
        close(trained(name, several, params(), 6), _by_means(name, transformed(name), params()))

    def test_a_scheduled_rate_as_part_of_the_state(self, name: str) -> None:
        others = {each: value for each, value in values_of(name).items() if each != "lr"}
        injected = optax.inject_hyperparams(transformation(RULES[name]))(
            **others,
            learning_rate=optax.constant_schedule(values_of(name).get("lr", 1.0)),
        )
        close(trained(name, injected, params()), by_itself(name), SHARES["hyperparameters in float32"])

    def test_in_a_chain_with_a_mask_and_in_parts(self, name: str) -> None:
        alone = by_itself(name)
        close(trained(name, optax.chain(optax.clip(1e9), transformed(name), optax.scale(1.0)), params()), alone)
        mask = {"w": True, "b": [False]}
        masked = trained(
            name,
            optax.chain(
                optax.masked(transformed(name), mask, mask_compatible_extra_args=True),
                optax.masked(optax.set_to_zero(), jax.tree.map(lambda x: not x, mask)),
            ),
            params(),
        )
        close(masked["w"], alone["w"])
        close(masked["b"][0], params()["b"][0])
        parts = optax.multi_transform(
            {"a": transformed(name), "b": transformed(name, maximize=True)},
            {"w": "a", "b": ["b"]},
            mask_compatible_extra_args=True,
        )
        parted = trained(name, parts, params(), 3)
        close(parted["w"], by_itself(name, 3)["w"])
        up = trained(name, transformed(name, maximize=True), params(), 3)["b"][0]
        close(parted["b"][0], up)
        assert np.all(up != params()["b"][0])


def _by_means(name: str, made: Any, start: Any) -> Any:
    """Return where three steps lead, each by the mean of two gradients at one place."""
    state = made.init(start)
    for _ in range(3):
        grads = jax.grad(bowl)(start)
        updates, state = jax.jit(made.update)(grads, state, start, **beside(name, grads))
        start = optax.apply_updates(start, updates)
    return start


def test_every_rule_has_its_function() -> None:
    for name, each in rules.ALL.items():
        assert getattr(ours, name) is transformation(each)
    assert transformation(yogi) is transformation(yogi)


@pytest.mark.parametrize("beta2", [0.999, 0.999999])
def test_scalars_with_the_step_count_keep_their_digits_without_64_bits(beta2: float) -> None:
    """The first steps are where 1 - beta2**t cancels; in float32 it is off by 6e-5 and more."""
    assert not jax.config.jax_enable_x64
    x, g = np.float64(1.0), np.float64(0.3)
    state, made = reference.init(rules.adam, x), ours.adam(lr=0.01, beta2=beta2, eps=0.0)
    found = made.init(jnp.float32(x))
    for _ in range(3):
        new, state = reference.step(rules.adam, x, g, state, lr=0.01, beta2=beta2, eps=0.0)
        update, found = jax.jit(made.update)(jnp.float32(g), found)
        assert abs(update / (new - x) - 1) <= SHARES["compiled otherwise"].amount
        x = new


def test_gradients_flow_through_a_step_to_its_hyperparameters() -> None:
    def loss(lr: Any, beta2: Any) -> Any:
        made, x = ours.adam(lr=lr, beta2=beta2), jnp.asarray([1.0, 2.0])
        state = made.init(x)
        for g in (0.3, -1.0):
            updates, state = made.update(g * x, state, x)
            x = x + updates
        return jnp.sum(x**2)

    with jax.enable_x64(True):
        lr, beta2, h = jnp.float64(0.1), jnp.float64(0.9), 1e-6
        expected = [
            (loss(lr + h, beta2) - loss(lr - h, beta2)) / (2 * h),
            (loss(lr, beta2 + h) - loss(lr, beta2 - h)) / (2 * h),
        ]
    for found in (jax.grad(loss, (0, 1))(0.1, 0.9), jax.jit(jax.grad(loss, (0, 1)))(0.1, 0.9)):
        close(np.array(found), np.array(expected), SHARES["slopes"])


@pytest.mark.parametrize(
    "name", ["momentum", "nesterov", "adagrad", "rmsprop", "rmsprop_nesterov", "delta_bar_delta", "adam"]
)
def test_an_update_that_may_write_over_the_state_needs_no_other_memory(name: str) -> None:
    """XLA would copy a slot where the one that it is written over is still to be read: see `RuleState`."""
    made, x = transformation(RULES[name])(**values_of(name)), jnp.ones((256, 256))
    compiled = jax.jit(made.update, donate_argnums=(1,)).lower(x, made.init(x)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < x.nbytes / 2


def test_a_state_is_a_tree_of_its_slots_by_their_names() -> None:
    state = ours.adam().init({"w": jnp.arange(3.0)})
    assert {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)} == {
        ".count",
        ".slots['exp_avg']['w']",
        ".slots['exp_avg_sq']['w']",
    }
    doubled = jax.tree.map(lambda x: 2 * x, state._replace(count=jnp.int32(3)))
    assert type(doubled.slots) is dict
    assert doubled.count == 6
    anew = RuleState(state.count, dict(reversed(state.slots.items())))
    assert jax.tree.structure(anew) == jax.tree.structure(state)
    two = jax.tree.map(lambda x: jnp.stack([x, x + 1]), state)
    axes = RuleState(0, {"exp_avg": 0, "exp_avg_sq": None})
    mixed = two._replace(slots={**two.slots, "exp_avg_sq": state.slots["exp_avg_sq"]})
    for in_axes in (0, RuleState(0, 0)):
        out = jax.vmap(lambda each: each, in_axes=(in_axes,))(two)
        assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), out, two)))
    assert jax.vmap(lambda each: each.slots["exp_avg_sq"]["w"], in_axes=(axes,))(mixed).shape == (2, 3)
    kept = flax.serialization.from_bytes(two, flax.serialization.to_bytes(two))
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), kept, two)))


def test_steps_are_counted_where_a_step_depends_on_it() -> None:
    x = jnp.ones(3)
    for made in (ours.sgd(0.1), ours.adadelta(), ours.adadelta(lr=jnp.float32(1))):
        assert made.init(x).count is None
    for made in (ours.adam(), ours.sgd(lambda count: 0.1), ours.adadelta(lr_decay=0.1)):
        assert made.init(x).count == 0
        assert made.update(x, made.init(x), x)[1].count == 1
    begun = ours.sgd(0.1).init(x)
    for made in (ours.sgd(lambda count: 0.1), ours.sgd(0.1, lr_decay=0.1)):
        with pytest.raises(
            ValueError, match="the state's count is None, and this step of sgd needs the number of steps"
        ):
            made.update(x, begun, x)
        assert made.update(x, begun._replace(count=jnp.int32(7)), x)[1].count == 8
    assert ours.sgd(0.1).update(x, begun._replace(count=jnp.int32(7)), x)[1].count == 8


def test_a_count_may_come_back_from_a_file_as_a_number() -> None:
    made, x = ours.adam(optax.linear_schedule(0.1, 0.0, 10)), jnp.ones(2)
    state = made.init(x)
    update, new = made.update(x, state._replace(count=3), x)
    expected, _ = made.update(x, state._replace(count=jnp.int32(3)), x)
    assert int(new.count) == 4
    close(update, expected)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.complex64])
def test_injected_hyperparameters_of_low_and_complex_parameters_are_told_their_type(dtype: Any) -> None:
    x, injected = jnp.ones(2, dtype), optax.inject_hyperparams
    for made in injected(ours.adam)(0.1), injected(ours.adam)(optax.constant_schedule(0.1)):
        with pytest.raises((TypeError, ValueError), match="allowed is a (real )?number in"):
            made.init(x)
    made = injected(ours.adam, hyperparam_dtype=jnp.float32)(0.1)
    update, _ = jax.jit(made.update)(x, made.init(x), x)
    close(jnp.real(update), jnp.full(2, -0.1, jnp.real(x).dtype))


def test_a_population_of_hyperparameters() -> None:
    def after(lr: Any) -> Any:
        return trained("adadelta", ours.adadelta(lr=lr), params(), jit=False)["w"]

    several = jax.vmap(after)(jnp.asarray([0.5, 1.0]))
    close(several[1], trained("adadelta", ours.adadelta(), params())["w"])
    assert np.all(several[0] != several[1])


def test_a_schedule_is_asked_for_the_steps_made() -> None:
    asked: list[int] = []

    def schedule(count: Any) -> Any:
        asked.append(int(count))
        return 0.1 * (1 + count)

    made, x = ours.sgd(schedule), jnp.asarray(1.0)
    state, found = made.init(x), []
    for _ in range(3):
        update, state = made.update(jnp.asarray(1.0), state)
        found.append(float(update))
    assert asked == [0, 1, 2]
    close(np.array(found), np.array([-0.1, -0.2, -0.3]))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.array([0.1]), r"an array of float64 of shape \(1,\)"),
        (jnp.full((2, 1), 0.1), r"an array of float32 of shape \(2, 1\)"),
        (jnp.complex64(0.1), r"an array of complex64 of shape \(\)"),
        (0.1j, "0.1j, a complex"),
        ([0.1], r"\[0.1\], a list"),
        (None, "None, a NoneType"),
    ],
)
def test_a_schedule_returns_a_number(value: Any, said: str) -> None:
    allowed = "; allowed is a real number or an array of one without dimensions"
    for name, made in {"lr": ours.sgd(lambda _: value), "beta1": ours.adam(beta1=lambda _: value)}.items():
        x = jnp.ones(3)
        for update in (made.update, jax.jit(made.update)):
            with pytest.raises(TypeError, match=f"the schedule of {name} returned {said}{allowed}"):
                update(x, made.init(x))
    step, x = ours.apply(rules.sgd, lr=lambda count: value), jnp.ones(3)
    with pytest.raises(TypeError, match=f"the schedule of lr returned {said}{allowed}"):
        step(x, x, step.init(x))


def test_gradients_of_integers_are_those_numbers() -> None:
    x, made = {"w": jnp.ones(3)}, ours.adam(0.1)
    updates, _ = made.update({"w": jnp.ones(3, int)}, made.init(x), x)
    expected, _ = made.update(x, made.init(x), x)
    assert updates["w"].dtype == jnp.float32
    close(updates, expected)


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_where_there_is_no_gradient_nothing_steps(name: str) -> None:
    """Equinox has None for the gradient of what it does not differentiate, where a module may have anything."""
    made = transformed(name, weight_decay=0.1)
    grads, still = {"w": jnp.full(3, 0.5)}, {"frozen": None, "activation": None}
    expected, state = made.update(grads, made.init(grads), grads, **beside(name, grads))
    more = {each: {**tree, **still} for each, tree in beside(name, grads).items()}
    start = made.init({**grads, "frozen": jnp.ones(2), "activation": None})
    module = {**grads, "frozen": jnp.ones(2), "activation": jnp.tanh}
    updates, after = made.update({**grads, **still}, start, module, **more)
    close(updates["w"], expected["w"])
    assert updates == {**updates, **still}
    for slot, tree in after.slots.items():
        close(tree["w"], state.slots[slot]["w"])
        assert tree["frozen"] is start.slots[slot]["frozen"]


@pytest.mark.parametrize(
    ("state", "error", "said"),
    [
        (lambda x: optax.adam(0.1).init(x), TypeError, "state is a tuple; allowed for adam is the RuleState that init"),
        (
            lambda x: ours.adadelta().init(x),
            ValueError,
            "state has the slots: acc_delta, square_avg; allowed for adam are",
        ),
        (
            lambda x: ours.sgd(0.1).init(x),
            ValueError,
            "state has the slots: none; allowed for adam are: exp_avg, exp",
        ),
    ],
    ids=["of optax", "of another rule", "of a rule without slots"],
)
def test_a_state_of_another_optimizer_is_refused(state: Any, error: Any, said: str) -> None:
    x = {"w": jnp.ones(3)}
    made, step = ours.adam(0.1), ours.apply(rules.adam, lr=0.1)
    for update in (lambda: made.update(x, state(x), x), lambda: step(x, x, state(x))):
        with pytest.raises(error, match=said):
            update()


@pytest.mark.parametrize(
    "value", [0.1, np.float32(0.1), np.array(0.1), jnp.float32(0.1)], ids=lambda value: str(type(value))
)
def test_a_schedule_may_return_any_kind_of_number(value: Any) -> None:
    made, x = ours.sgd(lambda count: value), jnp.ones(3)
    close(jax.jit(made.update)(x, made.init(x))[0], jnp.full(3, -0.1))


@rule
def _newton(g, h, g2, *, lr: NonNegative = 1.0):
    return -lr * g * h + g2


@rule
def _floored(g, *, lr: NonNegative = 0.1, eps: Positive = 0.3):
    return -lr * g / sqrt(maximum(eps, g * g))


@rule
def _chosen(g, *, lr: NonNegative = 0.1, eps: Positive = 0.7):
    return -lr * where(eps > 0.5, g, 2 * g)


@rule
def _chosen_with_the_count(g, t, *, lr: NonNegative = 0.1, warm: Positive = 0.7):
    return -lr * where(warm > 0.5, 1 / t, 1.0) * g


@rule
def _limited(g, t, *, lr: NonNegative = 0.1, warm: Positive = 0.7):
    return -lr * where(warm > g * g, g, minimum(warm, -g)) * where(warm < t, 2.0, maximum(0.5, warm))


@pytest.mark.parametrize("made", [_floored, _chosen, _chosen_with_the_count, _limited], ids=lambda made: made.name)
class TestHyperparametersBeforeArrays:
    """Where no schedule and no trace gives a hyperparameter, it is a number of NumPy's before what JAX traces."""

    def test_in_compiled_steps(self, made: Rule) -> None:
        x, g = np.array([1.0, 0.1]), np.array([1.0, -0.2])
        new, _ = reference.step(made, x, g, reference.init(made, x))
        transformed, start = transformation(made)(), jnp.asarray(x, jnp.float32)
        updates, _ = jax.jit(transformed.update)(jnp.asarray(g, jnp.float32), transformed.init(start), start)
        close(start + updates, new)
        for dtype in (jnp.float32, jnp.complex64):
            step, start = ours.apply(made, donate=False), jnp.asarray(x, dtype)
            close(step(start, jnp.asarray(g, dtype), step.init(start))[0].real, new)

    def test_in_derivatives(self, made: Rule) -> None:
        x = jnp.asarray([1.0, 0.1])

        def moved(lr: Any) -> Any:
            transformed = transformation(made)(lr=lr)
            return jnp.sum(transformed.update(2 * x, transformed.init(x), x)[0])

        close(jax.jit(jax.grad(moved))(0.1), (moved(0.2) - moved(0.1)) / 0.1, SHARES["slopes"])


class TestInputs:
    def test_are_arguments_of_update(self) -> None:
        made, x = transformation(_newton)(), {"a": jnp.ones(2)}
        update, _ = made.update(x, made.init(x), x, h={"a": jnp.full(2, 3.0)}, g2={"a": jnp.full(2, 0.5)}, loss=1.0)
        close(update, {"a": jnp.full(2, -2.5)})

    @pytest.mark.parametrize("missing", ["h", "g2"])
    def test_a_missing_one_is_named(self, missing: str) -> None:
        made, x = transformation(_newton)(), jnp.ones(2)
        given = {"h": x, "g2": x}
        del given[missing]
        said = rf"^rule _newton takes {missing}, and none was given; hand it in by name: {missing}="
        with pytest.raises(TypeError, match=said):
            made.update(x, made.init(x), x, **given)
        step = ours.apply(_newton)
        with pytest.raises(TypeError, match=said):
            step(x, x, step.init(x), **given)

    def test_those_of_other_transformations_may_have_any_name(self) -> None:
        made, x, g = ours.sgd(0.5, weight_decay=0.5), jnp.ones(3), jnp.full(3, 2.0)
        more = {"g": 3.0, "x": jnp.full(3, 9.0), "value": 1.0}
        close(made.update(g, made.init(x), x, **more)[0], jnp.full(3, -1.25))

    def test_parameters_are_asked_for_where_the_step_reads_them(self) -> None:
        made = ours.adam(weight_decay=0.1)
        with pytest.raises(ValueError, match="the step of adam reads the parameters; update\\(\\) needs params"):
            made.update(jnp.ones(2), made.init(jnp.ones(2)))
        close(ours.sgd(0.1).update(jnp.ones(2), ours.sgd(0.1).init(jnp.ones(2)))[0], jnp.full(2, -0.1))


class TestErrors:
    @pytest.mark.parametrize(
        ("made", "values", "error", "said"),
        [
            (ours.adadelta, {"rho": 1.5}, ValueError, r"rho is 1.5; allowed is a number in \[0, 1\)"),
            (ours.adam, {"lr": -1}, ValueError, r"lr is -1.0; allowed is a number in \[0, inf\)"),
            (ours.adam, {"lr": jnp.float32(-1)}, ValueError, r"lr is -1.0; allowed is a number in \[0, inf\)"),
            (ours.adam, {"eps": "small"}, TypeError, "eps is 'small', a str"),
            (ours.adam, {"lr": jnp.ones(3)}, TypeError, r"lr is an array of shape \(3,\)"),
            (
                ours.adam,
                {"lr": jnp.complex64(1)},
                TypeError,
                r"lr is an array of complex64; allowed is a real number in \[0",
            ),
            (ours.sgd, {}, TypeError, r"sgd needs lr, a number in \[0, inf\); it has no default"),
            (ours.adam, {"lr": 0.1, "learning_rate": 0.2}, TypeError, "lr and learning_rate are both given to adam"),
            (ours.adam, {"momentum": 0.9}, TypeError, "momentum"),
            (ours.adam, {"maximize": "no"}, ValueError, "maximize is 'no'; allowed is False or True"),
            (ours.adam, {"decoupled_weight_decay": 0.01}, ValueError, "decoupled_weight_decay is 0.01; allowed is"),
        ],
    )
    def test_name_the_argument_the_value_and_what_is_allowed(
        self, made: Any, values: dict[str, Any], error: type[Exception], said: str
    ) -> None:
        with pytest.raises(error, match=said):
            made(**values)

    def test_integers_are_no_parameters(self) -> None:
        with pytest.raises(TypeError, match="a parameter is an array of int32; allowed are floating-point and complex"):
            ours.adam().init(jnp.arange(3))

    @pytest.mark.parametrize("leaf", [jnp.tanh, "float32"], ids=["function", "word"])
    def test_what_is_no_array_is_no_parameter(self, leaf: Any) -> None:
        said = (
            f"a parameter is {leaf!r}, a {type(leaf).__name__}; allowed are arrays: of a module of Equinox, eqx.filter"
        )
        with pytest.raises(TypeError, match=re.escape(said)):
            ours.adam().init({"w": jnp.ones(3), "activation": leaf})

    def test_arrays_of_one_place_are_alike(self) -> None:
        state = ours.adam().init(jnp.ones(3))
        with pytest.raises(ValueError, match=r"exp_avg has an array of shape \(3,\) where g has one of shape \(1,\)"):
            ours.adam().update(jnp.ones(1), state)
        with pytest.raises(TypeError, match="exp_avg has an array of float32 where g has one of complex64"):
            ours.adam().update(jnp.ones(3, jnp.complex64), state)

    def test_defaults_are_of_arguments_that_there_are(self) -> None:
        with pytest.raises(TypeError, match="adam has no argument 'momentum' to give a default"):
            transformation(rules.adam, momentum=0.9)()

    def test_a_missing_package_is_named_with_what_installs_it(self) -> None:
        code = "import sys; sys.modules['optax'] = None\nimport steprule.jax"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stderr.splitlines()[-1] == (
            "ModuleNotFoundError: steprule.jax needs optax: pip install 'steprule[jax]'"
        )


_ON_TWO_DEVICES = """
import json, sys
import jax, jax.numpy as jnp, numpy as np, optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import steprule.jax as ours
from steprule import rules
from steprule.jax import kernel
assert jax.device_count() == 2
mesh = Mesh(np.array(jax.devices()), ("x",))
shared = NamedSharding(mesh, PartitionSpec("x"))
start, g = jnp.arange(8.0), jnp.linspace(-1.0, 1.0, 8)
h, g2 = jnp.full(8, 2.0), 2 * g * g
for name, values in json.loads(sys.argv[1]).items():
    rule = rules.ALL[name]
    more = {each: array for each, array in {"h": h, "g2": g2}.items() if each in rule.inputs}
    made, step = ours.transformation(rule)(**values), ours.apply(rule, donate=False, **values)
    update, _ = jax.jit(made.update)(g, made.init(start), start, **more)
    x, shared_g, shared_more = jax.device_put((start, g, more), shared)
    state = made.init(x)
    assert all(slot.sharding == shared for slot in state.slots.values())
    found, _ = jax.jit(made.update)(shared_g, state, x, **shared_more)
    assert found.sharding.is_equivalent_to(shared, 1)
    np.testing.assert_array_equal(found, update)
    assert not kernel.serves([x])
    new, _ = step(x, shared_g, step.init(x), **shared_more)
    np.testing.assert_allclose(new, start + update, rtol=1e-6)
    text = step._compiled.lower(False, x, shared_g, step.init(x), shared_more).compile().as_text()
    assert "all-gather" not in text and "custom-call" not in text
    pairs, pairs_g, pairs_more = jax.tree.map(lambda array: array.reshape(2, 4), (start, g, more))
    by_device, _ = jax.pmap(made.update)(pairs_g, jax.pmap(made.init)(pairs), pairs, **pairs_more)
    np.testing.assert_array_equal(by_device.reshape(8), update)
"""


def test_on_two_devices_with_sharding_and_pmap() -> None:
    # Without a slow start, so that the first step moves.
    values = {name: values_of(name) | ({"slow_start": 0} if name == "vsgd" else {}) for name in REPRESENTATIVES}
    command = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", _ON_TWO_DEVICES]
    command.append(json.dumps(values))
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_argument_that_there_is_not_is_told_with_those_that_there_are() -> None:
    with pytest.raises(
        TypeError, match=r"^adam: got an unexpected keyword argument 'betas'; it takes: lr, beta1, beta2"
    ):
        ours.adam(betas=(0.9, 0.99))
