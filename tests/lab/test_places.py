"""Where trials run, as a command line says it."""

from __future__ import annotations

import socket
import sys
from typing import Any

import pytest
from tests.lab import small
from tests.requirements import require_installed

from steprule.lab import compare
from steprule.lab.batched import Batched
from steprule.lab.machine import available_cores
from steprule.lab.places import Processes, place
from steprule.lab.workers import WORKER_VARIABLE, share_threads


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"on": "slurm"}, "on is 'slurm'; allowed are processes, ray"),
        ({"address": "auto"}, "address is 'auto' and on is 'processes'; allowed is an address with on='ray'"),
        ({"device": "cpu", "on": "ray"}, "device is 'cpu' and on is 'ray'; allowed is one of them"),
        ({"device": "cpu", "jobs": 2}, "device is 'cpu' and jobs is 2; allowed is one of them"),
        ({"device": "mps0"}, "device is 'mps0'; allowed "),
        ({"device": "meta"}, "device is 'meta'; allowed "),
        ({"device": "cuda:99"}, "device is 'cuda:99'; allowed "),
        ({"jobs": 0}, "jobs is 0; allowed is a whole number from 1"),
        ({"jobs": 1.5}, "jobs is 1.5; allowed is a whole number from 1"),
    ],
)
def test_words_that_do_not_go_together_are_refused(words: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError) as caught:
        place(**words)
    assert str(caught.value).startswith(says)


def test_processes_are_as_many_as_cores_and_share_them() -> None:
    usual = place()
    assert usual.jobs == available_cores()
    for jobs in (1, 2, 100):
        found = place(jobs=jobs)
        assert (found.jobs, found.deciding) == (jobs, str(share_threads(jobs)))
        assert found.facts()["processes"].startswith(f"{jobs}")


def test_a_device_is_a_place_of_its_own() -> None:
    found = place(device="cpu")
    assert isinstance(found, Batched)
    assert (found.jobs, found.facts()["device"]) == (1, "cpu, trials batched within 2.0 GiB")
    assert found.deciding != place(jobs=1).deciding


def test_what_ray_needs_is_told_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'steprule\[cluster\]'$"):
        place("ray")


def test_a_worker_connects_to_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKER_VARIABLE, "1")
    with pytest.raises(RuntimeError, match="put it under"):
        place("ray")


def test_a_place_knows_its_own_number_of_jobs() -> None:
    with pytest.raises(ValueError, match="jobs is 1 and on is a Processes, which has its own; allowed is one of them"):
        compare(small.named(small.line), on=Processes(1), jobs=1)


def test_an_address_where_nothing_answers_is_told_at_once() -> None:
    require_installed("ray")
    from steprule.cluster import engine

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConnectionError, match=f"address is '{address}', where no Ray cluster answers: "):
            place("ray", address=address)
        with pytest.raises(ConnectionError, match="where no Ray cluster answers: "), engine.running(address, 1):
            pass
