"""Wav files as mono signals: what is broken is refused with its name, what is merely different is told and converted."""

from __future__ import annotations

import io
import math
import struct
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..data import DataError

__all__ = ["Notices", "read_wav"]

# That of a sample in each step of 10 ms from one frame to the next.
_LEAST_RATE: Final = 100


@dataclass
class Notices:
    """What was converted while many files were read, to be told once and not file by file."""

    found: dict[str, list[str]] = field(default_factory=dict)

    def add(self, notice: str, name: str) -> None:
        self.found.setdefault(notice, []).append(name)

    def tell(self) -> None:
        """Warn of each kind of notice, with how many files it is of and the first of them."""
        for notice, names in self.found.items():
            files = names[0] if len(names) == 1 else f"{len(names)} files, the first of which is {names[0]}"
            warnings.warn(f"{notice}: {files}", UserWarning, stacklevel=2)


def read_wav(source: Path | bytes, name: str, rate: int | None, notices: Notices) -> tuple[NDArray[np.float32], int]:
    """Return the signal of a wav file, shape (samples,), full scale at 1, and its rate in Hz.

    Several channels are averaged, and another rate than `rate` is resampled to it; both are noted in `notices`. Integer
    samples of 8 to 32 bits and floating-point ones are read.

    Raises:
        DataError: the file is truncated, is no wav file, has no samples, holds numbers that are not finite, or has a rate
            below 100 Hz.
    """
    found, samples = _parsed(source, name)
    if found < _LEAST_RATE:
        raise DataError(f"{name} has a rate of {found} Hz; allowed is {_LEAST_RATE} Hz at least")
    signal = _scaled(samples)
    if signal.ndim == 2:
        notices.add(f"the channels of a wav file with {signal.shape[1]} of them are averaged", name)
        signal = signal.mean(axis=1)
    if signal.size == 0:
        raise DataError(f"{name} holds no samples; allowed is a wav file with sound")
    if not np.isfinite(signal).all():
        raise DataError(f"{name} holds samples that are not finite; allowed are numbers")
    if rate is not None and found != rate:
        from scipy.signal import resample_poly

        notices.add(f"a wav file of {found} Hz is resampled to {rate} Hz", name)
        common = math.gcd(rate, found)
        signal = resample_poly(signal, rate // common, found // common)
    return signal.astype(np.float32), rate or found


def _parsed(source: Path | bytes, name: str) -> tuple[int, NDArray[np.generic]]:
    from scipy.io import wavfile

    file = io.BytesIO(source) if isinstance(source, bytes) else source
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", wavfile.WavFileWarning)  # of chunks that hold no sound
        # SciPy only warns of a file that ends within its samples, and returns what there is.
        warnings.filterwarnings("error", "Reached EOF prematurely", wavfile.WavFileWarning)
        try:
            rate, samples = wavfile.read(file)
        except wavfile.WavFileWarning as error:
            raise DataError(f"{name} is truncated: {str(error).rstrip('.')}") from error
        # The parser meets bytes that are no wav file with several kinds of error.
        except (ValueError, EOFError, TypeError, UnboundLocalError, ArithmeticError, struct.error) as error:
            raise DataError(f"{name} is no whole wav file ({str(error).rstrip('.')})") from error
    return int(rate), samples


def _scaled(samples: NDArray[np.generic]) -> NDArray[np.float64]:
    if samples.dtype == np.uint8:  # 8-bit samples are unsigned, with silence at 128
        return (samples.astype(np.float64) - 128) / 128
    if samples.dtype.kind == "i":
        return samples.astype(np.float64) / 2.0 ** (8 * samples.dtype.itemsize - 1)
    return samples.astype(np.float64)
