"""A Ray for the tests that need one: started once, since that takes as long as they do."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
from tests.requirements import require_installed


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """The Ray that `train` starts on this machine, for all tests of a module."""
    require_installed("ray")
    from steprule.cluster import engine

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        # Ray's workers give way to everything else, and then never get ready on a busy machine.
        patch.setenv("RAY_worker_niceness", "0")
        # Of Ray's own files and sockets.
        warnings.simplefilter("ignore", ResourceWarning)
        with engine.running(None, 6):
            yield
