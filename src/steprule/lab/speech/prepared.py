"""A corpus made ready for a net: log-energies, and a state for each frame, kept on disk once they are made."""

from __future__ import annotations

import hashlib
import io
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import named
from ...folders import cache_folder, replace
from ..data import DataError
from .alignment import ROUNDS, Iteration, Model, train
from .chains import Inventory, viterbi
from .corpus import Corpus, Recording
from .features import cepstra, log_energies, normalise
from .mixtures import Mixtures
from .wav import Notices, read_wav

__all__ = ["Prepared", "Split", "prepare"]

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Split:
    """Who is trained on, whom settings are chosen by, and whom the test is on; no speaker is in two of them."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    @classmethod
    def of(cls, speakers: Sequence[str]) -> Split:
        """Return the last sixth of the speakers, by name, as the test's, and the sixth before them as the validation's.

        Each has one at least. Raises `DataError` for fewer than three speakers.
        """
        names = sorted(set(speakers))
        if len(names) < 3:
            raise DataError(
                f"the corpus has the speakers {', '.join(names)}; allowed are three at least, to train, choose and test"
            )
        held = max(1, len(names) // 6)
        return cls(tuple(names[: -2 * held]), tuple(names[-2 * held : -held]), tuple(names[-held:]))


@dataclass(frozen=True)
class Prepared:
    """Utterances with their log-energies (frames, 40) and the state of each frame (frames,).

    `energies` have mean 0 and variance 1 over each speaker's frames; `features`, of the same frames, are what the GMM-HMM
    `model` takes. `paths` are the places of the states in each utterance's chain.
    """

    title: str
    split: Split
    recordings: tuple[Recording, ...]
    energies: list[NDArray[np.float32]]
    features: list[NDArray[np.float32]]
    paths: list[NDArray[np.int64]]
    model: Model
    iterations: tuple[Iteration, ...]

    def states(self, number: int) -> NDArray[np.int64]:
        """Return the state of each frame of an utterance, by its number."""
        return self.model.inventory.chain(self.recordings[number].words).states[self.paths[number]]

    def of(self, speakers: Sequence[str]) -> list[int]:
        """Return the numbers of the utterances of these speakers."""
        return [number for number, each in enumerate(self.recordings) if each.speaker in speakers]


def prepare(corpus: Corpus) -> Prepared:
    """Return the corpus with its features and its forced alignment, by a GMM-HMM of the training speakers alone.

    Both are kept in `cache_folder()/speech`, under names that change with the corpus and with the code that makes them.
    An utterance with a word that no training speaker says, or with fewer frames than states, is left out, with a warning.

    Raises:
        DataError: a wav file is not sound, there are too few speakers, all utterances to train, choose or test by are left
            out, or a file in the cache is not whole.
    """
    split = Split.of([each.speaker for each in corpus.recordings])
    raw = _energies(corpus)
    known = {word for each in corpus.recordings if each.speaker in split.train for word in each.words}
    inventory = Inventory(tuple(sorted(known)))
    kept = _usable(corpus.recordings, raw, inventory)
    recordings = tuple(corpus.recordings[number] for number in kept)
    speakers = [each.speaker for each in recordings]
    for use, who in (("train", split.train), ("choose", split.validation), ("test", split.test)):
        if not set(who) & set(speakers):
            raise DataError(
                f"all utterances of {', '.join(who)}, whom the corpus has to {use} by, are left out; allowed are some that "
                "can be aligned"
            )
    features = normalise([cepstra(raw[number]) for number in kept], speakers)
    model, iterations, paths = _alignment(corpus, recordings, features, inventory, split)
    energies = normalise([raw[number] for number in kept], speakers)
    return Prepared(corpus.title, split, recordings, energies, features, paths, model, iterations)


def _usable(
    recordings: Sequence[Recording], energies: Sequence[NDArray[np.float32]], inventory: Inventory
) -> list[int]:
    kept, unknown, short = [], [], []
    for number, (each, frames) in enumerate(zip(recordings, energies, strict=True)):
        if not set(each.words) <= set(inventory.words):
            unknown.append(each.name)
        elif len(frames) < inventory.chain(each.words).least_frames:
            short.append(each.name)
        else:
            kept.append(number)
    for names, why in (
        (unknown, "with a word that no training speaker says"),
        (short, "shorter than their words' states"),
    ):
        if names:
            warnings.warn(
                f"utterances {why} are left out: {len(names)}, the first of which is {names[0]}",
                UserWarning,
                stacklevel=3,
            )
    return kept


def _energies(corpus: Corpus) -> list[NDArray[np.float32]]:
    def make() -> Arrays:
        from ..data.progress import counted

        notices, rate, made = Notices(), None, []
        with counted("log-energies", len(corpus.recordings)) as advance:
            for each in corpus.recordings:
                # The first file's rate is the corpus's.
                signal, rate = read_wav(each.wav, each.name, rate, notices)
                made.append(log_energies(signal, rate))
                advance()
        notices.tell()
        return {"energies": np.concatenate(made), "frames": np.array([len(each) for each in made])}

    key = (corpus.identity, named.digest(read_wav), named.digest(log_energies))
    arrays = _kept("features", key, make)
    return _parts(arrays["energies"], arrays["frames"])


def _alignment(
    corpus: Corpus,
    recordings: Sequence[Recording],
    features: Sequence[NDArray[np.float32]],
    inventory: Inventory,
    split: Split,
) -> tuple[Model, tuple[Iteration, ...], list[NDArray[np.int64]]]:
    words = [each.words for each in recordings]

    def make() -> Arrays:
        from ..data.progress import counted

        own = [number for number, each in enumerate(recordings) if each.speaker in split.train]
        with counted("alignment", sum(ROUNDS)) as advance:
            model, iterations = train([features[each] for each in own], [words[each] for each in own], advance)
            paths = model.align(features, words)
        return {
            "weights": model.mixtures.weights,
            "means": model.mixtures.means,
            "variances": model.mixtures.variances,
            "stay": model.stay,
            "components": np.array([each.components for each in iterations]),
            "likelihoods": np.array([each.log_likelihood for each in iterations]),
            "places": np.concatenate([path.places for path in paths]),
        }

    code = (named.digest(each) for each in (read_wav, log_energies, train, viterbi, Mixtures, Split))
    arrays = _kept("alignment", (corpus.identity, *code), make)
    mixtures = Mixtures(*(np.asarray(arrays[name], np.float64) for name in ("weights", "means", "variances")))
    model = Model(inventory, mixtures, np.asarray(arrays["stay"], np.float64))
    pairs = zip(arrays["components"].tolist(), arrays["likelihoods"].tolist(), strict=True)
    frames = np.array([len(each) for each in features])
    return model, tuple(Iteration(*pair) for pair in pairs), _parts(arrays["places"], frames)


def _parts(joined: NDArray[Any], counts: NDArray[np.integer]) -> list[NDArray[Any]]:
    return np.split(joined, np.cumsum(counts)[:-1])


def _kept(kind: str, key: Sequence[str], make: Callable[[], Arrays]) -> Arrays:
    """Return the arrays that the cache has under `key`, or make them and put them there."""
    folder = cache_folder() / "speech"
    path = folder / f"{kind}-{hashlib.sha256(' '.join(key).encode()).hexdigest()[:16]}.npz"
    if not path.is_file():
        content = io.BytesIO()
        np.savez(content, **make())  # type: ignore[arg-type]  # its stubs take the names for options
        folder.mkdir(parents=True, exist_ok=True)
        replace(path, content.getvalue())
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read ({error}); once deleted it is made again") from error
