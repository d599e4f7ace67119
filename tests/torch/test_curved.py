"""Rules that take `h` and `g2`, which an optimizer finds beside the gradient; defaults that follow from the parameters."""

from __future__ import annotations

import copy
import pickle
import re
import warnings
from typing import Any

import pytest
from tests.conformance.paths import paths
from tests.torch.checks import checked_step, parameter

import torch
from steprule import rule, rules
from steprule.lab.problem import find_problem
from steprule.torch import VSGD, DeltaBarDelta, DiagonalNewton, VSGDfd, optimizer


@rule
def curved(g, h, g2, mean=0.0):
    """A rule of all that there is beside the gradient."""
    mean = 0.5 * mean + g2
    return -g / (1 + h * h + mean), mean


class TestInputs:
    def test_what_is_set_anew_for_each_step_is_taken(self) -> None:
        each = parameter(4, 3)
        made = optimizer(curved)([each], lr=0.3)
        for seed in range(3):
            other = parameter(4, 3, seed=seed)
            each.grad, each.h, each.g2 = other.grad, other.h, other.g2
            checked_step(made)
            assert paths(made) == (1, 0)

    def test_what_is_written_in_place_is_taken_without_planning_again(self) -> None:
        each = parameter(4, 3)
        made = optimizer(curved)([each])
        checked_step(made)
        plan = made._plan
        each.h.mul_(-2)
        checked_step(made)
        assert made._plan is plan

    @pytest.mark.parametrize("name", ["h", "g2"])
    def test_other_strides_or_another_type_take_the_slower_path(self, name: str) -> None:
        each = parameter(4, 3, dtype=torch.float32)
        made = optimizer(curved)([each])
        checked_step(made)
        assert paths(made) == (1, 0)
        setattr(each, name, getattr(each, name).T.contiguous().T)
        checked_step(made)
        assert paths(made) == (0, 1)
        setattr(each, name, getattr(each, name).contiguous().double())
        checked_step(made)
        assert paths(made) == (0, 1)
        setattr(each, name, getattr(each, name).float())
        checked_step(made)
        assert paths(made) == (1, 0)

    def test_half_precision_beside_a_parameter_of_single_precision(self) -> None:
        each = parameter(5, dtype=torch.float32)
        each.h = each.h.bfloat16()
        made = optimizer(curved)([each])
        checked_step(made)
        assert paths(made) == (1, 0)

    def test_parameters_without_a_gradient_need_nothing(self) -> None:
        each, still = parameter(3), torch.nn.Parameter(torch.ones(2))
        made = optimizer(curved)([still, each])
        checked_step(made)
        assert torch.equal(still.detach(), torch.ones(2))

    @pytest.mark.parametrize("stepped", [False, True])
    @pytest.mark.parametrize("name", ["h", "g2"])
    def test_a_missing_one_is_named(self, name: str, stepped: bool) -> None:
        each = parameter(3, 2)
        made = optimizer(curved)([each])
        if stepped:
            made.step()
        before = each.detach().clone()
        delattr(each, name)
        meaning = {"h": "diagonal curvature", "g2": "mean of per-example squared gradients"}[name]
        with pytest.raises(
            ValueError,
            match=re.escape(
                f"rule curved takes {name}, and the {name} ({meaning}) of a parameter of shape (3, 2) on cpu is not set; "
                "steprule.curvature sets it"
            ),
        ):
            made.step()
        assert torch.equal(each.detach(), before)

    @pytest.mark.parametrize(
        ("value", "kind", "words"),
        [
            (torch.ones(2, 3), ValueError, "has the shape (2, 3) on cpu; allowed are the parameter's shape and device"),
            (
                torch.ones(3, 2, dtype=torch.int64),
                TypeError,
                "is torch.int64 in torch.strided; allowed is a dense tensor",
            ),
            (
                torch.ones(3, 2).to_sparse(),
                TypeError,
                "is torch.float32 in torch.sparse_coo; allowed is a dense tensor",
            ),
            (1.0, TypeError, "is of type float; allowed is a dense tensor of floating-point numbers"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, value: Any, kind: type[Exception], words: str) -> None:
        each = parameter(3, 2)
        each.h = value
        with pytest.raises(kind, match=re.escape(words)):
            optimizer(curved)([each]).step()

    def test_complex_parameters_are_refused(self) -> None:
        each = torch.nn.Parameter(torch.ones(2, dtype=torch.complex64))
        each.grad, each.h, each.g2 = torch.ones(2, dtype=torch.complex64), torch.ones(2), torch.ones(2)
        with pytest.raises(TypeError, match="allowed is a real parameter"):
            optimizer(curved)([each]).step()

    def test_sparse_gradients_are_refused(self) -> None:
        each = parameter(3, 2)
        each.grad = each.grad.to_sparse(1)
        with pytest.raises(
            TypeError, match=r"curved takes h and g2, and a parameter of shape \(3, 2\) has a sparse gradient"
        ):
            optimizer(curved)([each]).step()

    def test_a_state_moves_to_another_optimizer(self) -> None:
        each = parameter(3, 2)
        made = VSGD([each], slow_start=1)
        for _ in range(3):
            made.step()
        twin = parameter(3, 2)
        twin.data.copy_(each.data)
        other = VSGD([twin])
        other.load_state_dict(copy.deepcopy(made.state_dict()))
        for _ in range(2):
            checked_step(made)
            checked_step(other)
        assert torch.equal(each, twin)
        assert other.param_groups[0]["slow_start"] == 1


class TestTheOverestimateOfVSGD:
    @pytest.mark.parametrize("cls", [VSGD, VSGDfd])
    def test_is_a_tenth_of_the_number_of_parameters(self, cls: Any) -> None:
        net = torch.nn.Linear(30, 20)
        assert cls(net.parameters()).param_groups[0]["overestimate"] == 62
        assert cls(net.named_parameters()).param_groups[0]["overestimate"] == 62
        groups = [{"params": net.weight}, {"params": iter([net.bias]), "lr": 0.5}]
        made = cls(groups)
        assert [group["overestimate"] for group in made.param_groups] == [62, 62]
        assert [group["lr"] for group in made.param_groups] == [1, 0.5]
        assert list(map(len, (group["params"] for group in made.param_groups))) == [1, 1]
        assert cls([parameter(3)]).param_groups[0]["overestimate"] == 1

    def test_counts_what_is_trained(self) -> None:
        net = torch.nn.Sequential(torch.nn.Linear(100, 100), torch.nn.Linear(30, 20))
        net[0].requires_grad_(False)
        assert VSGD(net.parameters()).param_groups[0]["overestimate"] == 62

    def test_is_what_is_given(self) -> None:
        each = parameter(100)
        assert VSGD([each], overestimate=3).param_groups[0]["overestimate"] == 3
        assert VSGD([each], 1.0, 1, 60, 3).param_groups[0]["overestimate"] == 3
        assert VSGD([{"params": [each], "overestimate": 3}]).param_groups[0]["overestimate"] == 3

    def test_survives_copies(self) -> None:
        made = VSGD([parameter(100)])
        for copied in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
            assert type(copied) is VSGD
            assert copied.param_groups[0]["overestimate"] == 10


def _trained(batch: int, steps: int, **values: float) -> float:
    """Train on digits by delta-bar-delta and return the last loss."""
    problem = find_problem("digits")()
    inputs, targets = problem.train
    net = problem.model(0)
    made = DeltaBarDelta(net.parameters(), **values)
    order = torch.Generator().manual_seed(0)
    for _ in range(steps):
        chosen = torch.randperm(len(inputs), generator=order)[:batch]
        loss = problem.loss(net(inputs[chosen]), targets[chosen])
        made.zero_grad()
        loss.backward()
        made.step()
    return float(loss.detach())


class TestDeltaBarDelta:
    VALUES = ({"initial_rate": 0.5, "kappa": 0.05, "phi": 0.3}, {"initial_rate": 1.0, "kappa": 0.1, "phi": 0.1})

    @pytest.mark.parametrize("values", VALUES)
    def test_warns_of_mini_batches_once(self, values: dict[str, float]) -> None:
        with pytest.warns(UserWarning, match="of the rates of delta-bar-delta shrink at each step") as told:
            _trained(32, 250, **values)
        assert len(told) == 1

    @pytest.mark.parametrize("values", VALUES)
    def test_says_nothing_of_full_batches_and_learns(self, values: dict[str, float]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert _trained(900, 250, **values) < 0.05

    def test_copies_are_of_the_same_class(self) -> None:
        made = DeltaBarDelta([parameter(4)], **self.VALUES[0])
        for _ in range(3):
            checked_step(made)
        for copied in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
            assert type(copied) is DeltaBarDelta
            checked_step(copied)

    @pytest.mark.parametrize("state_dtype", [None, torch.bfloat16, "int8"])
    def test_warns_whatever_the_state_is_kept_in(self, state_dtype: Any) -> None:
        each = torch.nn.Parameter(torch.zeros(2000))
        made = DeltaBarDelta([each], initial_rate=0.1, kappa=0.0, phi=0.1, theta=0.0, state_dtype=state_dtype)
        noise = torch.Generator().manual_seed(0)

        def run() -> None:
            for _ in range(60):
                each.grad = torch.randn(2000, generator=noise)
                made.step()

        with pytest.warns(UserWarning, match="of the rates of delta-bar-delta shrink"):
            run()

    def test_a_step_that_a_scaler_leaves_out_is_no_matter(self) -> None:
        each = parameter(3)
        made = DeltaBarDelta([each], **self.VALUES[0])
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        for infinite in (True, False, False):
            each.grad = torch.full((3,), torch.inf if infinite else 8.0, dtype=torch.float64)
            scaler.scale(torch.ones((), dtype=torch.float64))
            scaler.step(made)
            scaler.update()
        assert made.state[each]["step"] == 2

    def test_complex_parameters_and_sparse_gradients_are_stepped(self) -> None:
        each = torch.nn.Parameter(torch.ones(3, dtype=torch.complex64))
        made = DeltaBarDelta([each], **self.VALUES[0])
        rows = torch.nn.Parameter(torch.ones(3, 2))
        lazy = DeltaBarDelta([rows], **self.VALUES[0], sparse="lazy")
        for row in range(3):
            each.grad = torch.ones(3, dtype=torch.complex64)
            made.step()
            rows.grad = torch.sparse_coo_tensor(torch.tensor([[row]]), torch.ones(1, 2), (3, 2), check_invariants=True)
            lazy.step()
        assert bool((each.detach().real < 1).all())
        # Each row takes its first step at another time, by the same first rate.
        assert torch.equal(rows.detach(), torch.full((3, 2), 0.5))

    def test_hooks_run_once_in_a_step(self) -> None:
        optimizer(rules.delta_bar_delta)([parameter(3)], **self.VALUES[0]).step()
        made, calls = DeltaBarDelta([parameter(3)], **self.VALUES[0]), []
        made.register_step_post_hook(lambda *_: calls.append(1))
        made.step()
        assert calls == [1]

    def test_a_closure_is_called(self) -> None:
        each = parameter(3, grad=False)
        made = DeltaBarDelta([each], **self.VALUES[0])

        def closure() -> torch.Tensor:
            made.zero_grad()
            loss = (each**2).sum()
            loss.backward()
            return loss

        losses = [float(made.step(closure).detach()) for _ in range(20)]
        assert losses[-1] < 1e-3 * losses[0]


def test_diagonal_newton_needs_mu_above_0() -> None:
    with pytest.raises(TypeError, match="diagonal_newton needs mu"):
        DiagonalNewton([parameter(3)])
    with pytest.raises(ValueError, match=r"^mu is 0\.0; allowed is a number in \(0, inf\)$"):
        DiagonalNewton([parameter(3)], mu=0.0)


def test_the_named_classes_are_those_of_their_rules() -> None:
    assert optimizer(rules.diagonal_newton) is DiagonalNewton
    assert optimizer(rules.vsgd, name="VSGD") is VSGD
