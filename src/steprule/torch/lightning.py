"""`RateMonitor` as a callback of Lightning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

try:
    from lightning.pytorch.callbacks import Callback
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(f"steprule.torch.lightning needs {missing.name}: pip install lightning") from missing

from ..rates import Sampler
from .monitor import RateMonitor

__all__ = ["RateMonitorCallback"]

_Callback: Any = Callback


class RateMonitorCallback(_Callback):  # type: ignore[misc]  # untyped where Lightning is not installed
    """Monitors each of the trainer's optimizers while it fits, and logs each layer's quartiles to the trainer's loggers.

    `monitors` has a `RateMonitor` for each optimizer, in their order, which stays when the fit ends; `every`, `sample` and
    `seed` are its arguments. Logged are `rate/LAYER/median`, `lower` and `upper`, with the number of the optimizer after
    `rate` where there are several. A checkpoint keeps what was recorded. Errors are those of `RateMonitor`.
    """

    def __init__(self, every: int = 60, sample: int = 10, seed: int = 0) -> None:
        Sampler(every, sample, seed)
        self._options: Final = {"every": every, "sample": sample, "seed": seed}
        self._loaded: list[Mapping[str, Any]] = []
        self.monitors: list[RateMonitor] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        several = len(trainer.optimizers) > 1
        self.monitors = [
            RateMonitor(
                each, model=pl_module, writer=_Loggers(trainer, f"/{number}" if several else ""), **self._options
            )
            for number, each in enumerate(trainer.optimizers)
        ]
        for monitor, state in zip(self.monitors, self._loaded, strict=False):
            monitor.load_state_dict(state)
        self._loaded = []

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002  # Lightning's signature
        self._remove()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:  # noqa: ARG002  # as above
        self._remove()

    def _remove(self) -> None:
        for monitor in self.monitors:
            monitor.remove()

    def state_dict(self) -> dict[str, Any]:
        """Return what the monitors have recorded, for a checkpoint."""
        return {"monitors": [each.state_dict() for each in self.monitors]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint holds, once the training starts."""
        self._loaded = list(state_dict["monitors"])


class _Loggers:
    """What a `RateMonitor` writes to, in the place of a `SummaryWriter`; a logger of Lightning takes no histogram."""

    def __init__(self, trainer: Any, number: str) -> None:
        self._trainer: Final = trainer
        self._number: Final = number

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        first, _, rest = tag.partition("/")
        for logger in self._trainer.loggers:
            logger.log_metrics({f"{first}{self._number}/{rest}": value}, step=step)

    def add_histogram(self, tag: str, values: Any, step: int) -> None:
        """Do nothing."""
