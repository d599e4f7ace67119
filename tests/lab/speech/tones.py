"""Small corpora whose truth is known: each letter of a word is a tone, in a recording with a little noise."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["LETTER_SECONDS", "RATE", "WORDS", "spoken", "write_corpus", "write_wav"]

RATE = 8000
LETTER_SECONDS = 0.12
PAUSE_SECONDS = 0.1
WORDS = ("ab", "ba", "cb")
HERTZ = {"a": 400.0, "b": 1100.0, "c": 2500.0}


def spoken(words: tuple[str, ...], speaker: int, take: int, rate: int = RATE) -> NDArray[np.float64]:
    """Return a signal: a pause, then words with pauses between them and behind; speakers differ in pitch and loudness."""
    random = np.random.default_rng((speaker, take))
    pause = np.zeros(round(PAUSE_SECONDS * rate))
    pieces = [pause]
    for word in words:
        for letter in word:
            seconds = np.arange(round(LETTER_SECONDS * rate)) / rate
            pieces.append(np.sin(2 * np.pi * HERTZ[letter] * (1 + 0.02 * speaker) * seconds))
        pieces.append(pause)
    signal = np.concatenate(pieces) * (0.3 + 0.1 * speaker)
    return signal + 0.003 * random.standard_normal(len(signal))


def write_wav(path: Path, signal: NDArray[np.float64], rate: int = RATE) -> Path:
    """Write a signal, (samples,) or (samples, channels), full scale at 1, as a wav file of 16 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(signal.shape[1] if signal.ndim == 2 else 1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.round(np.clip(signal, -1, 1) * 32767).astype("<i2").tobytes())
    return path


def write_corpus(root: Path, speakers: int = 4, takes: int = 4) -> Path:
    """Write a folder as LibriSpeech's are: each speaker says each word, and two words together, `takes` times."""
    for speaker in range(speakers):
        folder, lines = root / f"s{speaker}" / "7", []
        for number, words in enumerate([*[(word,) for word in WORDS], ("ab", "cb")]):
            for take in range(takes):
                name = f"s{speaker}-7-{number}{take}"
                write_wav(folder / f"{name}.wav", spoken(words, speaker, 10 * number + take))
                lines.append(f"{name} {' '.join(words).upper()}")
        (folder / f"s{speaker}-7.trans.txt").write_text("\n".join(lines) + "\n")
    return root
