"""Two nodes of Ray on this machine: shards and replicas are placed on both, and what one writes the other finds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.cluster import bowl
from tests.requirements import ray_at_ease, require_installed

from steprule import rules
from steprule.cluster import Plan, train

pytestmark = [pytest.mark.cluster, pytest.mark.serial]


@pytest.fixture
def two_nodes() -> Iterator[str]:
    """The address of a cluster of two nodes with two processors each."""
    require_installed("ray")
    import ray
    from ray.cluster_utils import Cluster

    with ray_at_ease():
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
        try:
            cluster.add_node(num_cpus=2)
            cluster.wait_for_nodes()
            yield cluster.address
        finally:
            ray.shutdown()
            cluster.shutdown()


def test_a_training_spreads_over_two_nodes(two_nodes: str, tmp_path: Path):
    places = []
    plan = Plan(updates=100, replicas=2, shards=2, options={"lr": 0.03})
    found = train(
        bowl.work(),
        rules.sgd,
        plan,
        tmp_path,
        address=two_nodes,
        progress=lambda training: places.extend(node for _, node in training.replicas.places.values()),
    )
    assert len({*places, *(shard.node for shard in found.progress.shards)}) == 2
    assert [shard.version.updates for shard in found.progress.shards] == [100, 100]
    assert np.abs(found.parameters["weight"] - bowl.CENTRE).max() < 1
