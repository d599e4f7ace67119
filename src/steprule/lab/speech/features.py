"""What is computed of a signal: log-energy filter banks, and the cepstra that the GMM-HMM takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["BANDS", "CEPSTRA", "STEP", "WINDOW", "cepstra", "filter_bank", "log_energies", "normalise"]

BANDS = 40
WINDOW = 0.025
"""Seconds of signal in a frame."""
STEP = 0.010
"""Seconds from one frame to the next."""
CEPSTRA = 13
"""Cepstral coefficients; with their first and second differences in time a frame has three times as many."""

_LOWEST = 20.0
_EMPHASIS = 0.97
# The square of one step of a 16-bit sample: below it a log-energy would tell of rounding and not of sound.
_FLOOR = 2.0**-30
# Frames on each side that a difference in time is fitted over (Young et al., The HTK Book, eq. 5.16).
_REACH = 2


@cache
def filter_bank(rate: int, bins: int, bands: int = BANDS) -> NDArray[np.float64]:
    """Return triangular filters with centres at equal distances on the mel scale, shape (bins, bands), float64.

    They reach from 20 Hz to half of `rate`, in Hz, each from its neighbour's centre to the other's, with the height 1.
    `bins` are those of a real Fourier transform, from 0 Hz to half of `rate`.

    Source: Young et al., The HTK Book, 5.4.
    """
    hertz = np.linspace(0, rate / 2, bins)
    edges = np.linspace(_mel(np.array(_LOWEST)), _mel(np.array(rate / 2)), bands + 2)
    place = _mel(hertz)[:, None]
    rising = (place - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - place) / (edges[2:] - edges[1:-1])
    return np.maximum(0.0, np.minimum(rising, falling))


def _mel(hertz: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1127.0 * np.log1p(hertz / 700.0)


def log_energies(signal: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """Return the log-energies of a signal in 40 bands, in windows of 25 ms every 10 ms: shape (frames, 40), float32.

    `signal` has shape (samples,), full scale at 1. There is a frame for every 10 ms of it, at least one, the windows around
    their middles; at both ends the signal is mirrored. High frequencies are raised by 1 - 0.97 z⁻¹; windows are Hamming's.
    """
    width, step = round(WINDOW * rate), round(STEP * rate)
    frames = max(1, (len(signal) + step // 2) // step)
    samples = signal.astype(np.float64)
    raised = np.append(samples[:1] * (1 - _EMPHASIS), samples[1:] - _EMPHASIS * samples[:-1])
    before = (width - step) // 2
    after = max(0, (frames - 1) * step + width - before - len(raised))
    mirrored = np.pad(raised, (before, after), "symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(mirrored, width)[: frames * step : step][:frames]
    # Twice the next power of two: the lowest filters are narrower than the bins of the shortest transform.
    size = 2 ** (int(np.ceil(np.log2(width))) + 1)
    power = np.abs(np.fft.rfft(windows * np.hamming(width), size)) ** 2 / width
    return np.log(np.maximum(power @ filter_bank(rate, size // 2 + 1), _FLOOR)).astype(np.float32)


def cepstra(energies: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return 13 cepstral coefficients of log-energies with their first and second differences: shape (frames, 39), float32.

    The bands of log-energies go together; the cosine transform takes that away, as Gaussians with diagonal covariances need.
    """
    from scipy.fft import dct

    still = dct(energies.astype(np.float64), norm="ortho", axis=1)[:, :CEPSTRA]
    first = _difference(still)
    return np.hstack([still, first, _difference(first)]).astype(np.float32)


def _difference(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The slope of the line through the frames around each."""
    padded = np.pad(values, ((_REACH, _REACH), (0, 0)), "edge")
    frames = len(values)
    slopes = sum(
        k * (padded[_REACH + k : _REACH + k + frames] - padded[_REACH - k : _REACH - k + frames])
        for k in range(1, _REACH + 1)
    )
    return np.asarray(slopes / (2 * sum(k * k for k in range(1, _REACH + 1))))


def normalise(features: Sequence[NDArray[np.float32]], speakers: Iterable[str]) -> list[NDArray[np.float32]]:
    """Return each utterance's features, (frames, dimensions), with mean 0 and variance 1 over all frames of its speaker."""
    groups: dict[str, list[int]] = {}
    for number, speaker in enumerate(speakers):
        groups.setdefault(speaker, []).append(number)
    found = list(features)
    for members in groups.values():
        joined = np.concatenate([features[member] for member in members]).astype(np.float64)
        mean, deviation = joined.mean(axis=0), joined.std(axis=0)
        deviation[deviation == 0] = 1.0  # a dimension that never changes says nothing
        for member in members:
            found[member] = ((features[member] - mean) / deviation).astype(np.float32)
    return found
