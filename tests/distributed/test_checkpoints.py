"""Training goes on from a checkpoint, on another number of ranks, as if one process had never stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conformance.cases import OF_THE_GRADIENT
from tests.distributed import checkpoints, training
from tests.distributed.ranks import Ranks
from tests.distributed.test_several_processes import assert_same

pytestmark = pytest.mark.serial

Groups = Callable[[int], Ranks]
TWO_AND_FOUR = pytest.mark.parametrize(("before", "after"), [(2, 4), (4, 2)], ids=["2 to 4", "4 to 2"])


@TWO_AND_FOUR
@pytest.mark.parametrize("rule", OF_THE_GRADIENT)
def test_sharded_nets_go_on(group_of: Groups, tmp_path: Path, before: int, after: int, rule: str):
    group_of(before).call(checkpoints.save, rule, str(tmp_path), True)
    for found in group_of(after).call(checkpoints.go_on, rule, str(tmp_path), True):
        assert_same(found, training.alone(rule))


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
@pytest.mark.parametrize("after_sharded", [False, True], ids=["to plain", "to sharded"])
@pytest.mark.parametrize("rule", OF_THE_GRADIENT)
def test_a_plain_net_goes_on(group_of: Groups, tmp_path: Path, after_sharded: bool, rule: str):
    checkpoints.save(rule, str(tmp_path), False)
    if after_sharded:
        found = group_of(2).call(checkpoints.go_on, rule, str(tmp_path), True)[0]
    else:
        found = checkpoints.go_on(rule, str(tmp_path), False)
    assert_same(found, training.alone(rule))


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_a_sharded_net_goes_on_as_a_plain_one(group_of: Groups, tmp_path: Path):
    group_of(4).call(checkpoints.save, "adadelta", str(tmp_path), True)
    assert_same(checkpoints.go_on("adadelta", str(tmp_path), False), training.alone("adadelta"))


# PyTorch cannot hand out the state of a rule that has none, be it its own SGD's.
@TWO_AND_FOUR
@pytest.mark.parametrize("rule", [name for name, rule in OF_THE_GRADIENT.items() if rule.slots])
def test_what_one_rank_has_gathered_goes_on(group_of: Groups, tmp_path: Path, before: int, after: int, rule: str):
    path = str(tmp_path / "gathered.pt")
    group_of(before).call(checkpoints.save_gathered, rule, path)
    for found in group_of(after).call(checkpoints.go_on_from_gathered, rule, path):
        assert_same(found, training.alone(rule))


@pytest.mark.parametrize("rule", OF_THE_GRADIENT)
def test_what_zero_has_consolidated_goes_on(group_of: Groups, tmp_path: Path, rule: str):
    path = str(tmp_path / "consolidated.pt")
    group_of(2).call(checkpoints.save_with_zero, rule, path)
    expected = training.alone(rule)
    assert_same(checkpoints.go_on_with_zero(rule, path), expected)
    for found in group_of(4).call(checkpoints.go_on_with_zero, rule, path):
        assert_same(found, expected)
