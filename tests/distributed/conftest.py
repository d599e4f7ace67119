from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from tests.distributed.ranks import Ranks


@pytest.fixture(scope="session")
def group_of() -> Iterator[Callable[[int], Ranks]]:
    """Return the process group of so many ranks, the same for all tests."""
    groups: dict[int, Ranks] = {}
    yield lambda size: groups.setdefault(size, Ranks(size))
    for group in groups.values():
        group.end()


@pytest.fixture(params=[2, 4], ids=["2 ranks", "4 ranks"])
def ranks(request: pytest.FixtureRequest, group_of: Callable[[int], Ranks]) -> Ranks:
    return group_of(request.param)
