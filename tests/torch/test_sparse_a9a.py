"""Real data whose rows are sparse: logistic regression on a9a, each row's active features as a bag of an embedding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.conformance.tolerances import SHARES
from tests.requirements import require_data_set, require_installed

import torch
from steprule import torch as ours
from torch import nn

FEATURES, BATCH = 123, 100


@pytest.fixture(scope="module")
def bags() -> tuple[list[tuple[torch.Tensor, torch.Tensor]], torch.Tensor]:
    """Return the batches as (features, offsets), and the labels, 0 or 1."""
    require_data_set("a9a")
    require_installed("sklearn")
    from sklearn.datasets import load_svmlight_file

    from steprule.lab.data import locate

    rows, labels = load_svmlight_file(str(locate("a9a")["a9a"]), n_features=FEATURES)
    assert rows.shape == (32_561, FEATURES)
    assert set(rows.data) == {1.0}
    batches = []
    for first in range(0, rows.shape[0], BATCH):
        some = rows[first : first + BATCH]
        batches.append(
            (torch.tensor(some.indices, dtype=torch.int64), torch.tensor(some.indptr[:-1], dtype=torch.int64))
        )
    return batches, torch.tensor(labels > 0, dtype=torch.float64)


def epoch(bags: Any, *, sparse: bool, **options: Any) -> tuple[np.ndarray, nn.EmbeddingBag, Any]:
    """Train one epoch; return the loss of each step, and what was trained by what."""
    batches, labels = bags
    model = nn.EmbeddingBag(FEATURES, 1, mode="sum", sparse=sparse, dtype=torch.float64)
    nn.init.zeros_(model.weight)
    optimizer = options.pop("cls")(model.parameters(), **options)
    optimizer.watch(model)
    losses = []
    for (features, offsets), wanted in zip(batches, labels.split(BATCH), strict=True):
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(model(features, offsets)[:, 0], wanted)
        loss.backward()
        assert model.weight.grad.is_sparse == sparse
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses), model, optimizer


@pytest.mark.parametrize(
    "options",
    [
        {"cls": ours.Adadelta},
        {"cls": ours.Adagrad, "lr": 0.1},
        {"cls": ours.RMSProp, "lr": 0.01},
        {"cls": ours.SGD, "lr": 0.5},
        {"cls": ours.SGD, "lr": 0.5, "weight_decay": 1e-3},
        {"cls": ours.Adadelta, "lr": 1.0, "weight_decay": 1e-3, "decoupled_weight_decay": True},
    ],
    ids=lambda options: "-".join(each.__name__ if each is options["cls"] else str(each) for each in options.values()),
)
def test_an_epoch_is_that_of_dense_gradients(bags: Any, options: dict[str, Any]):
    losses, first, opt = epoch(bags, sparse=True, **options)
    expected, second, other = epoch(bags, sparse=False, **options)
    # Nothing is learnt by chance: at first, every label is as likely as the other.
    assert losses[0] == pytest.approx(np.log(2))
    assert losses[-50:].mean() < 0.4
    assert _apart(losses, expected) <= SHARES["summed otherwise"].amount
    found, wanted = opt.state_dict()["state"].get(0, {}), other.state_dict()["state"].get(0, {})
    assert _apart(first.weight, second.weight) <= SHARES["summed otherwise"].amount
    assert found.keys() == wanted.keys()
    for name in found:
        assert _apart(found[name], wanted[name]) <= SHARES["summed otherwise"].amount


def _apart(found: Any, wanted: Any) -> float:
    """Return the largest distance, as a share of the largest number."""
    found, wanted = (torch.as_tensor(each).detach() for each in (found, wanted))
    return float((found - wanted).abs().max() / wanted.abs().max())
