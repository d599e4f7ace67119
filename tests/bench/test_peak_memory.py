"""Peak memory of a real net, as the system tells it."""

from __future__ import annotations

import pytest

from steprule.bench.memory import measure_memory

pytestmark = pytest.mark.serial


def test_steps_in_the_backward_pass_need_less_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    # Else glibc keeps what a thread has freed, and the peak tells its arenas instead of what the training holds.
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "1000000")
    measured = measure_memory(layers=8)
    (parameters, loop), (same, in_backward) = measured["loop"], measured["step_in_backward"]
    assert parameters == same
    # All gradients are as many bytes as the parameters; the activations that a backward pass begins with stand against them.
    assert loop - in_backward > parameters / 2
