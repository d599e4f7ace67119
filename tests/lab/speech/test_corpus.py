"""Where recordings and their words come from, and what a folder must have."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tests.lab.speech.tones import spoken, write_corpus, write_wav
from tests.requirements import require_data_set

from steprule.lab.data import DataError
from steprule.lab.speech.corpus import folder, fsdd


def test_the_spoken_digits_are_the_published_ones() -> None:
    require_data_set("fsdd")
    corpus = fsdd()
    assert len(corpus.recordings) == 3000
    assert set(Counter(each.speaker for each in corpus.recordings).values()) == {500}
    assert set(Counter(each.words for each in corpus.recordings).values()) == {300}
    assert {each.words[0] for each in corpus.recordings if each.name.startswith("7_")} == {"seven"}


def test_a_folder_as_librispeechs_is_read(tmp_path: Path) -> None:
    corpus = folder(write_corpus(tmp_path / "speech", speakers=2, takes=1))
    assert corpus.title == "corpus speech"
    assert [(each.name, each.speaker, each.words) for each in corpus.recordings[:4]] == [
        ("s0/7/s0-7-00", "s0", ("ab",)),
        ("s0/7/s0-7-10", "s0", ("ba",)),
        ("s0/7/s0-7-20", "s0", ("cb",)),
        ("s0/7/s0-7-30", "s0", ("ab", "cb")),
    ]


def test_a_text_beside_each_file_is_read(tmp_path: Path) -> None:
    for name, text in {"ann_1": "Ab  cb\n", "bob-1": "BA", "ann_2": "ba"}.items():
        write_wav(tmp_path / f"{name}.WAV", spoken(("ab",), 0, 0))
        (tmp_path / f"{name}.txt").write_text(text)
    found = {each.name: (each.speaker, each.words) for each in folder(tmp_path).recordings}
    assert found == {"ann_1": ("ann", ("ab", "cb")), "ann_2": ("ann", ("ba",)), "bob-1": ("bob", ("ba",))}


def test_the_identity_changes_with_the_words_and_the_sound(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "speech", speakers=1, takes=1)
    first = folder(root).identity
    assert folder(root).identity == first
    list_of_words = root / "s0" / "7" / "s0-7.trans.txt"
    list_of_words.write_text(list_of_words.read_text().replace("CB", "BC"))
    second = folder(root).identity
    write_wav(root / "s0" / "7" / "s0-7-00.wav", np.zeros(500))
    assert len({first, second, folder(root).identity}) == 3


def test_a_transcript_without_its_file_is_told(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "speech", speakers=1, takes=1)
    (root / "s0" / "7" / "s0-7-00.wav").unlink()
    with pytest.warns(UserWarning, match=r"transcripts without a wav file: 1, the first of which is .*s0-7-00"):
        assert len(folder(root).recordings) == 3


def test_what_is_missing_is_told_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent is not a folder; allowed is one with wav files and transcripts"):
        folder(tmp_path / "absent")
    with pytest.raises(DataError, match="has no wav file"):
        folder(tmp_path)
    write_wav(tmp_path / "ann_1.wav", spoken(("ab",), 0, 0))
    with pytest.raises(DataError, match=r"ann_1.wav has no transcript; allowed are .* and ann_1.txt beside it"):
        folder(tmp_path)
    (tmp_path / "ann_1.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"ann_1.txt is not text in UTF-8"):
        folder(tmp_path)
