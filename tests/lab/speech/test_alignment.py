"""The alignment of tones whose borders are known, and of real speech, and the word recogniser that comes of it."""

from __future__ import annotations

import numpy as np
import pytest
from tests.lab.speech.tones import LETTER_SECONDS, PAUSE_SECONDS, RATE, WORDS, spoken
from tests.requirements import require_data_set

import steprule.lab.speech.alignment as alignment
from steprule.lab.speech.alignment import Iteration, Model, train
from steprule.lab.speech.corpus import fsdd
from steprule.lab.speech.features import STEP, cepstra, log_energies, normalise
from steprule.lab.speech.wav import Notices, read_wav

Trained = tuple[Model, list[Iteration], list[np.ndarray], list[tuple[str, ...]]]


def tones() -> tuple[list[np.ndarray], list[tuple[str, ...]]]:
    said = [words for words in [*[(word,) for word in WORDS], ("ab", "cb")] for _ in range(5)] * 2
    speakers = [number // (len(said) // 2) for number in range(len(said))]
    signals = [spoken(words, speaker, take) for take, (words, speaker) in enumerate(zip(said, speakers, strict=True))]
    raw = [log_energies(signal.astype(np.float32), RATE) for signal in signals]
    return normalise([cepstra(each) for each in raw], map(str, speakers)), said


@pytest.fixture(scope="module")
def trained() -> Trained:
    features, said = tones()
    return (*train(features, said), features, said)


def rises(iterations: list[Iteration]) -> None:
    for size in {each.components for each in iterations}:
        likelihoods = [each.log_likelihood for each in iterations if each.components == size]
        assert (np.diff(likelihoods) >= -1e-9).all(), f"with {size} components the likelihood falls: {likelihoods}"


def test_the_likelihood_rises_at_every_alignment(trained: Trained) -> None:
    _, iterations, _, _ = trained
    assert [each.components for each in iterations] == [1] * 12 + [2] * 4 + [4] * 4 + [8] * 4
    rises(iterations)
    assert iterations[-1].log_likelihood > iterations[0].log_likelihood + 1


def test_the_borders_of_tones_are_found(trained: Trained) -> None:
    model, _, features, said = trained
    paths = model.align(features, said)
    letters = round(LETTER_SECONDS / STEP)
    for words, path in zip(said, paths, strict=True):
        chain = model.inventory.chain(words)
        units = chain.units[path.places]
        start = PAUSE_SECONDS / STEP
        for number in range(len(words)):
            inside = np.flatnonzero(units == 2 * number + 1)
            # Second differences in time hear what begins four frames later.
            assert abs(inside[0] - start) <= 4 and abs(inside[-1] + 1 - (start + 2 * letters)) <= 4
            start += 2 * letters + PAUSE_SECONDS / STEP
        assert (np.diff(path.places) >= 0).all()


def test_the_words_of_tones_are_recognised(trained: Trained) -> None:
    model, _, features, said = trained
    single = [number for number, words in enumerate(said) if len(words) == 1]
    assert model.recognise([features[number] for number in single]) == [said[number][0] for number in single]


def test_an_utterance_too_short_for_a_word_is_recognised_among_the_others(trained: Trained) -> None:
    model, _, features, said = trained
    short = features[said.index(("ab",))][9:12]
    with pytest.raises(ValueError, match="an utterance has 3 frames; allowed are at least 4"):
        model.align([short], [("ab",)])


def test_training_again_gives_the_same_model(trained: Trained) -> None:
    model, iterations, features, said = trained
    again, seen = train(features, said)
    assert seen == iterations and (again.mixtures.means == model.mixtures.means).all()


def test_real_speech_is_aligned_and_its_words_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sixth of the corpus at a smaller size; the recordings that are recognised are not trained on."""
    require_data_set("fsdd")
    monkeypatch.setattr(alignment, "COMPONENTS", (1, 2))
    monkeypatch.setattr(alignment, "ROUNDS", (6, 3))
    chosen = [each for each in fsdd().recordings if int(each.name.rpartition("_")[2]) < 9]
    raw = [log_energies(read_wav(each.wav, each.name, 8000, Notices())[0], 8000) for each in chosen]
    features = normalise([cepstra(each) for each in raw], [each.speaker for each in chosen])
    held = [int(each.name.rpartition("_")[2]) < 2 for each in chosen]
    own = [number for number, out in enumerate(held) if not out]
    model, iterations = train([features[each] for each in own], [chosen[each].words for each in own])
    rises(iterations)
    others = [number for number, out in enumerate(held) if out]
    found = model.recognise([features[each] for each in others])
    right = [word == chosen[each].words[0] for word, each in zip(found, others, strict=True)]
    assert len(right) == 120 and np.mean(right) >= 0.9
