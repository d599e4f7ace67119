"""Wav files of every kind that people have, and what is said of those that are not sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile
from tests.lab.speech.tones import RATE, spoken, write_wav

from steprule.lab.data import DataError
from steprule.lab.speech.wav import Notices, read_wav


def tone(hertz: float = 440.0, rate: int = RATE, seconds: float = 0.5) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def peak(signal: np.ndarray, rate: int) -> float:
    return float(np.abs(np.fft.rfft(signal)).argmax() * rate / len(signal))


@pytest.mark.parametrize(
    ("stored", "tolerance"),
    [
        (lambda x: np.round(x * 127 + 128).astype(np.uint8), 2**-6),
        (lambda x: np.round(x * 32767).astype(np.int16), 2**-14),
        (lambda x: np.round(x * (2**31 - 1)).astype(np.int32), 2**-22),
        (lambda x: x.astype(np.float32), 0),
        (lambda x: x, 2**-24),
    ],
    ids=["uint8", "int16", "int32", "float32", "float64"],
)
def test_samples_of_every_type_are_scaled_to_one(stored: object, tolerance: float, tmp_path: Path) -> None:
    signal = tone()
    wavfile.write(tmp_path / "a.wav", RATE, stored(signal))  # type: ignore[operator]
    found, rate = read_wav(tmp_path / "a.wav", "a", None, Notices())
    assert rate == RATE and found.dtype == np.float32
    np.testing.assert_allclose(found, signal.astype(np.float32), atol=tolerance, rtol=0)


def test_a_file_is_read_from_its_bytes_too(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", tone())
    from_path, _ = read_wav(path, "a", None, Notices())
    from_bytes, _ = read_wav(path.read_bytes(), "a", None, Notices())
    np.testing.assert_array_equal(from_path, from_bytes)


def test_channels_are_averaged_with_a_notice(tmp_path: Path) -> None:
    left, right = tone(440), tone(660)
    path = write_wav(tmp_path / "a.wav", np.stack([left, right], axis=1))
    notices = Notices()
    found, _ = read_wav(path, "both", RATE, notices)
    np.testing.assert_allclose(found, (left + right) / 2, atol=1e-4)
    with pytest.warns(UserWarning, match="the channels of a wav file with 2 of them are averaged: both"):
        notices.tell()


@pytest.mark.parametrize("other", [16_000, 11_025, 6_000])
def test_another_rate_is_resampled_with_a_notice(other: int, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", tone(rate=other), other)
    notices = Notices()
    for name in ("one", "two"):
        found, rate = read_wav(path, name, RATE, notices)
    assert rate == RATE and abs(len(found) - RATE / 2) <= 1
    assert abs(peak(found, RATE) - 440) <= 2
    with pytest.warns(UserWarning, match=f"of {other} Hz is resampled to 8000 Hz: 2 files, the first of which is one"):
        notices.tell()


def test_what_is_as_it_should_be_gives_no_notice(tmp_path: Path) -> None:
    notices = Notices()
    read_wav(write_wav(tmp_path / "a.wav", tone()), "a", RATE, notices)
    notices.tell()  # any warning fails the test


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_truncated_file_is_refused_with_its_name(kept: float, tmp_path: Path) -> None:
    whole = write_wav(tmp_path / "a.wav", spoken(("ab",), 0, 0)).read_bytes()
    with pytest.raises(DataError, match="speaker/7 is truncated"):
        read_wav(whole[: int(kept * len(whole)) // 2 * 2], "speaker/7", RATE, Notices())


@pytest.mark.parametrize("content", [b"", b"RIFF", b"ID3\x03 not a wav file at all" * 9, b"RIFF\x24\x00\x00\x00WAVE"])
def test_what_is_no_wav_file_is_refused_with_its_name(content: bytes) -> None:
    with pytest.raises(DataError, match="speaker/7"):
        read_wav(content, "speaker/7", RATE, Notices())


@pytest.mark.parametrize("end", range(0, 60, 4))
def test_a_file_that_ends_anywhere_in_its_header_is_refused_with_its_name(end: int, tmp_path: Path) -> None:
    whole = write_wav(tmp_path / "a.wav", tone()).read_bytes()
    with pytest.raises(DataError, match="speaker/7"):
        read_wav(whole[:end], "speaker/7", RATE, Notices())


def test_no_samples_and_no_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="empty holds no samples"):
        read_wav(write_wav(tmp_path / "a.wav", np.zeros(0)), "empty", RATE, Notices())
    wavfile.write(tmp_path / "b.wav", RATE, np.array([0, np.nan], np.float32))
    with pytest.raises(DataError, match="b holds samples that are not finite"):
        read_wav(tmp_path / "b.wav", "b", RATE, Notices())


def test_a_rate_of_less_than_a_sample_in_each_frame_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    for rate in (0, 99):
        wavfile.write(path, rate, np.zeros(100, np.int16))
        with pytest.raises(DataError, match=f"a.wav has a rate of {rate} Hz; allowed is 100 Hz at least"):
            read_wav(path, "a.wav", RATE, Notices())
