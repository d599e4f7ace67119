"""Effective learning rates, update over gradient, of a few dimensions of each layer: what a monitor has recorded.

It knows no framework: `steprule.torch.RateMonitor` and the callbacks of Lightning and Keras write into it.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .counts import check_count
from .folders import replace

__all__ = ["COLUMNS", "LayerRates", "Rates", "Record", "Sampler"]

COLUMNS: Final = ("step", "layer", "dimension", "rate", "update", "gradient", "rounding")
"""What a table has, in this order."""

COARSE: Final = 0.1
"""The share of an update that its rounding may make up before the rate counts as coarse."""


@dataclass(frozen=True)
class Record:
    """One layer at one step: float64 arrays of shape (dimensions,), `dimension` int64.

    `rounding` bounds the error of `update` that comes from the parameter being rounded to its dtype.
    """

    step: int
    layer: str
    dimension: NDArray[np.int64]
    update: NDArray[np.float64]
    gradient: NDArray[np.float64]
    rounding: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        step: int,
        layer: str,
        dimension: NDArray[np.int64],
        before: NDArray[np.float64],
        after: NDArray[np.float64],
        gradient: NDArray[np.float64],
        eps: float,
    ) -> Record:
        """Return what a step has done to a parameter in whose dtype 1 is followed by 1 + `eps`."""
        largest = np.maximum(np.abs(before), np.abs(after))
        # Half a unit in the last place; `frexp` has a mantissa from 0.5 to 1.
        half = np.where(largest == 0, 0.0, np.ldexp(eps / 4, np.frexp(largest)[1]))
        return cls(step, layer, dimension, after - before, gradient, half)

    @property
    def rate(self) -> NDArray[np.float64]:
        """-update / gradient; NaN where the gradient is 0, infinite or NaN."""
        with np.errstate(all="ignore"):
            has_rate = (self.gradient != 0) & np.isfinite(self.gradient)
            return np.where(has_rate, -self.update / self.gradient, np.nan)

    def column(self, name: str) -> NDArray[Any]:
        """Return one of `COLUMNS`, (dimensions,)."""
        if name in ("step", "layer"):
            return np.full(len(self.dimension), getattr(self, name))
        found: NDArray[Any] = getattr(self, name)
        return found


@dataclass(frozen=True)
class LayerRates:
    """The effective learning rates of one layer at one step, over those sampled dimensions that have one.

    Without any, the quartiles are NaN. `without_gradient` dimensions had a gradient of 0 and are left out, and so are the
    `not_finite`, whose gradient or update is infinite or NaN; of the `measured`, `coarse` are those whose update may be off
    by more than a tenth, since the parameter was rounded.
    """

    step: int
    layer: str
    lower: float
    median: float
    upper: float
    measured: int
    without_gradient: int
    coarse: int
    not_finite: int

    @classmethod
    def of(cls, record: Record) -> LayerRates:
        rates = record.rate
        finite = np.isfinite(rates)
        quartiles = np.quantile(rates[finite], (0.25, 0.5, 0.75)) if finite.any() else np.full(3, np.nan)
        lower, median, upper = map(float, quartiles)
        coarse = record.rounding > COARSE * np.abs(record.update)
        return cls(
            record.step,
            record.layer,
            lower,
            median,
            upper,
            int(finite.sum()),
            int((record.gradient == 0).sum()),
            int((finite & coarse).sum()),
            int((~finite & (record.gradient != 0)).sum()),
        )


class Rates:
    """What was recorded, in the order of the steps. `writer`, if given, is told of each recorded step at once."""

    def __init__(self, writer: Any = None) -> None:
        self._records: list[Record] = []
        self._writer = writer

    def add(self, records: Iterable[Record]) -> None:
        """Keep the records of one step."""
        found = list(records)
        self._records += found
        if self._writer is not None:
            _write(found, self._writer)

    def table(self) -> dict[str, NDArray[Any]]:
        """Return what was recorded by column (`COLUMNS`), a row for each dimension at each recorded step.

        `step` counts from 1; `layer` is the parameter's name; `dimension` is the element's number in the parameter, read row
        by row; `rate` is -update / gradient, NaN where the gradient is 0; `rounding` is the largest error of `update`, and
        divided by the gradient that of `rate`, from the rounding of the parameter.
        """
        empty = Record(0, "", np.zeros(0, np.int64), *(np.zeros(0) for _ in range(3)))
        return {
            name: np.concatenate([each.column(name) for each in self._records or [empty]], dtype=_DTYPES.get(name))
            for name in COLUMNS
        }

    def summary(self, step: int | None = None) -> list[LayerRates]:
        """Return the quartiles of each layer's rates at a recorded step, the last one unless given.

        Raises `ValueError` for a step that was not recorded.
        """
        if step is None:
            step = self._records[-1].step if self._records else None
        found = [LayerRates.of(each) for each in self._records if each.step == step]
        if step is not None and not found:
            steps = sorted({each.step for each in self._records})
            raise ValueError(f"step is {step}; recorded are {_shortened(steps)}")
        return found

    def save(self, path: str | Path) -> None:
        """Write the table as CSV. Raises `OSError` where that cannot be."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(COLUMNS)
        columns = self.table()
        rows.writerows(zip(*(columns[name].tolist() for name in COLUMNS), strict=True))
        replace(Path(path), text.getvalue().encode())

    def to_tensorboard(self, writer: Any) -> None:
        """Write all that was recorded: for each layer three scalars, `rate/LAYER/median`, `lower` and `upper` (quartiles),
        and the rates as a histogram `rates/LAYER`.

        `writer` is a `torch.utils.tensorboard.SummaryWriter`, or has its `add_scalar` and `add_histogram`.
        """
        _write(self._records, writer)

    def state_dict(self) -> dict[str, Any]:
        """Return the table as lists of plain numbers and text, for a checkpoint."""
        return {name: column.tolist() for name, column in self.table().items()}

    def load_state_dict(self, state: Mapping[str, Sequence[Any]]) -> None:
        """Take over what `state_dict` returned in the place of what was recorded.

        Raises `ValueError` where it lacks a column.
        """
        missing = [name for name in COLUMNS if name not in state]
        if missing:
            raise ValueError(f"state has no {', '.join(missing)}; allowed is what state_dict() returned")
        self._records = list(_records(state))

    def __str__(self) -> str:
        """A line for each layer at the last recorded step."""
        summary = self.summary()
        if not summary:
            return "no step was recorded yet"
        rows = [("layer", "median rate", "quartiles", "dimensions"), *map(_said, summary)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        return "\n".join([f"effective learning rates at step {summary[0].step}", *lines])


_DTYPES: Final[Mapping[str, Any]] = {"step": np.int64, "dimension": np.int64}


def _records(state: Mapping[str, Sequence[Any]]) -> Iterable[Record]:
    columns = {
        name: np.asarray(state[name], _DTYPES.get(name, None if name == "layer" else np.float64)) for name in COLUMNS
    }
    keys = list(zip(columns["step"].tolist(), columns["layer"].tolist(), strict=True))
    begins = [place for place in range(len(keys)) if place == 0 or keys[place] != keys[place - 1]]
    for begin, end in itertools.pairwise([*begins, len(keys)]):
        parts = (columns[name][begin:end] for name in ("dimension", "update", "gradient", "rounding"))
        yield Record(*keys[begin], *parts)


def _said(layer: LayerRates) -> tuple[str, str, str, str]:
    every = layer.measured + layer.without_gradient + layer.not_finite
    notes = [f"{layer.without_gradient} without gradient"] if layer.without_gradient else []
    notes += [f"{layer.not_finite} infinite or NaN"] if layer.not_finite else []
    notes += [f"{layer.coarse} rounded by more than a tenth"] if layer.coarse else []
    told = f" ({', '.join(notes)})" if notes else ""
    return (
        layer.layer,
        f"{layer.median:.3g}",
        f"{layer.lower:.3g} to {layer.upper:.3g}",
        f"{layer.measured} of {every}{told}",
    )


def _shortened(steps: Sequence[int]) -> str:
    known = list(map(str, steps))
    return ", ".join(known if len(known) <= 8 else [*known[:4], "...", *known[-2:]]) or "none"


def _write(records: Iterable[Record], writer: Any) -> None:
    for record in records:
        rates = record.rate[np.isfinite(record.rate)]
        if not len(rates):
            continue
        summary = LayerRates.of(record)
        for name in ("median", "lower", "upper"):
            writer.add_scalar(f"rate/{record.layer}/{name}", getattr(summary, name), record.step)
        writer.add_histogram(f"rates/{record.layer}", rates, record.step)


@dataclass(frozen=True)
class Sampler:
    """Which steps are recorded, and which dimensions of a parameter: random ones, the same at every step.

    Raises `ValueError` for an `every` or a `sample` below 1 or a `seed` below 0.
    """

    every: int
    sample: int
    seed: int

    def __post_init__(self) -> None:
        for name, least in {"every": 1, "sample": 1, "seed": 0}.items():
            check_count(name, getattr(self, name), least)

    def dimensions(self, number: int, size: int) -> NDArray[np.int64]:
        """Return the dimensions of the parameter `number` of an optimizer, which has `size` elements: at most `sample`."""
        # A generator for each parameter, so that one more of them changes no other's dimensions.
        drawn = np.random.default_rng([self.seed, number])
        chosen = drawn.choice(size, min(self.sample, size), replace=False, shuffle=False)
        return np.sort(chosen.astype(np.int64))
