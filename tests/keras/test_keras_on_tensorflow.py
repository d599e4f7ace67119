"""What only TensorFlow has: functions and gradients traced once, mirrored variables, gradients that name rows."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from tests.conformance.cases import RULES, beside, hyper
from tests.conformance.tolerances import ULPS, ulps
from tests.keras.digits_model import compiled, data
from tests.keras.runs import folds, named, values_of

import steprule.keras as ours

if keras.config.backend() != "tensorflow":
    pytest.skip("needs TensorFlow as the backend", allow_module_level=True)

import tensorflow as tf

ROWS, WIDTH, STEPS = 40, 4, 12
CAN = ["sgd", "adagrad", "rmsprop", "adadelta"]


def made(name: str, **more: Any) -> Any:
    cls = ours.optimizer(RULES[name])
    return cls(**{**named(cls, hyper(name)), **more})


class Rows:
    """A table whose gradients name a few of its rows, some twice, and others not for a while."""

    def __init__(self, optimizer: Any) -> None:
        start = np.random.default_rng(0).standard_normal((ROWS, WIDTH))
        self.table = keras.Variable(start, dtype="float32")
        self.optimizer = optimizer
        optimizer.build([self.table])
        more = beside(optimizer.rule, np.random.default_rng(2).standard_normal((ROWS, WIDTH)))
        self.more = {name: [tf.constant(array, tf.float32)] for name, array in more.items()}

    def step(self, numbers: Any, values: Any) -> None:
        self.optimizer.apply([tf.IndexedSlices(values, numbers, (ROWS, WIDTH))], [self.table], **self.more)

    def dense_step(self, numbers: Any, values: Any) -> None:
        self.optimizer.apply([tf.math.unsorted_segment_sum(values, numbers, ROWS)], [self.table], **self.more)

    def found(self) -> list[Any]:
        self.optimizer.catch_up()
        return [values_of(each) for each in (self.table, *self.optimizer._slots_of(0).values())]


def gradients() -> list[tuple[Any, Any]]:
    rng = np.random.default_rng(1)
    made = []
    for number in range(STEPS):
        numbers = rng.integers(0, ROWS // 2 if number < 8 else ROWS, 7)
        numbers[1] = numbers[0]
        made.append((tf.constant(numbers), tf.constant(rng.standard_normal((7, WIDTH)), tf.float32)))
    return made


def alike(found: list[Any], expected: list[Any]) -> None:
    allowed = ULPS["dense run"]
    for one, other in zip(found, expected, strict=True):
        assert ulps(one, other, "float32", np.abs(other).max()).max() <= allowed.amount * STEPS, allowed.reason


@pytest.mark.parametrize("how", ["eager", "traced", "compiled", "some dense"])
@pytest.mark.parametrize("weight_decay", [None, 0.03])
@pytest.mark.parametrize("name", CAN)
def test_steps_by_rows_come_to_what_dense_steps_do(name: str, weight_decay: float | None, how: str):
    by_rows, dense = (Rows(made(name, weight_decay=weight_decay)) for _ in range(2))
    step = by_rows.step if how == "eager" else tf.function(by_rows.step, jit_compile=how == "compiled")
    for number, (numbers, values) in enumerate(gradients()):
        if how == "some dense" and number in (4, 9):
            by_rows.dense_step(numbers, values)
        else:
            step(numbers, values)
        dense.dense_step(numbers, values)
    alike(by_rows.found(), dense.found())


def test_rows_that_are_not_named_are_not_touched():
    rows = Rows(made("adadelta"))
    for numbers, values in gradients():
        rows.step(numbers, values)
    slot = rows.optimizer._slots_of(0)["square_avg"]
    named_last = set(gradients()[-1][0].numpy())
    before = values_of(slot)
    rows.optimizer.catch_up()
    changed = np.flatnonzero((values_of(slot) != before).any(axis=1))
    assert len(changed)
    assert not named_last & set(changed)


@pytest.mark.parametrize("name", sorted(set(RULES) - set(CAN)))
def test_a_rule_that_moves_other_rows_refuses_or_is_dense_where_asked(name: str):
    rows = Rows(made(name))
    with pytest.raises(TypeError, match='cannot take a gradient that names rows .* or choose sparse="dense"'):
        rows.step(*gradients()[0])
    by_rows, dense = Rows(made(name, sparse="dense")), Rows(made(name))
    for numbers, values in gradients():
        by_rows.step(numbers, values)
        dense.dense_step(numbers, values)
    alike(by_rows.found(), dense.found())


@pytest.mark.parametrize("compiles", [False, True])
@pytest.mark.parametrize("sparse", ["exact", "dense"])
@pytest.mark.parametrize("how", ["clipnorm", "clipvalue", "global_clipnorm"])
def test_rows_that_are_named_twice_are_clipped_as_the_dense_gradient_is(how: str, sparse: str, compiles: bool):
    by_rows, dense = Rows(made("sgd", sparse=sparse, **{how: 0.7})), Rows(made("sgd", **{how: 0.7}))
    step = tf.function(by_rows.step, jit_compile=True) if compiles else by_rows.step
    for numbers, values in gradients():
        step(numbers, values)
        dense.dense_step(numbers, values)
    alike(by_rows.found(), dense.found())


def test_rows_that_are_named_twice_step_by_their_sum_and_otherwise_in_keras():
    values = {"learning_rate": 0.1, "rho": 0.8, "epsilon": 1e-3}
    runs = [Rows(ours.RMSProp(**values)) for _ in range(2)]
    theirs = [keras.Variable(values_of(runs[0].table)) for _ in range(2)]
    optimizers = [keras.optimizers.RMSprop(**values) for _ in range(2)]
    for numbers, rows in gradients():
        named_rows = tf.IndexedSlices(rows, numbers, tf.constant((ROWS, WIDTH), numbers.dtype))
        runs[0].step(numbers, rows)
        runs[1].dense_step(numbers, rows)
        optimizers[0].apply([named_rows], theirs[:1])
        optimizers[1].apply([tf.convert_to_tensor(named_rows)], theirs[1:])
    alike(runs[0].found(), runs[1].found())
    alike(runs[0].found()[:1], [values_of(theirs[1])])
    with pytest.raises(AssertionError):
        alike([values_of(theirs[0])], [values_of(theirs[1])])


def test_a_possible_division_by_zero_is_refused():
    with pytest.raises(ValueError, match="it may divide by 0"):
        Rows(made("adadelta", epsilon=0.0)).step(*gradients()[0])


def test_rows_after_a_compiled_dense_step_are_refused():
    rows = Rows(made("adadelta"))
    tf.function(rows.dense_step)(*gradients()[0])
    with pytest.raises(RuntimeError, match="after a step with a dense one was compiled"):
        rows.step(*gradients()[1])


def test_what_is_saved_is_up_to_date():
    rows, dense = Rows(made("adadelta")), Rows(made("adadelta"))
    for numbers, values in gradients():
        rows.step(numbers, values)
        dense.dense_step(numbers, values)
    store: dict[str, Any] = {}
    rows.optimizer.save_own_variables(store)
    alike(list(store.values())[2:], dense.found()[1:])


def test_who_asks_for_the_variables_gets_and_sets_what_is_up_to_date():
    """As `get_state_tree` and `set_state_tree` of a model do, a run goes back to where it was."""
    rows = Rows(made("adadelta"))
    steps = gradients()
    for numbers, values in steps[:6]:
        rows.step(numbers, values)
    kept = [each.numpy() for each in (rows.table, *rows.optimizer.variables)]
    for numbers, values in steps[6:]:
        rows.step(numbers, values)
    expected = rows.found()
    for numbers, values in steps[:3]:
        rows.step(numbers, values)
    for each, before in zip((rows.table, *rows.optimizer.variables), kept, strict=True):
        each.assign(before)
    for numbers, values in steps[6:]:
        rows.step(numbers, values)
    for one, other in zip(rows.found(), expected, strict=True):
        np.testing.assert_array_equal(one, other)


class TestACheckpointOfTensorFlow:
    """It holds the slots as they are, rows behind and all, and a restored optimizer goes on from there."""

    def rows(self) -> Rows:
        return Rows(ours.RMSProp(rho=0.5, learning_rate=0.1))

    def one_row_often(self, first: Rows) -> None:
        for numbers in ([*range(ROWS)], [1], [1], [1], [1], [1]):
            first.step(tf.constant(numbers), tf.ones((len(numbers), WIDTH)))

    def written(self, first: Rows, path: Any) -> str:
        return tf.train.Checkpoint(optimizer=first.optimizer, table=first.table.value).write(str(path / "all"))

    def restored(self, path: str) -> Rows:
        second = self.rows()
        tf.train.Checkpoint(optimizer=second.optimizer, table=second.table.value).read(path).assert_consumed()
        return second

    def test_says_which_rows_are_behind(self, tmp_path: Any):
        first = self.rows()
        self.one_row_often(first)
        second = self.restored(self.written(first, tmp_path))
        for one, other in zip(first.found(), second.found(), strict=True):
            np.testing.assert_array_equal(one, other)

    def test_says_so_to_what_is_built_later(self, tmp_path: Any):
        first, second = self.rows(), ours.RMSProp(rho=0.5, learning_rate=0.1)
        self.one_row_often(first)
        path = self.written(first, tmp_path)
        tf.train.Checkpoint(optimizer=second).read(path)
        second.build([first.table])
        second.catch_up()
        np.testing.assert_array_equal(values_of(second._slots_of(0)["square_avg"]), first.found()[1])

    @pytest.mark.parametrize("compiles", [False, True])
    def test_is_caught_up_by_a_dense_step(self, tmp_path: Any, compiles: bool):
        first = self.rows()
        self.one_row_often(first)
        second = self.restored(self.written(first, tmp_path))
        last = tf.constant([3]), tf.ones((1, WIDTH))
        first.dense_step(*last)
        (tf.function(second.dense_step) if compiles else second.dense_step)(*last)
        alike(second.found(), first.found())

    def test_takes_back_what_came_after_it(self, tmp_path: Any):
        first = self.rows()
        self.one_row_often(first)
        path = self.written(first, tmp_path)
        second = self.restored(path)
        self.one_row_often(second)
        tf.train.Checkpoint(optimizer=second.optimizer, table=second.table.value).read(path)
        for one, other in zip(first.found(), second.found(), strict=True):
            np.testing.assert_array_equal(one, other)


def embedding(optimizer: Any) -> keras.Model:
    keras.utils.set_random_seed(0)
    made = keras.Sequential(
        [keras.Input((64,)), keras.layers.Embedding(17, 4), keras.layers.Flatten(), keras.layers.Dense(10)]
    )
    made.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return made


def test_an_embedding_is_fitted_by_its_rows():
    images, targets = data()
    levels = (images * 16).astype("int32")  # a row for each of the 17 levels of grey
    models = [embedding(ours.Adadelta(sparse=sparse)) for sparse in ("exact", "dense")]
    for each in models:
        each.fit(levels, targets, batch_size=64, epochs=2, shuffle=False, verbose=0)
        assert each.evaluate(levels, targets, verbose=0)[1] > 0.8
    assert models[0].optimizer._behind
    assert not models[1].optimizer._behind
    for one, other in zip(models[0].trainable_variables, models[1].trainable_variables, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=0, atol=2e-3)


@pytest.mark.parametrize("name", ["adadelta", "adam", "nesterov"])
def test_a_loop_of_ones_own(name: str):
    images, targets = data()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def run(wrap: Any) -> Any:
        model, optimizer = compiled("sgd"), made(name)

        def step(x: Any, y: Any) -> None:
            with tf.GradientTape() as tape:
                value = loss(y, model(x))
            weights = model.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(value, weights), weights, strict=True))

        wrapped = wrap(step)
        for number in range(5):
            wrapped(images[number * 64 :][:64], targets[number * 64 :][:64])
        assert int(optimizer.iterations) == 5
        return model.trainable_variables

    for one, other in zip(run(lambda step: step), run(tf.function), strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", CAN)
def test_variables_of_tensorflow_itself(name: str):
    """Those of a `tf.Module` step as Keras's own do, by rows too."""
    own, optimizer = Rows(made(name)), made(name)
    table = tf.Variable(own.table.numpy())
    for numbers, values in gradients():
        own.step(numbers, values)
        optimizer.apply([tf.IndexedSlices(values, numbers, (ROWS, WIDTH))], [table])
    optimizer.catch_up()
    found = [table.numpy(), *map(values_of, optimizer._slots_of(0).values())]
    for one, other in zip(found, own.found(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.filterwarnings("ignore::UserWarning")  # TensorFlow's, of its own threads and devices
@pytest.mark.parametrize("name", ["adadelta", "adam"])
def test_two_replicas_train_as_one(name: str):
    images, targets = data()
    devices = [f"CPU:{number}" for number in range(2)]
    strategy = tf.distribute.MirroredStrategy(devices, cross_device_ops=tf.distribute.ReductionToOneDevice())
    assert strategy.num_replicas_in_sync == 2
    with strategy.scope():
        mirrored = compiled(made(name, weight_decay=1e-3))
    alone = compiled(made(name, weight_decay=1e-3))
    for each in (mirrored, alone):
        each.fit(images[:1792], targets[:1792], batch_size=64, epochs=1, shuffle=False, verbose=0)
    for one, other in zip(mirrored.trainable_variables, alone.trainable_variables, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=0, atol=2e-3)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_two_replicas_compute_the_scalars_each_on_its_device(monkeypatch: pytest.MonkeyPatch):
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice())
    with strategy.scope():
        variables = [keras.Variable(np.ones(3, "float32")) for _ in range(4)]
        optimizer = ours.Adam(0.1)
        optimizer.build(variables)

    @tf.function
    def step() -> None:
        optimizer.apply([tf.ones(3) for _ in variables], variables)

    made = folds(monkeypatch)
    strategy.run(step)
    assert len(made) == 2
    for variable in variables:
        np.testing.assert_allclose(values_of(variable), 0.9, rtol=1e-6)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_two_replicas_fit_an_embedding_by_its_rows():
    images, targets = data()
    levels = (images[:1792] * 16).astype("int32")
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice())
    with strategy.scope():
        mirrored = embedding(ours.Adadelta())
    alone = embedding(ours.Adadelta())
    for each in (mirrored, alone):
        each.fit(levels, targets[:1792], batch_size=64, epochs=1, shuffle=False, verbose=0)
    # After `fit`, every row is up to date.
    for one, other in zip(mirrored.optimizer.variables[2:], alone.optimizer.variables[2:], strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=0, atol=2e-3)
