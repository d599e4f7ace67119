"""What ranks do with DTensor parameters by hand; each function asserts what its name says."""

from __future__ import annotations

from typing import Any

import pytest
import torch.distributed as dist
from tests.conformance.paths import paths
from torch.distributed._composable import replicate
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard, distribute_tensor

import torch
from steprule import torch as ours
from torch import Tensor, nn

ROWS, COLUMNS = 3, 5  # which 2 ranks do not divide, and of which the last of 4 has no row


def _mesh() -> DeviceMesh:
    return init_device_mesh("cpu", (dist.get_world_size(),))


def _random(seed: int) -> Tensor:
    return torch.randn(ROWS, COLUMNS, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _sharded(placement: Placement, tensor: Tensor | None = None) -> nn.Parameter:
    return nn.Parameter(distribute_tensor(_random(0) if tensor is None else tensor, _mesh(), [placement]))


def _steps(stepper: Any, parameter: nn.Parameter, placement: Placement | None, steps: range) -> None:
    for number in steps:
        g = _random(number)
        parameter.grad = g if placement is None else distribute_tensor(g, _mesh(), [placement])
        stepper.step()


def _stepped_alone(steps: int) -> Tensor:
    parameter = nn.Parameter(_random(0))
    _steps(ours.Adam([parameter]), parameter, None, range(1, steps + 1))
    return parameter.detach()


def every_placement_steps_in_the_fused_loop() -> None:
    for placement in (Shard(0), Shard(1), Replicate()):
        parameter = _sharded(placement)
        stepper = ours.Adam([parameter])
        _steps(stepper, parameter, placement, range(1, 4))
        assert paths(stepper) == (1, 0)
        assert torch.equal(parameter.detach().full_tensor(), _stepped_alone(3))


def plain_and_sharded_parameters_step_together() -> None:
    sharded, plain, bfloat16 = (_sharded(Shard(0)), nn.Parameter(_random(0)), _sharded(Shard(0), _random(0).bfloat16()))
    stepper = ours.Adam([plain, sharded, bfloat16])
    for number in (1, 2, 3):
        plain.grad = _random(number)
        sharded.grad = distribute_tensor(_random(number), _mesh(), [Shard(0)])
        bfloat16.grad = sharded.grad.to(torch.bfloat16)
        stepper.step()
    assert paths(stepper) == (3, 0)
    assert torch.equal(plain.detach(), _stepped_alone(3))
    assert torch.equal(sharded.detach().full_tensor(), _stepped_alone(3))
    assert bfloat16.detach().to_local().dtype is torch.bfloat16
    assert stepper.state[bfloat16]["exp_avg"].placements == bfloat16.placements


def a_parameter_rests_where_it_has_no_gradient() -> None:
    parameters = [_sharded(Shard(0)), _sharded(Shard(0))]
    stepper = ours.Adam(parameters)
    for number, stepping in enumerate([(0, 1), (0,), (1,), (1,), (0,)]):
        for place, each in enumerate(parameters):
            each.grad = distribute_tensor(_random(1), _mesh(), [Shard(0)]) if place in stepping else None
        plan, versions = stepper._plan, [each._version for each in parameters]
        stepper.step()
        assert stepper._plan is plan or number == 0
        changed = [each._version > before for each, before in zip(parameters, versions, strict=True)]
        assert changed == [place in stepping for place in range(2)]
        assert paths(stepper) == (len(stepping), 0)
    assert torch.equal(parameters[0].detach().full_tensor(), parameters[1].detach().full_tensor())


def a_gradient_spread_otherwise_is_refused() -> None:
    partial = DTensor.from_local(_random(1), _mesh(), [Partial()])
    for grad in (distribute_tensor(_random(1), _mesh(), [Replicate()]), partial):
        for earlier in (0, 2):  # in the first step, and where there is a plan already
            parameter = _sharded(Shard(0))
            stepper = ours.Adam([parameter])
            _steps(stepper, parameter, Shard(0), range(1, earlier + 1))
            kept = parameter.detach().to_local().clone()
            parameter.grad = grad
            with pytest.raises(
                TypeError, match=r"the gradient of a DTensor parameter of shape \(3, 5\) has the placements"
            ):
                stepper.step()
            assert torch.equal(parameter.detach().to_local(), kept)


def a_partial_parameter_is_refused() -> None:
    parameter = nn.Parameter(DTensor.from_local(_random(0), _mesh(), [Partial()]))
    parameter.grad = DTensor.from_local(_random(1), _mesh(), [Partial()])
    with pytest.raises(TypeError, match="allowed are Shard and Replicate"):
        ours.Adam([parameter]).step()


def state_that_is_not_spread_is_refused() -> None:
    parameter = _sharded(Shard(0))
    stepper = ours.Adam([parameter])
    _steps(stepper, parameter, Shard(0), range(1, 2))
    stepper.state[parameter]["exp_avg"] = _random(0)
    with pytest.raises(TypeError, match=r"the slot exp_avg of a DTensor parameter .* is a Tensor"):
        stepper.step()


def parts_that_move_are_followed() -> None:
    parameter = _sharded(Shard(0))
    stepper = ours.Adam([parameter])
    for number in range(1, 5):
        # As FSDP2 does where a net is moved or loaded.
        parameter._local_tensor = parameter._local_tensor.detach().clone()
        slot = stepper.state[parameter].get("exp_avg")
        if slot is not None:
            slot._local_tensor = slot._local_tensor.clone()
        _steps(stepper, parameter, Shard(0), range(number, number + 1))
    assert torch.equal(parameter.detach().full_tensor(), _stepped_alone(4))


def a_backward_pass_over_stale_values_fails() -> None:
    parameter = _sharded(Replicate())
    loss = (parameter * parameter).sum()
    parameter.grad = distribute_tensor(_random(1), _mesh(), [Replicate()])
    ours.Adam([parameter]).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def delta_bar_delta_looks_at_the_part_that_is_here() -> None:
    parameter, alone = _sharded(Shard(0)), nn.Parameter(_random(0))
    for each, placement in ((parameter, Shard(0)), (alone, None)):
        stepper = ours.DeltaBarDelta([each], initial_rate=0.1, kappa=0.01, phi=0.1)
        _steps(stepper, each, placement, range(1, 6))
    assert torch.equal(parameter.detach().full_tensor(), alone.detach())


def steps_in_backward_refuse_what_averages_later() -> None:
    # One that is complete needs an accelerator.
    older = FullyShardedDataParallel.__new__(FullyShardedDataParallel)
    nn.Module.__init__(older)
    for model in (nn.parallel.DistributedDataParallel(nn.Linear(2, 2)), replicate(nn.Linear(2, 2)), older):
        with pytest.raises(TypeError, match=f"model_or_params holds a {type(model).__name__}"):
            ours.step_in_backward(nn.Sequential(model), ours.Adam)


ALL = [
    every_placement_steps_in_the_fused_loop,
    plain_and_sharded_parameters_step_together,
    a_parameter_rests_where_it_has_no_gradient,
    a_gradient_spread_otherwise_is_refused,
    a_partial_parameter_is_refused,
    state_that_is_not_spread_is_refused,
    parts_that_move_are_followed,
    a_backward_pass_over_stale_values_fails,
    delta_bar_delta_looks_at_the_part_that_is_here,
    steps_in_backward_refuse_what_averages_later,
]
