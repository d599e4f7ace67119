"""Training on several ranks ends where training in one process on the whole batches ends."""

from __future__ import annotations

import numpy as np
import pytest
from tests.conformance.cases import OF_THE_GRADIENT
from tests.conformance.tolerances import ULPS, ulps
from tests.distributed import training
from tests.distributed.ranks import Ranks

pytestmark = pytest.mark.serial


def assert_same(found: training.Arrays, expected: training.Arrays) -> None:
    allowed = ULPS["a batch shared out"]
    for one, other in zip(found, expected, strict=True):
        assert ulps(one, other, "float64", np.abs(other).max()).max() <= allowed.amount, allowed.reason


WAYS = [
    training.distributed_data_parallel,
    training.fully_sharded,
    training.fully_sharded_in_backward,
    training.zero_redundancy,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("rule", OF_THE_GRADIENT)
def test_ranks_train_as_one_process_does(ranks: Ranks, way, rule: str):
    expected = training.alone(rule)
    for found in ranks.call(way, rule):
        assert_same(found, expected)
