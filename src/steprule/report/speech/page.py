"""An alignment as a page: pictures, durations, likelihoods, and what the GMM-HMM recognises."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...lab.speech.chains import SILENCE
from ...lab.speech.facts import Duration, Recognised
from ...lab.speech.prepared import Prepared
from ...lab.spread import Spread
from .. import words
from ..sheet import write_sheet
from .figures import figures, sizes

__all__ = ["described", "recognition", "write_alignment"]


def write_alignment(
    prepared: Prepared,
    lengths: Sequence[Duration],
    own: Sequence[Recognised],
    speakers: Sequence[Recognised],
    recordings: Recognised | None,
    folder: Path,
) -> Path:
    """Write `folder/index.html` and its figures; return the page's path. Raises `OSError` where that cannot be.

    `own` is of the model of the alignment, `speakers` and `recordings` of models without those who are recognised.
    """
    content = {
        "title": prepared.title,
        "described": described(prepared),
        "recognition": recognition(speakers, recordings),
        "durations": [_duration(each) for each in lengths],
        "own": [(each.name, _part(prepared, each.name), f"{each.share:.1f}") for each in own],
        "speakers": [(each.name, f"{each.share:.1f}") for each in speakers],
        "figures": (drawn := figures(prepared)),
    }
    return write_sheet(folder, "speech.html.jinja", drawn, sizes(prepared.iterations), content)


def described(prepared: Prepared) -> str:
    """Return who is in which part, and how many states there are, as a sentence."""
    split = prepared.split
    parts = {"to train": split.train, "to choose by": split.validation, "to test": split.test}
    frames = {name: sum(len(prepared.energies[n]) for n in prepared.of(speakers)) for name, speakers in parts.items()}
    told = "; ".join(f"{frames[name]:,} frames of {words.listed(speakers)} {name}" for name, speakers in parts.items())
    inventory = prepared.model.inventory
    used = len(np.unique(np.concatenate([prepared.states(number) for number in range(len(prepared.recordings))])))
    return (
        f"{len(prepared.recordings):,} utterances: {told}. {len(inventory)} states (senones): "
        f"{inventory.sizes[SILENCE]} of silence and {len(inventory) - inventory.sizes[SILENCE]} of "
        f"{words.plural(len(inventory.words), 'word')}; {used} of them have frames."
    )


def recognition(speakers: Sequence[Recognised], recordings: Recognised | None) -> str:
    """Return how many words of speakers, and of recordings, that no model has heard are recognised, as a sentence."""
    if not speakers:
        return "Utterances have several words, so that no word recogniser is measured."
    spread = Spread.of([each.share for each in speakers])
    unheard = (
        f"Of a speaker that the model has not heard, {spread.mean:.1f} % of the words are recognised (mean over "
        f"{len(speakers)} speakers, each left out in turn; {spread.low:.1f} to {spread.high:.1f} %); "
    )
    if recordings is None:
        return (
            unheard + "no speaker says a word twice, so that no recording of a speaker that it has heard is left out."
        )
    return unheard + (
        f"of recordings that it has not heard by speakers that it has, {recordings.share:.1f} % of {recordings.words:,}."
    )


def _duration(each: Duration) -> dict[str, str]:
    return {
        "unit": "pause" if each.unit == SILENCE else each.unit,
        "states": str(each.states),
        "count": f"{each.count:,}",
        "frames": f"{each.frames:.1f} ± {each.deviation:.1f}",
        "per_state": f"{each.shortest:.1f} to {each.longest:.1f}",
    }


def _part(prepared: Prepared, speaker: str) -> str:
    split = prepared.split
    return "training" if speaker in split.train else "validation" if speaker in split.validation else "test"
