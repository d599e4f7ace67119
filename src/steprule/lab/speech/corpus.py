"""Recordings with who speaks and what is said: the Free Spoken Digit Dataset, or a folder of wav files and transcripts."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .. import data
from ..data import DATA_SETS, DataError

__all__ = ["Corpus", "Recording", "folder", "fsdd"]

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class Recording:
    """One utterance: a name, the speaker, the words, and the wav file, as its path or its bytes."""

    name: str
    speaker: str
    words: tuple[str, ...]
    wav: Path | bytes


@dataclass(frozen=True)
class Corpus:
    """Recordings in the order of their names; `identity` is another when any of them is."""

    title: str
    identity: str
    recordings: tuple[Recording, ...]


def fsdd() -> Corpus:
    """Return the Free Spoken Digit Dataset: six speakers, each of whom says ten words 50 times.

    Raises `DataError` where it cannot be had.
    """
    recordings = []
    for name, content in data.fsdd().items():
        digit, speaker, _ = name.split("_")
        recordings.append(Recording(name.removesuffix(".wav"), speaker, (_DIGITS[int(digit)],), content))
    (file,) = DATA_SETS["fsdd"].files
    return Corpus("Free Spoken Digit Dataset", file.sha256, tuple(recordings))


def folder(root: Path) -> Corpus:
    """Return the wav files below `root` with their transcripts.

    A transcript is a line `NAME WORDS` in a file `*.trans.txt` in the wav file's folder, as in LibriSpeech, or else the text
    of a file `NAME.txt` beside `NAME.wav`. Words lie between white space, and capitals count as small letters. The speaker
    is the first folder below `root`; where the wav file lies in `root` itself, its name up to the first "-" or "_".

    Raises:
        DataError: `root` is no folder or has no wav file, or a wav file has no transcript.
    """
    if not root.is_dir():
        raise DataError(f"the corpus {root} is not a folder; allowed is one with wav files and transcripts")
    paths = sorted(path for path in root.rglob("*") if path.suffix.lower() == ".wav" and path.is_file())
    if not paths:
        raise DataError(f"the corpus {root} has no wav file; allowed is a folder with wav files and transcripts")
    listed = dict(_listed(root))
    recordings = [_recording(path, root, listed) for path in paths]
    unused = sorted(path.as_posix() for path in listed.keys() - {path.with_suffix("") for path in paths})
    if unused:
        warnings.warn(
            f"transcripts without a wav file: {len(unused)}, the first of which is {unused[0]}",
            UserWarning,
            stacklevel=2,
        )
    return Corpus(f"corpus {root.name}", _identity(root, recordings), tuple(recordings))


def _listed(root: Path) -> Iterator[tuple[Path, str]]:
    """The words of each line of LibriSpeech's files, by the path of its wav file without the ending."""
    for file in sorted(root.rglob("*.trans.txt")):
        for line in _text(file).splitlines():
            name, _, words = line.strip().partition(" ")
            if name:
                yield file.parent / name, words


def _recording(path: Path, root: Path, listed: dict[Path, str]) -> Recording:
    beside = path.with_suffix(".txt")
    text = listed.get(path.with_suffix(""))
    if text is None and beside.is_file():
        text = _text(beside)
    words = tuple((text or "").lower().split())
    if not words:
        raise DataError(
            f"{path} has no transcript; allowed are a line with its name in a *.trans.txt in its folder, and {beside.name} "
            "beside it"
        )
    inside = path.relative_to(root)
    speaker = inside.parts[0] if len(inside.parts) > 1 else path.stem.replace("_", "-").partition("-")[0]
    return Recording(inside.with_suffix("").as_posix(), speaker, words, path)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not text in UTF-8 ({error.reason} at byte {error.start})") from error


def _identity(root: Path, recordings: list[Recording]) -> str:
    """A hash of names, words, and the sizes and times of change of the wav files; their contents may be many gigabytes."""
    total = hashlib.sha256(str(root.resolve()).encode())
    for each in recordings:
        assert isinstance(each.wav, Path)
        status = each.wav.stat()
        total.update(f"{each.name} {each.words} {status.st_size} {status.st_mtime_ns}\n".encode())
    return total.hexdigest()
