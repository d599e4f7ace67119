"""What is said of an alignment: its durations, its recogniser, and its page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.lab.speech.tones import WORDS, spoken, write_corpus, write_wav

from steprule.lab.speech import facts
from steprule.lab.speech.chains import SILENCE
from steprule.lab.speech.corpus import folder
from steprule.lab.speech.prepared import Prepared, prepare
from steprule.report.speech.page import described, recognition, write_alignment


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Words alone, by three speakers."""
    root = tmp_path_factory.mktemp("single")
    for speaker in range(3):
        for number, word in enumerate(WORDS):
            for take in range(4):
                path = write_wav(
                    root / "speech" / f"s{speaker}_{word}{take}.wav", spoken((word,), speaker, 4 * number + take)
                )
                path.with_suffix(".txt").write_text(word)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("STEPRULE_CACHE", str(root / "cache"))
        return prepare(folder(root / "speech"))


def test_durations_are_those_of_the_paths(prepared: Prepared) -> None:
    # The pause before is left out in every third utterance; the word's states have 3, 5, 5 and 7 frames.
    paths = []
    for number, frames in enumerate(map(len, prepared.energies)):
        before = [] if number % 3 == 0 else [0] * 4 + [1] * 2 + [2] * 2
        word = [3] * 3 + [4] * 5 + [5] * 5 + [6] * 7
        behind = frames - len(before) - len(word)
        paths.append(np.array([*before, *word, 7, 8, *[9] * (behind - 2)]))
    found = {each.unit: each for each in facts.durations(replace(prepared, paths=paths))}
    assert list(found) == [SILENCE, *WORDS]
    for word in WORDS:
        assert found[word] == facts.Duration(word, 4, 12, 20.0, 0.0, 3.0, 7.0)
    pauses = [frames - 20 for frames in map(len, prepared.energies)]
    assert (found[SILENCE].states, found[SILENCE].count) == (3, 36 + 24)
    assert found[SILENCE].frames == pytest.approx(sum(pauses) / 60)
    # Its second state has 1 frame behind each word and 2 before two thirds of them.
    assert found[SILENCE].shortest == pytest.approx((36 + 2 * 24) / 60)


def test_words_are_recognised_of_whom_no_model_has_heard(prepared: Prepared) -> None:
    told = []
    speakers = facts.speakers_held_out(prepared, lambda: told.append(1))
    recordings = facts.recordings_held_out(prepared, lambda: told.append(1))
    assert len(told) == facts.trainings(prepared)
    assert recordings is not None and (recordings.words, recordings.share) == (9, 100.0)
    assert [(each.name, each.words) for each in speakers] == [("s0", 12), ("s1", 12), ("s2", 12)]
    assert np.mean([each.share for each in speakers]) >= 90
    own = facts.by_speaker(prepared)
    assert [each.name for each in own] == ["s0", "s1", "s2"] and own[0].share == 100.0
    assert "100.0 % of 9" in recognition(speakers, recordings)


def test_speakers_who_say_each_word_once_have_no_recordings_to_leave_out(prepared: Prepared) -> None:
    once = prepared.of(("s0", "s1", "s2"))[::4]
    some = replace(
        prepared,
        energies=[prepared.energies[each] for each in once],
        features=[prepared.features[each] for each in once],
        paths=[prepared.paths[each] for each in once],
        recordings=tuple(prepared.recordings[each] for each in once),
    )
    told = []
    assert facts.recordings_held_out(some) is None
    speakers = facts.speakers_held_out(some, lambda: told.append(1))
    assert len(told) == facts.trainings(some)
    assert "no speaker says a word twice" in recognition(speakers, None)


def test_a_speaker_of_whom_all_is_left_out_is_not_counted(prepared: Prepared) -> None:
    split = replace(prepared.split, train=("nobody", *prepared.split.train))
    assert [(each.name, each.share > 0) for each in facts.by_speaker(replace(prepared, split=split))] == [
        ("s0", True),
        ("s1", True),
        ("s2", True),
    ]


def test_the_page_says_it_all(prepared: Prepared, tmp_path: Path) -> None:
    speakers = [facts.Recognised(name, 11, 12) for name in ("s0", "s1", "s2")]
    lengths = facts.durations(prepared)
    page = write_alignment(prepared, lengths, speakers, speakers, speakers[0], tmp_path).read_text()
    assert described(prepared) in page and "15 states (senones): 3 of silence and 12 of 3 words" in page
    assert page.count("91.7") >= 6
    for name in ("alignment-training", "alignment-validation", "alignment-test", "likelihood"):
        assert (tmp_path / "figures" / f"{name}.svg").is_file()


def test_of_utterances_of_several_words_nothing_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPRULE_CACHE", str(tmp_path / "cache"))
    several = prepare(folder(write_corpus(tmp_path / "speech", speakers=3, takes=1)))
    assert facts.by_speaker(several) == facts.speakers_held_out(several) == []
    assert facts.recordings_held_out(several) is None and facts.trainings(several) == 0
    assert "several words" in recognition([], None)
    assert (
        "Words recognised"
        not in write_alignment(several, facts.durations(several), [], [], None, tmp_path / "p").read_text()
    )
