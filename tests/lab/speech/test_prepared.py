"""What is made of a corpus once, and kept; who is trained on and who is not."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
from tests.lab.speech.tones import spoken, write_corpus, write_wav

import steprule.lab.speech.prepared as module
from steprule.lab.data import DataError
from steprule.lab.speech.corpus import folder
from steprule.lab.speech.prepared import Prepared, Split, prepare


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STEPRULE_CACHE", str(tmp_path / "cache"))
    return write_corpus(tmp_path / "speech", speakers=3, takes=2)


def equal(one: Prepared, other: Prepared) -> bool:
    pairs = [*zip(one.energies, other.energies, strict=True), *zip(one.paths, other.paths, strict=True)]
    return one.iterations == other.iterations and all(np.array_equal(*pair) for pair in pairs)


def test_speakers_are_in_one_part_each() -> None:
    assert Split.of("abc") == Split(("a",), ("b",), ("c",))
    assert Split.of("fedcbafed") == Split(("a", "b", "c", "d"), ("e",), ("f",))
    split = Split.of([f"{number:02}" for number in range(20)])
    assert [len(split.train), len(split.validation), len(split.test)] == [14, 3, 3]
    with pytest.raises(DataError, match="the corpus has the speakers a, b; allowed are three at least"):
        Split.of("abab")


def test_everything_is_made_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare(folder(root))
    assert len(first.recordings) == 24 and first.split == Split(("s0",), ("s1",), ("s2",))
    assert all(len(a) == len(b) == len(c) for a, b, c in zip(first.energies, first.features, first.paths, strict=True))

    def never(*_: object) -> None:
        raise AssertionError("made again")

    with monkeypatch.context() as patched:
        for name in ("log_energies", "train"):
            # What is made is known by the text of the file that its function stands in.
            patched.setattr(module, name, functools.update_wrapper(functools.partial(never), getattr(module, name)))
        assert equal(prepare(folder(root)), first)
    # A change in the corpus is seen.
    write_wav(root / "s0" / "7" / "s0-7-00.wav", spoken(("ab",), 0, 99))
    assert not equal(prepare(folder(root)), first)


def test_the_mixtures_know_the_training_speaker_alone(root: Path) -> None:
    first = prepare(folder(root))
    for speaker in ("s1", "s2"):
        for path in sorted((root / speaker / "7").glob("*.wav"))[:1]:
            write_wav(path, spoken(("ab",), 3, 77))
    second = prepare(folder(root))
    np.testing.assert_array_equal(first.model.mixtures.means, second.model.mixtures.means)
    assert not equal(first, second)


def test_a_damaged_file_in_the_cache_is_told(root: Path, tmp_path: Path) -> None:
    prepare(folder(root))
    (kept,) = (tmp_path / "cache" / "speech").glob("alignment-*.npz")
    kept.write_bytes(kept.read_bytes()[:-300])
    with pytest.raises(DataError, match=r"alignment-.*\.npz cannot be read .*; once deleted it is made again"):
        prepare(folder(root))


def test_what_cannot_be_aligned_is_left_out_with_a_warning(root: Path) -> None:
    write_wav(root / "s1" / "7" / "s1-7-00.wav", spoken(("ab",), 0, 0)[:240])
    words = root / "s2" / "7" / "s2-7.trans.txt"
    words.write_text(words.read_text().replace("s2-7-00 AB", "s2-7-00 ABACUS"))
    with pytest.warns(UserWarning, match="are left out") as told:
        made = prepare(folder(root))
    texts = [str(each.message) for each in told]
    assert any(
        "with a word that no training speaker says are left out: 1, the first of which is s2/7/s2-7-00" in t
        for t in texts
    )
    assert any(
        "shorter than their words' states are left out: 1, the first of which is s1/7/s1-7-00" in t for t in texts
    )
    assert len(made.recordings) == 22


@pytest.mark.parametrize(("speaker", "use"), [("s0", "train"), ("s1", "choose"), ("s2", "test")])
def test_a_part_of_which_all_is_left_out_is_told(root: Path, speaker: str, use: str) -> None:
    for path in (root / speaker / "7").glob("*.wav"):
        write_wav(path, spoken(("ab",), 0, 0)[:240])
    with (
        pytest.warns(UserWarning, match="shorter than their words' states are left out: 8"),
        pytest.raises(DataError, match=f"all utterances of {speaker}, whom the corpus has to {use} by, are left out"),
    ):
        prepare(folder(root))


def test_a_broken_file_stops_the_work_with_its_name(root: Path) -> None:
    path = root / "s1" / "7" / "s1-7-00.wav"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match="s1/7/s1-7-00 is truncated"):
        prepare(folder(root))
    assert not list((root.parent / "cache").rglob("*.npz"))
