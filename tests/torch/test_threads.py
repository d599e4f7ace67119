"""Threads: as many as torch has, and optimizers in several Python threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from tests.torch.checks import parameter

import torch
from steprule import torch as ours
from steprule.kernels import team
from steprule.kernels.cpu import CHUNK


@pytest.fixture(autouse=True)
def _threads_are_given_back() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_thread_counts_follow_torchs(monkeypatch: pytest.MonkeyPatch):
    seen = []
    run = team.run
    monkeypatch.setattr(team, "run", lambda work, launch, threads: (seen.append(threads), run(work, launch, threads)))
    opt = ours.Adadelta([parameter(2 * CHUNK, dtype=torch.float32)])
    for threads in (1, 3, 2):
        torch.set_num_threads(threads)
        opt.step()
    assert seen == [1, 3, 2]


def test_a_small_net_wakes_no_thread(monkeypatch: pytest.MonkeyPatch):
    seen = []
    monkeypatch.setattr(team, "run", lambda work, launch, threads: seen.append(threads))
    torch.set_num_threads(4)
    ours.Adadelta([parameter(100), parameter(200)]).step()
    assert seen == [1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_number_of_threads_gives_the_same_bits(dtype: torch.dtype):
    results = []
    for threads in (1, 2, 8):
        torch.set_num_threads(threads)
        params = [parameter(3 * CHUNK + 5, dtype=dtype), parameter(7, dtype=dtype)]
        opt = ours.Adam(params)
        for _ in range(3):
            opt.step()
        results.append([each.detach().clone() for each in params])
    assert all(torch.equal(a, b) for result in results[1:] for a, b in zip(result, results[0], strict=True))


def test_optimizers_may_step_in_several_python_threads_at_once():
    def net(seed: int) -> tuple[list[torch.nn.Parameter], torch.optim.Optimizer]:
        params = [
            parameter(2 * CHUNK + 3, dtype=torch.float32, seed=seed),
            parameter(9, dtype=torch.bfloat16, seed=seed),
        ]
        return params, (ours.Adam if seed % 2 else ours.Adadelta)(params)

    torch.set_num_threads(2)
    steps, seeds = 15, range(4)
    alone = []
    for seed in seeds:
        params, opt = net(seed)
        for _ in range(steps):
            opt.step()
        alone.append(params)

    nets = [net(seed) for seed in seeds]
    together = threading.Barrier(len(nets))

    def train(opt: torch.optim.Optimizer) -> None:
        together.wait()
        for _ in range(steps):
            opt.step()

    workers = [threading.Thread(target=train, args=(opt,)) for _, opt in nets]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for (params, _), expected in zip(nets, alone, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(params, expected, strict=True))


def test_an_optimizer_may_step_in_another_thread_than_before():
    mine, other = [parameter(2 * CHUNK)], [parameter(2 * CHUNK)]
    first, second = ours.Adadelta(mine), ours.Adadelta(other)
    for _ in range(4):
        first.step()
        worker = threading.Thread(target=second.step)
        worker.start()
        worker.join()
    assert torch.equal(mine[0], other[0])
