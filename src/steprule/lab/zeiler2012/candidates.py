"""The initialisations and scalings that the paper may have used, each as a problem that a comparison finds by its name.

The paper states none of them. These are the usual ones of 2012: uniform by fan-in (LeCun et al. 1998), Gaussian with a fixed
deviation, and sparse (Martens 2010). The last 10,000 training images are held out: nothing is chosen on the test set.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Final, Literal

import torch
from torch import Tensor, nn

from ..problem import Data, Problem
from ..problems.mnist import mnist, paper_net

__all__ = ["CANDIDATES", "EPOCHS", "HELD_OUT", "Candidate", "Units", "rectified", "tanh"]

HELD_OUT: Final = 10_000
"""Images at the end of the training set that are not trained on."""

EPOCHS: Final = 7
"""3,500 updates on the 50,000 images that are left; the paper's 6 epochs on 60,000 are 3,600."""

_SPARSE_INPUTS: Final = 15

Units = Literal["rectified", "tanh"]
_UNITS: Final[Mapping[Units, type[nn.Module]]] = {"rectified": nn.ReLU, "tanh": nn.Tanh}


@dataclass(frozen=True)
class _Initial:
    """First values of a layer's weights or biases: in words, and as what sets them."""

    words: str
    set: Callable[[Tensor, int], object]
    """Given the tensor and the number of the layer's inputs."""


def _by_fan_in(values: Tensor, inputs: int) -> None:
    values.uniform_(-1 / math.sqrt(inputs), 1 / math.sqrt(inputs))


def _sparse(weights: Tensor, inputs: int) -> None:
    weights.zero_()
    for unit in weights:
        unit[torch.randperm(inputs)[:_SPARSE_INPUTS]] = torch.randn(_SPARSE_INPUTS)


def _normal(deviation: float) -> _Initial:
    return _Initial(f"N(0, {deviation:g}²)", lambda values, _: values.normal_(std=deviation))


def _constant(value: float) -> _Initial:
    return _Initial(f"{value:g}", lambda values, _: values.fill_(value))


_UNIFORM: Final = _Initial("uniform, ±1/√fan-in", _by_fan_in)
_WEIGHTS: Final[Mapping[str, _Initial]] = {
    "uniform": _UNIFORM,
    **{f"normal_{deviation:g}".replace(".", "_"): _normal(deviation) for deviation in (0.01, 0.02, 0.05, 0.1, 0.2)},
    "sparse": _Initial(f"sparse: {_SPARSE_INPUTS} inputs of a unit, N(0, 1)", _sparse),
}
_BIASES: Final[Mapping[str, _Initial]] = {"zero": _constant(0.0), "tenth": _constant(0.1), "uniform": _UNIFORM}


@dataclass(frozen=True)
class Candidate:
    """One way to begin, and the hidden units of its net; called, it returns the problem.

    `weights` and `biases` are keys of what is known here. `standardised` inputs are less their mean and by their standard
    deviation, both over all pixels of the images that are trained on; else inputs are in [0, 1].
    """

    units: Units
    weights: str
    biases: str = "zero"
    standardised: bool = False

    @property
    def name(self) -> str:
        """What it is called among those of its units."""
        scaling = ("_standardised",) if self.standardised else ()
        return "".join((self.weights, *(() if self.biases == "zero" else (f"_biases_{self.biases}",)), *scaling))

    @property
    def problem(self) -> str:
        """The name by which `compare` finds the problem."""
        return f"{__name__}:{self.units}.{self.name}"

    @property
    def words(self) -> tuple[str, str, str]:
        """The weights, the biases and the inputs, in words."""
        inputs = "standardised" if self.standardised else "in [0, 1]"
        return _WEIGHTS[self.weights].words, _BIASES[self.biases].words, inputs

    def __call__(self) -> Problem:
        weights, biases, scaling = self.words
        whole = mnist()
        kept = len(whole.train[0]) - HELD_OUT
        middle, scale = _moments(whole.train[0][:kept]) if self.standardised else (0.0, 1.0)

        def scaled(data: Data, part: slice) -> Data:
            inputs = data[0][part]
            return (inputs - middle) / scale if self.standardised else inputs, data[1][part]

        return replace(
            whole,
            name=f"mnist, {self.units}, {self.name}",
            description=f"MNIST, 784-500-300-10 units, the hidden ones {self.units}, weights {weights}, biases {biases}, "
            f"inputs {scaling}, cross-entropy, mini-batches of 100, the last {HELD_OUT:,} training images held out",
            model=self.net,
            train=scaled(whole.train, slice(kept)),
            validation=scaled(whole.train, slice(kept, None)),
            test=scaled(whole.test, slice(None)),
            epochs=EPOCHS,
        )

    def net(self, seed: int) -> nn.Module:
        """Return the net with the initial weights of `seed`."""
        net = paper_net(seed, _UNITS[self.units])
        with torch.no_grad():
            for layer in net.modules():
                if isinstance(layer, nn.Linear):
                    _WEIGHTS[self.weights].set(layer.weight, layer.in_features)
                    _BIASES[self.biases].set(layer.bias, layer.in_features)
        return net


def _moments(images: Tensor) -> tuple[float, float]:
    return float(images.mean(dtype=torch.float64)), float(images.to(torch.float64).std())


def _tried() -> tuple[Candidate, ...]:
    plain = [
        Candidate(units, weights, standardised=standardised)
        for units in _UNITS
        for weights in _WEIGHTS
        if weights != "normal_0_2" or units == "tanh"
        for standardised in (False, True)
    ]
    # Small positive biases keep rectified units from dying at once; the other is what Torch7's layers did.
    biased = [Candidate("rectified", "normal_0_05", "tenth"), Candidate("rectified", "uniform", "uniform")]
    return (*plain, *biased)


CANDIDATES: Final = _tried()
"""All that are tried."""

rectified: Final = SimpleNamespace(**{each.name: each for each in CANDIDATES if each.units == "rectified"})
tanh: Final = SimpleNamespace(**{each.name: each for each in CANDIDATES if each.units == "tanh"})
