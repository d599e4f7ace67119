"""An alignment's figures: the states over the log-energies of some utterances, and the likelihood while it was trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...lab.speech.alignment import Iteration
from ...lab.speech.features import STEP
from ...lab.speech.prepared import Prepared
from .. import words
from ..axes import value_scale
from ..drawing import Figure, alt, layered, rows
from ..lines import line_chart
from ..theme import SHADES

__all__ = ["figures", "sizes"]


def figures(prepared: Prepared) -> tuple[Figure, ...]:
    """Return an utterance of each part of the corpus with its states, and the likelihood of each alignment."""
    split = prepared.split
    parts = {"training": split.train, "validation": split.validation, "test": split.test}
    pictures = []
    for place, (name, speakers) in enumerate(parts.items(), 1):
        numbers = prepared.of(speakers)
        # Not the best ones, and of corpora in the order of their words, other words.
        pictures.append(_aligned(prepared, numbers[place * len(numbers) // 4], name))
    return (*pictures, _likelihood(prepared.iterations))


def sizes(iterations: Sequence[Iteration]) -> list[str]:
    """Return the names of the curves of the likelihood: each size of the mixtures."""
    return list(dict.fromkeys(words.plural(each.components, "component") for each in iterations))


def _aligned(prepared: Prepared, number: int, part: str) -> Figure:
    recording = prepared.recordings[number]
    said = " ".join(recording.words)
    return Figure(
        name=f"alignment-{part}",
        part="alignment",
        title=f"“{said}”, by {recording.speaker}, a {part} speaker",
        caption=f"{recording.name}: log-energies of 40 bands, low ones below; a line where a state begins, a strong one "
        "where a word or a pause does.",
        description=f"Forced alignment of “{said}”: " + "; ".join(_spans(prepared, number)) + ".",
        chart=_picture(prepared, number),
        least_width=300,
        most_width=640,
    )


def _spans(prepared: Prepared, number: int) -> list[str]:
    return [f"{each['unit']} from {each['start']:.2f} s to {each['end']:.2f} s" for each in _units(prepared, number)]


def _units(prepared: Prepared, number: int) -> list[dict[str, Any]]:
    """Words and pauses with the seconds at which they begin and end."""
    spoken, path = prepared.recordings[number].words, prepared.paths[number]
    units = prepared.model.inventory.chain(spoken).units[path]
    starts = np.flatnonzero(np.append(True, units[1:] != units[:-1]))
    ends = np.append(starts[1:], len(units))
    return [
        {
            "unit": spoken[units[start] // 2] if units[start] % 2 else "pause",
            "start": start * STEP,
            "end": end * STEP,
            "middle": (start + end) / 2 * STEP,
        }
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
    ]


def _picture(prepared: Prepared, number: int) -> alt.LayerChart:
    energies, path = prepared.energies[number], prepared.paths[number]
    edges = np.quantile(energies, np.linspace(0, 1, SHADES + 1)[1:-1])
    shades = np.digitize(energies, edges)
    cells = [
        {
            "start": round(frame * STEP, 4),
            "end": round((frame + 1) * STEP, 4),
            "band": band,
            "above": band + 1,
            "shade": shade,
        }
        for frame, row in enumerate(shades.tolist())
        for band, shade in enumerate(row)
    ]
    last = len(path) * STEP
    x = alt.X(
        "start:Q",
        scale=alt.Scale(domain=[0, last], nice=False),
        axis=alt.Axis(title="seconds", grid=False, tickCount=6),
    )
    y = alt.Y("band:Q", scale=alt.Scale(domain=[0, energies.shape[1]], nice=False), axis=None)
    shade = alt.Color("shade:O", scale=alt.Scale(domain=list(range(SHADES))), legend=None)
    picture = alt.Chart(rows(cells)).mark_rect(strokeWidth=0).encode(x=x, x2="end:Q", y=y, y2="above:Q", color=shade)
    begins = [{"start": frame * STEP} for frame in range(1, len(path)) if path[frame] != path[frame - 1]]
    states = alt.Chart(rows(begins)).mark_rule(style="book", strokeWidth=0.75).encode(x="start:Q")
    units = _units(prepared, number)
    borders = alt.Chart(rows(units[1:])).mark_rule(style="book", strokeWidth=3).encode(x="start:Q")
    names = (
        alt.Chart(rows(units))
        .mark_text(style="bar-text", fontSize=12, baseline="bottom", dy=-3)
        .encode(x="middle:Q", y=alt.value(0), text="unit:N")
    )
    return layered(picture, states, borders, names, width=560, height=200)


def _likelihood(iterations: Sequence[Iteration]) -> Figure:
    names = sizes(iterations)
    data = [
        {
            "rule": words.plural(each.components, "component"),
            "x": number,
            "mean": each.log_likelihood,
            "low": each.log_likelihood,
            "high": each.log_likelihood,
            "place": str(number),
            "value": f"{each.log_likelihood:.3f}",
        }
        for number, each in enumerate(iterations, 1)
    ]
    likelihoods = [each.log_likelihood for each in iterations]
    x = alt.X("x:Q", axis=alt.Axis(title="alignment", grid=False, tickMinStep=1, titlePadding=8))
    y = value_scale("log-likelihood per frame", likelihoods, may_be_log=False)
    numbers = list(range(1, len(data) + 1))
    chart = line_chart(
        data,
        names,
        names,
        x,
        y,
        alt.FieldOneOfPredicate(field="x", oneOf=numbers),
        {"alignment": "place", "value": "value"},
    )
    return Figure(
        name="likelihood",
        part="training",
        title="The likelihood of the best paths while the mixtures grow",
        caption="Log-likelihood of the training speakers' best paths, per frame, at each alignment; a curve for each size "
        "of the mixtures.",
        description=f"From {iterations[0].log_likelihood:.2f} to {iterations[-1].log_likelihood:.2f} per frame.",
        chart=chart,
        least_width=300,
        rules=tuple(names),
    )
