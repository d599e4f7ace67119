"""The best path beside every path there is, and the chains that it may take."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from steprule.lab.speech.chains import SILENCE, Chain, Inventory, viterbi


def enumerated(emissions: np.ndarray, chain: Chain, stay: np.ndarray) -> dict[tuple[int, ...], float]:
    """Every path with the logarithm of its probability, by the definition of an HMM with pauses that may be left out."""
    pauses = [unit for unit in dict.fromkeys(chain.units.tolist()) if unit % 2 == 0]
    found: dict[tuple[int, ...], float] = {}
    for taken in itertools.product([True, False], repeat=len(pauses)):
        left_out = {unit for unit, kept in zip(pauses, taken, strict=True) if not kept}
        places = [place for place, unit in enumerate(chain.units.tolist()) if unit not in left_out]
        for cuts in itertools.combinations(range(1, len(emissions)), len(places) - 1):
            counts = np.diff([0, *cuts, len(emissions)])
            path = tuple(np.repeat(places, counts).tolist())
            score = len(pauses) * np.log(0.5) + emissions[np.arange(len(path)), list(path)].sum()
            for place, count in zip(places, counts, strict=True):
                state = chain.states[place]
                score += (count - 1) * np.log(stay[state]) + np.log1p(-stay[state])
            found[path] = score
    return found


@pytest.mark.parametrize(
    ("words", "frames"), [(("a",), 3), (("a",), 7), (("a",), 11), (("a", "b"), 8), (("b", "a"), 13)]
)
def test_the_best_path_is_the_best_of_all(words: tuple[str, ...], frames: int) -> None:
    inventory = Inventory(("a", "b"))
    chain = inventory.chain(words)
    random = np.random.default_rng(frames)
    stay = random.uniform(0.1, 0.9, len(inventory))
    # Columns of silence that are likely now and then, so that pauses are taken as well as left out.
    for scale in (1.0, 3.0):
        emissions = random.standard_normal((frames, len(chain.states))) * scale
        every = enumerated(emissions, chain, stay)
        (found,) = viterbi([emissions], [chain], stay)
        assert found.score == pytest.approx(max(every.values()))
        assert every[tuple(found.places.tolist())] == pytest.approx(found.score)


def test_utterances_side_by_side_have_the_paths_that_they_have_alone() -> None:
    inventory = Inventory(("ab", "cde"))
    chains = [inventory.chain(words) for words in (["ab"], ["cde", "ab"], ["ab", "ab", "cde"], ["cde"])]
    random = np.random.default_rng(0)
    stay = random.uniform(0.3, 0.7, len(inventory))
    emissions = [
        random.standard_normal((frames, len(chain.states)))
        for frames, chain in zip((30, 21, 60, 9), chains, strict=True)
    ]
    together = list(viterbi(emissions, chains, stay))
    for path, each, chain in zip(together, emissions, chains, strict=True):
        (alone,) = viterbi([each], [chain], stay)
        assert alone.score == pytest.approx(path.score) and (alone.places == path.places).all()
        assert (np.diff(path.places) >= 0).all() and len(path.places) == len(each)


def test_a_word_has_two_states_a_letter_and_three_at_least() -> None:
    inventory = Inventory(("a", "don't", "seven"))
    assert dict(inventory.sizes) == {SILENCE: 3, "a": 3, "don't": 8, "seven": 10}
    assert inventory.states()["seven"] == range(14, 24) and len(inventory) == 24
    chain = inventory.chain(["a", "seven"])
    assert chain.states.tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2, *range(14, 24), 0, 1, 2]
    assert chain.skips == {3: -1, 9: 5} and chain.least_frames == 13


def test_fewer_frames_than_states_are_refused() -> None:
    inventory = Inventory(("seven",))
    chain = inventory.chain(["seven"])
    with pytest.raises(ValueError, match="an utterance has 9 frames; allowed are at least 10, one a state"):
        list(viterbi([np.zeros((9, len(chain.states)))], [chain], np.full(len(inventory), 0.5)))
