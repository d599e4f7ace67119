"""Devices by their names."""

from __future__ import annotations

import contextlib

import torch

__all__ = ["device_named"]


def device_named(name: str) -> torch.device:
    """Return the CPU, or a GPU that PyTorch finds here; raise `ValueError` for any other name."""
    with contextlib.suppress(RuntimeError):
        device = torch.device(name)
        if device.type == "cpu" or (device.type == "cuda" and (device.index or 0) < torch.cuda.device_count()):
            return device
    gpus = torch.cuda.device_count()
    here = f"are cpu and cuda:0 to cuda:{gpus - 1}" if gpus else "is cpu, since PyTorch finds no GPU here"
    raise ValueError(f"device is {name!r}; allowed {here}")
