"""Effective learning rates of ADADELTA on handwritten digits, as a chart: python examples/torch/rate_monitor.py rates.svg"""

import sys

from sklearn.datasets import load_digits

import torch
from steprule.report.rates import draw
from steprule.torch import Adadelta, RateMonitor
from torch import nn


def monitored(epochs: int = 60) -> RateMonitor:
    torch.manual_seed(0)
    images, targets = load_digits(return_X_y=True)
    inputs, targets = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(targets)
    net = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
    optimizer = Adadelta(net.parameters())
    monitor = RateMonitor(optimizer, every=10, model=net)
    for _ in range(epochs):
        for batch in torch.randperm(len(inputs)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(inputs[batch]), targets[batch]).backward()
            optimizer.step()
    return monitor


if __name__ == "__main__":
    monitor = monitored()
    print(monitor)
    draw(monitor.table(), sys.argv[1] if len(sys.argv) > 1 else "rates.svg", layers=["0.weight", "2.weight"])
