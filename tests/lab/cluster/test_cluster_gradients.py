"""The gradients of a problem are those of plain training."""

from __future__ import annotations

import dataclasses
import itertools
import re

import numpy as np
import pytest
from tests.cluster.made import turn
from tests.lab.small import line, named, normed

import torch
from steprule import rules
from steprule.cluster import Client, Partition, Shard
from steprule.lab.cluster.gradients import ProblemGradient, work_of
from steprule.lab.problems.digits import digits
from steprule.lab.training import train_epoch
from steprule.torch import optimizer
from torch import Tensor, nn


def test_one_replica_without_delay_is_plain_training_bit_for_bit():
    problem, seed = digits(), 3
    model = problem.model(seed)
    stepper, order = optimizer(rules.adadelta)(model.parameters()), torch.Generator().manual_seed(seed)
    losses = [train_epoch(problem, model, stepper, order) for _ in range(2)]

    work = work_of("digits", problem, seed)
    of = Partition({name: array.shape for name, array in work.parameters.items()}, 3)
    x = of.flat(work.parameters, np.float32)
    shards = [Shard(rules.adadelta, x[of.slices[number]], of.pieces[number]) for number in range(3)]
    client, gradient = Client(0, of), work.gradient(0, 0)
    found = []
    for _ in range(2 * 29):
        dense = np.zeros(of.dense_size, np.float32)
        for number, shard in enumerate(shards):
            client.take(number, shard.fetch())
        loss, rows = gradient(client.tensors, of.dense_views(dense))
        assert rows == {}
        found.append(loss)
        turn(client, shards, dense)
    x = np.concatenate([shard.parameters for shard in shards])
    for name, parameter in model.named_parameters():
        assert np.array_equal(of.views(x)[name], parameter.detach().numpy()), name
    sizes = [len(batch) for batch in torch.arange(900).split(32)]
    assert np.average(found[:29], weights=sizes) == pytest.approx(losses[0], rel=1e-6)


class _Words(nn.Module):
    """A line through the sum of rows of a table, and a row that is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(6, 3, sparse=True)
        self.out = nn.Linear(3, 1)
        self.out.bias.requires_grad_(False)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.out(self.table(inputs.long().abs() % 6).sum(dim=1))


def test_gradients_of_sparse_embeddings_come_as_rows():
    problem = dataclasses.replace(line(), model=lambda seed: _Words())
    work = work_of(named(line), problem, 0)
    assert work.sparse == ("table.weight",)
    assert set(work.parameters) == {"table.weight", "out.weight"}
    gradient = ProblemGradient(problem, 0, 0, 0)
    tensors = {name: array.copy() for name, array in work.parameters.items()}
    into = {"out.weight": np.zeros((1, 3), np.float32)}
    _, rows = gradient(tensors, into)
    assert set(rows) == {"table.weight"} and into["out.weight"].any()
    rows["table.weight"].check("table.weight", (6, 3), np.float32)
    assert len(rows["table.weight"].numbers) == 3 * problem.batch_size

    def frozen(seed: int) -> nn.Module:
        model = _Words()
        model.table.weight.requires_grad_(False)
        return model

    work = work_of(named(line), dataclasses.replace(problem, model=frozen), 0)
    assert work.sparse == () and set(work.parameters) == {"out.weight"}


def test_each_replica_and_each_start_has_an_order_of_its_own():
    problem = line()
    firsts = []
    for replica, start in itertools.product(range(3), range(3)):
        gradient = ProblemGradient(problem, 0, replica, start)
        tensors = {"weight": np.zeros((1, 3), np.float32), "bias": np.zeros(1, np.float32)}
        into = {name: np.zeros_like(array) for name, array in tensors.items()}
        firsts.append(gradient(tensors, into)[0])
    assert len(set(firsts)) == 9


def test_a_model_with_buffers_is_refused():
    with pytest.raises(ValueError, match=re.escape("has the buffer 0.running_mean; allowed are models without")):
        work_of(named(normed), normed(), 0)


def test_a_model_of_a_type_that_no_server_holds_is_refused():
    problem = dataclasses.replace(line(), model=lambda seed: nn.Linear(3, 1).bfloat16())
    with pytest.raises(
        ValueError, match="line has trainable parameters of torch.bfloat16; allowed are all float32 or all"
    ):
        work_of(named(line), problem, 0)
