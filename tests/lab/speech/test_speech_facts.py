"""What is said of an alignment: its durations, its recogniser, and its page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.lab.speech.tones import LETTER_SECONDS, PAUSE_SECONDS, WORDS, spoken, write_corpus, write_wav

from steprule.lab.speech import facts
from steprule.lab.speech.chains import SILENCE
from steprule.lab.speech.corpus import folder
from steprule.lab.speech.features import STEP
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


def test_durations_are_those_of_the_tones(prepared: Prepared) -> None:
    found = {each.unit: each for each in facts.durations(prepared)}
    assert list(found) == [SILENCE, *WORDS]
    for word in WORDS:
        assert (found[word].states, found[word].count) == (4, 12)
        # Trained on one speaker's twelve recordings, a pause keeps some of the frames that hear both it and a tone.
        assert abs(found[word].frames - 2 * LETTER_SECONDS / STEP) <= 8
        assert found[word].shortest <= found[word].frames / 4 <= found[word].longest
    assert abs(found[SILENCE].frames - PAUSE_SECONDS / STEP) <= 5 and found[SILENCE].count == 72
    total = sum(each.frames * each.count for each in found.values())
    assert total == pytest.approx(sum(map(len, prepared.energies)))


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
