"""A Ray for the tests that need one, started once, since that takes as long as they do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.requirements import ray_at_ease, require_installed


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """The Ray that `train` starts on this machine, for all tests of a module."""
    require_installed("ray")
    from steprule.cluster import engine

    with ray_at_ease(), engine.running(None, 6):
        yield
