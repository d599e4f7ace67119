"""What the sources say of their rules, worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from tests.conformance.tolerances import SHARES, ULPS, ulps

from steprule import reference, rules

GRADIENTS = [-300.0, -1.0, -1e-3, 1e-9, 0.02, 1.0, 7e4]


def close(found: object, expected: object, beside: object = 0.0) -> bool:
    return bool(np.all(ulps(found, expected, "float64", beside) <= ULPS["equation"].amount))


def run(rule, gradient: Callable, x: object, steps: int, **hyper) -> tuple[list, dict]:
    """Return the parameter after each step of descent on `gradient` and the last state."""
    x, trajectory = np.asarray(x, float), []
    state = reference.init(rule, x)
    for _ in range(steps):
        x, state = reference.step(rule, x, gradient(x), state, **hyper)
        trajectory.append(x)
    return trajectory, state


def along(gradient: object) -> Callable:
    """A slope that is the same everywhere."""
    return lambda x: np.broadcast_to(gradient, np.shape(x)).astype(float)


# What the sources print as defaults; None where the user must choose.
DEFAULTS = {
    "sgd": {"lr": None},
    "momentum": {"lr": None, "rho": 0.9},
    "nesterov": {"lr": None, "rho": 0.9},
    "adagrad": {"lr": 0.01, "eps": 1e-7},
    "rmsprop": {"lr": 1e-3, "rho": 0.9, "eps": 1e-6},
    "rmsprop_nesterov": {"lr": 1e-3, "rho": 0.9, "alpha": 0.9, "eps": 1e-6},
    "adadelta": {"rho": 0.95, "eps": 1e-6},
    "adam": {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
    "delta_bar_delta": {"initial_rate": None, "kappa": None, "phi": None, "theta": 0.7},
    "diagonal_newton": {"mu": None},
    "vsgd": {"batch_size": 1, "slow_start": 60, "overestimate": 1},
    "vsgd_fd": {"batch_size": 1, "slow_start": 60, "overestimate": 1, "outlier": 2},
}


@pytest.mark.parametrize("name", rules.ALL)
def test_defaults_are_those_of_the_sources(name: str):
    assert {each.name: each.default for each in rules.ALL[name].hyperparameters.values()} == DEFAULTS[name]


@pytest.mark.parametrize("name", rules.ALL)
def test_every_rule_names_its_source(name: str):
    assert rules.ALL[name].source
    assert rules.ALL[name].url.startswith("https://")


@pytest.mark.parametrize("name", ["sgd", "adagrad", "rmsprop", "adadelta"])
def test_without_gradient_nothing_moves_and_slots_only_shrink(name: str):
    rule = rules.ALL[name]
    slots = [2.0 + place for place in range(len(rule.slots))]
    hyper = {each.name: each.default or 0.1 for each in rule.hyperparameters.values()}
    returned = rule(0.0, *slots, **hyper)
    dx, *new = returned if isinstance(returned, tuple) else (returned,)
    decay = hyper.get("rho", 1.0)
    assert dx == 0
    assert new == [decay * slot for slot in slots]


def test_sgd_step_is_the_rate_times_the_gradient():
    assert [rules.sgd(g, lr=0.1) for g in GRADIENTS] == [-(0.1 * g) for g in GRADIENTS]


def test_momentum_velocity_is_a_geometric_sum_that_approaches_the_gradient_over_one_minus_rho():
    rho, lr, g = 0.9, 0.1, np.array([3.0, -0.5])
    _, state = run(rules.momentum, along(g), [0.0, 0.0], 20, lr=lr, rho=rho)
    assert close(state["velocity"], -lr * g * (1 - rho**20) / (1 - rho))
    _, state = run(rules.momentum, along(g), [0.0, 0.0], 1000, lr=lr, rho=rho)
    assert close(state["velocity"], -lr * g / (1 - rho))


def test_momentum_keeps_the_rate_that_past_steps_were_made_with():
    _, velocity = rules.momentum(1.0, 0.0, lr=0.1, rho=0.5)
    dx, _ = rules.momentum(0.0, velocity, lr=0.0, rho=0.5)
    assert dx == 0.5 * -0.1


@pytest.mark.parametrize("name", ["momentum", "nesterov"])
def test_without_decay_momentum_is_plain_descent(name: str):
    plain, _ = run(rules.sgd, np.cos, GRADIENTS, 5, lr=0.3)
    found, _ = run(rules.ALL[name], np.cos, GRADIENTS, 5, lr=0.3, rho=0.0)
    assert np.array_equal(found, plain)


def test_rmsprop_nesterov_without_momentum_is_rmsprop():
    plain, _ = run(rules.rmsprop, np.cos, GRADIENTS, 5)
    found, _ = run(rules.rmsprop_nesterov, np.cos, GRADIENTS, 5, alpha=0.0)
    assert np.array_equal(found, plain)


def _curved(x: np.ndarray) -> np.ndarray:
    return np.array([1.0, 20.0, 0.1]) * x + np.sin(x)


def test_nesterov_stores_the_interim_point_of_sutskevers_two_point_form():
    lr, rho, start = 0.02, 0.9, np.array([1.0, -2.0, 3.0])
    theta, velocity, interim = start, np.zeros(3), []
    for _ in range(30):
        velocity = rho * velocity - lr * _curved(theta + rho * velocity)  # eq. 3
        theta = theta + velocity  # eq. 4
        interim.append(theta + rho * velocity)
    found, state = run(rules.nesterov, _curved, start, 30, lr=lr, rho=rho)
    assert close(found, interim, beside=start)
    assert close(state["velocity"], velocity, beside=start)


def test_rmsprop_nesterov_stores_the_interim_point_of_algorithm_8_6():
    lr, rho, alpha, eps, start = 0.01, 0.9, 0.8, 1e-6, np.array([1.0, -2.0, 3.0])
    theta, velocity, r, interim = start, np.zeros(3), np.zeros(3), []
    for _ in range(30):
        g = _curved(theta + alpha * velocity)
        r = rho * r + (1 - rho) * g**2
        velocity = alpha * velocity - lr / np.sqrt(r + eps) * g
        theta = theta + velocity
        interim.append(theta + alpha * velocity)
    found, state = run(rules.rmsprop_nesterov, _curved, start, 30, lr=lr, rho=rho, alpha=alpha, eps=eps)
    assert close(found, interim, beside=start)
    assert close(state["velocity"], velocity, beside=start)


def test_adagrad_step_shrinks_with_the_root_of_the_number_of_equal_gradients():
    g = np.array(GRADIENTS)
    found, state = run(rules.adagrad, along(g), np.zeros(7), 25, lr=0.1, eps=0.0)
    assert close(state["sum"], 25 * g**2)
    assert close(found[24] - found[23], -0.1 / math.sqrt(25) * np.sign(g), beside=found[24])


def test_rmsprop_step_on_a_constant_slope_approaches_the_rate():
    g, eps, lr = np.array(GRADIENTS), 1e-4, 0.1
    _, state = run(rules.rmsprop, along(g), np.zeros(7), 1000, lr=lr, rho=0.9, eps=eps)
    assert close(state["square_avg"], g**2)
    dx, _ = rules.rmsprop(g, state["square_avg"], lr=lr, rho=0.9, eps=eps)
    assert close(dx, -lr * g / np.sqrt(g**2 + eps))


def test_first_rmsprop_step_is_longer_than_the_rate_for_the_average_begins_at_zero():
    g, lr, eps = np.array([-300.0, 7e4]), 1e-3, 1e-6
    found, _ = run(rules.rmsprop, along(g), np.zeros(2), 1, lr=lr, eps=eps)
    assert close(found[0], -lr * g / np.sqrt(0.1 * g**2 + eps))
    assert np.round(np.abs(found[0]) / lr, 1).tolist() == [3.2, 3.2]


def test_first_adadelta_step():
    g, rho, eps = np.array(GRADIENTS), 0.95, 1e-6
    found, _ = run(rules.adadelta, along(g), np.zeros(7), 1, rho=rho, eps=eps)
    assert close(found[0], -math.sqrt(eps) / np.sqrt((1 - rho) * g**2 + eps) * g)


def test_adadelta_average_of_equal_gradients_is_a_geometric_sum():
    g, rho = np.array(GRADIENTS), 0.95
    _, state = run(rules.adadelta, along(g), np.zeros(7), 30, rho=rho)
    assert close(state["square_avg"], (1 - rho**30) * g**2)


def test_half_of_an_average_is_forgotten_after_less_than_seven_steps_and_not_ten():
    # Dive into Deep Learning 12.9.2 calls 10 the half-life at rho 0.9.
    left, shares = 1.0, []
    for _ in range(10):
        _, left, _ = rules.adadelta(0.0, left, 0.0, rho=0.9)
        shares.append(left)
    assert shares[5] > 0.5 > shares[6]
    assert round(math.log(2) / math.log(1 / 0.9), 1) == 6.6
    assert shares[9] == pytest.approx(1 / 3, abs=0.02)


def test_adadelta_step_on_a_constant_slope_approaches_the_gradient_itself():
    # acc (1 - g^2 / (g^2 + eps)) = eps g^2 / (g^2 + eps) has the one solution acc = g^2, reached slowly where eps is small.
    g, eps = np.array([0.5, -1.0, 2.0]), 1.0
    found, state = run(rules.adadelta, along(g), np.zeros(3), 1000, rho=0.5, eps=eps)
    assert close(state["acc_delta"], g**2)
    assert close(found[-1] - found[-2], -g, beside=found[-1])


def test_adadelta_steps_of_equal_gradients_do_not_depend_on_their_size():
    small, large, eps, rho, steps = 1e-2, 1e4, 1e-14, 0.95, 50
    found, _ = run(rules.adadelta, along([small, large]), [0.0, 0.0], steps, rho=rho, eps=eps)
    # Each step is off by the share that eps has in the average, which is least at first.
    share = eps / ((1 - rho) * small**2)
    assert abs(found[-1][0] / found[-1][1] - 1) <= steps * share


def _descent(rule, scale: float, **hyper) -> np.ndarray:
    return np.array(run(rule, lambda x: scale * _curved(x), [1.0, -2.0, 3.0], 200, **hyper)[0])


def test_scaling_the_loss_leaves_adadeltas_trajectory_and_not_that_of_sgd():
    farthest = np.max(np.abs(_descent(rules.adadelta, 1.0) - _descent(rules.adadelta, 1000.0)))
    way = np.max(np.abs(_descent(rules.adadelta, 1.0) - [1.0, -2.0, 3.0]))
    assert farthest <= SHARES["nearly unchanged"].amount * way
    sgd = np.abs(_descent(rules.sgd, 1.0, lr=1e-4)[-1] - _descent(rules.sgd, 1000.0, lr=1e-4)[-1])
    assert np.min(sgd) > 100 * farthest


@pytest.mark.parametrize("name", ["adagrad", "rmsprop", "rmsprop_nesterov", "adam"])
def test_without_eps_the_loss_has_no_scale(name: str):
    # By a power of two, so that every product is exact.
    assert np.array_equal(_descent(rules.ALL[name], 1.0, eps=0.0), _descent(rules.ALL[name], 2.0**20, eps=0.0))


@pytest.mark.parametrize(("name", "power"), [("sgd", 1), ("adagrad", 0), ("rmsprop", 0), ("adam", 0), ("adadelta", -1)])
def test_units_of_an_update_are_those_of_zeilers_section_3_2(name: str, power: int):
    # x in units of 1/4, so that g is four times as large; eq. 11 for SGD, "unitless", and eq. 12.
    rule, unit = rules.ALL[name], 4.0
    powers = {"sum": 2, "square_avg": 2, "exp_avg": 1, "exp_avg_sq": 2, "acc_delta": -2}
    given = [1.5 if each == "g" else 3 for each in rule.inputs]
    scaled = [each * unit if each == 1.5 else each for each in given]
    hyper = {each.name: each.default or 0.1 for each in rule.hyperparameters.values()}
    hyper |= {"eps": 0.0} if "eps" in hyper else {}
    returned = rule(*given, *(0.3 for _ in rule.slots), **hyper)
    other = rule(*scaled, *(0.3 * unit ** powers[slot] for slot in rule.slots), **hyper)
    dx, dy = (each[0] if isinstance(each, tuple) else each for each in (returned, other))
    assert dy == dx * unit**power


def test_a_sudden_gradient_makes_no_long_step_and_many_short_ones():
    rho, usual, slots = 0.95, 0.0, [0.0, 0.0]
    for count in range(1000):
        usual, *slots = rules.adadelta((-1.0) ** count, *slots, rho=rho)
    longest = math.sqrt((slots[1] + 1e-6) / (1 - rho))
    steps = [abs(rules.adadelta(g, *slots, rho=rho)[0]) for g in (1e3, 1e6, 1e9)]
    assert sorted(steps) == steps
    assert steps[-1] == pytest.approx(longest)
    assert longest == pytest.approx(4.5 * abs(usual), rel=0.01)
    _, *slots = rules.adadelta(1e3, *slots, rho=rho)
    after = []
    for count in range(1000):
        dx, *slots = rules.adadelta((-1.0) ** count, *slots, rho=rho)
        after.append(abs(dx) / abs(usual))
    assert round(1 / after[0]) == 156
    assert sum(each < 0.5 for each in after) == 572


def test_adagrad_steps_tend_to_zero_and_lead_ever_further():
    t = 10_000
    found, _ = run(rules.adagrad, along([1.0]), [0.0], t, lr=1.0, eps=0.0)
    assert abs(found[-1][0] - found[-2][0]) == pytest.approx(1 / math.sqrt(t))
    assert abs(found[-1][0]) == pytest.approx(2 * math.sqrt(t), rel=0.01)


def test_first_adam_step_is_the_rate_times_the_sign():
    g, lr, eps = np.array(GRADIENTS), 1e-3, 1e-8
    found, _ = run(rules.adam, along(g), np.zeros(7), 1, lr=lr, eps=eps)
    assert close(found[0], -lr * g / (np.abs(g) + eps))
    rounding = ULPS["equation"].amount * np.spacing(lr)
    assert np.all(np.abs(found[0] + lr * np.sign(g)) <= lr * eps / np.abs(g) + rounding)


def test_adam_steps_of_equal_gradients_are_equal():
    g = np.array(GRADIENTS)
    found, _ = run(rules.adam, along(g), np.zeros(7), 50, eps=0.0)
    assert close(np.diff([np.zeros(7), *found], axis=0), -1e-3 * np.sign(g), beside=found[-1])


def test_adam_averages_are_corrected_by_the_step_count():
    beta1, beta2, g = 0.5, 0.75, [1.0, 3.0]
    m = [0.5, 1.75]
    v = [0.25, 2.4375]
    dx, *slots = rules.adam(g[1], 2, m[0], v[0], lr=1.0, beta1=beta1, beta2=beta2, eps=0.0)
    assert slots == [m[1], v[1]]
    assert close(dx, -(1.75 / 0.75) / math.sqrt(2.4375 / 0.4375))
