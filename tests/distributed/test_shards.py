"""DTensor parameters by hand: placements, errors, memory that moves."""

from __future__ import annotations

import pytest
from tests.distributed import shards
from tests.distributed.ranks import Ranks

pytestmark = pytest.mark.serial


@pytest.mark.parametrize("function", shards.ALL, ids=lambda function: function.__name__)
def test_on_ranks(ranks: Ranks, function):
    ranks.call(function)
