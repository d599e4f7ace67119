"""Filter banks beside another implementation, and log-energies and cepstra of signals whose spectrum is known."""

from __future__ import annotations

import numpy as np
import pytest
from tests.requirements import require_installed, require_release

from steprule.lab.speech.features import BANDS, cepstra, filter_bank, log_energies, normalise

RATE = 8000


@pytest.mark.parametrize(("rate", "bins"), [(8000, 257), (16_000, 513)])
def test_the_filters_are_those_of_transformers(rate: int, bins: int) -> None:
    require_installed("transformers")
    require_release("transformers", "4.52", "its filters are other ones")
    from transformers.audio_utils import mel_filter_bank

    theirs = mel_filter_bank(
        bins, BANDS, 20.0, rate / 2, rate, norm=None, mel_scale="kaldi", triangularize_in_mel_space=True
    )
    np.testing.assert_allclose(filter_bank(rate, bins), theirs, atol=1e-9)


def test_no_filter_is_empty_and_neighbours_share_what_lies_between() -> None:
    bank = filter_bank(RATE, 257)
    assert bank.shape == (257, BANDS) and (bank.max(axis=0) > 0.3).all()
    inside = np.flatnonzero(bank.argmax(axis=1) > 0)[:-20]
    np.testing.assert_allclose(bank[inside].sum(axis=1), 1.0)


@pytest.mark.parametrize("hertz", [250, 700, 1500, 3200])
def test_a_tone_is_loudest_in_its_band(hertz: int) -> None:
    signal = (0.5 * np.sin(2 * np.pi * hertz * np.arange(RATE) / RATE)).astype(np.float32)
    energies = log_energies(signal, RATE)
    bank = filter_bank(RATE, 257)
    expected = bank[round(hertz / (RATE / 2) * 256)].argmax()
    assert (np.abs(energies[5:-5].argmax(axis=1) - expected) <= 1).all()


@pytest.mark.parametrize(
    ("samples", "frames"), [(1, 1), (39, 1), (80, 1), (119, 1), (120, 2), (8000, 100), (8050, 101)]
)
def test_there_is_a_frame_for_every_ten_milliseconds(samples: int, frames: int) -> None:
    energies = log_energies(np.random.default_rng(0).standard_normal(samples).astype(np.float32), RATE)
    assert energies.shape == (frames, BANDS) and energies.dtype == np.float32 and np.isfinite(energies).all()


def test_twice_as_loud_is_the_same_step_in_every_band_and_silence_has_a_floor() -> None:
    signal = np.random.default_rng(0).standard_normal(4000).astype(np.float32) / 10
    np.testing.assert_allclose(log_energies(2 * signal, RATE) - log_energies(signal, RATE), np.log(4), atol=1e-4)
    silence = log_energies(np.zeros(4000, np.float32), RATE)
    assert np.ptp(silence) == 0 and silence[0, 0] == pytest.approx(-30 * np.log(2))


def test_the_differences_of_a_ramp_are_its_slope() -> None:
    ramp = np.outer(np.arange(20), np.ones(BANDS)).astype(np.float32)
    found = cepstra(ramp)
    assert found.shape == (20, 39)
    # A constant over the bands is in the first coefficient alone, times the root of their number.
    np.testing.assert_allclose(found[:, 0], np.arange(20) * np.sqrt(BANDS), rtol=1e-6)
    np.testing.assert_allclose(found[:, 1:13], 0, atol=1e-5)
    np.testing.assert_allclose(found[2:-2, 13], np.sqrt(BANDS), rtol=1e-6)
    np.testing.assert_allclose(found[4:-4, 26], 0, atol=1e-5)


def test_each_speaker_is_normalised_alone() -> None:
    random = np.random.default_rng(0)
    features = [(random.standard_normal((30, 4)) * scale + scale).astype(np.float32) for scale in (1, 10, 1, 10)]
    features[0][:, 3] = features[2][:, 3] = 5.0
    found = normalise(features, ["p", "q", "p", "q"])
    for members in ((0, 2), (1, 3)):
        joined = np.concatenate([found[each] for each in members])
        np.testing.assert_allclose(joined.mean(axis=0), 0, atol=1e-6)
        np.testing.assert_allclose(joined.std(axis=0)[:3], 1, atol=1e-5)
    assert not found[0][:, 3].any(), "a dimension that never changes is 0"
