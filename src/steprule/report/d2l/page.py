"""The reproduction as one page that needs no network, and its figures as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...lab.d2l.exercises import Exercise
from ...lab.d2l.results import Reproduction
from ...lab.d2l.summary import Line, summarise
from .. import words as numbers
from ..sheet import write_sheet
from . import words
from .exercises import exercise_figures, names
from .figures import figures

__all__ = ["write_reproduction"]


def write_reproduction(reproduction: Reproduction, folder: Path, exercises: Sequence[Exercise] = ()) -> Path:
    """Write `folder/index.html` and the figures; return the page's path. See `steprule.report.sheet.write_sheet`."""
    summary = summarise(reproduction)
    drawn = (*figures(summary), *exercise_figures(exercises))
    engines = len({plan.engine for plan in reproduction.plans})
    content = {
        "scope": ", ".join(
            [
                numbers.plural(engines, "engine"),
                numbers.plural(len(reproduction.plans), "way"),
                numbers.plural(reproduction.seeds, "seed"),
            ]
        ),
        "verdict": words.verdict(reproduction, summary),
        "notes": [*filter(None, [words.agreement(summary), *words.rankings(summary)])],
        "rows": [_row(line) for line in summary.lines],
        "missing": reproduction.missing,
        "exercises": exercises,
        "figures": drawn,
        "facts": _facts(reproduction),
    }
    return write_sheet(folder, "d2l.html.jinja", drawn, names(exercises), content)


def _row(line: Line) -> dict[str, str]:
    mean, low_to_high = words.loss(line)
    return {
        "name": words.name(line),
        "loss": mean,
        "range": low_to_high,
        "book_loss": words.book_loss(line),
        "seconds": words.seconds(line.seconds),
        "loading": words.seconds(line.loading),
        "book_seconds": words.seconds(line.plan.seconds),
        "settings": words.epochs_and_error(line),
    }


def _facts(reproduction: Reproduction) -> list[tuple[str, list[str]]]:
    run = reproduction.run
    versions = [
        f"{engine}: " + ", ".join(f"{package} {version}" for package, version in packages.items())
        for engine, packages in reproduction.versions.items()
    ]
    lines = [
        ("Data", ["NASA airfoil self-noise, columns standardised, the first 1,500 rows, mini-batches of 10"]),
        (
            "Seeds",
            [f"0 to {reproduction.seeds - 1}; each decides the weights and the order of the rows in all engines"],
        ),
        ("Versions", versions),
        ("Machine", [f"{name}: {value}" for name, value in run.machine.items()]),
        ("Command", [run.command]),
        ("Started", [run.started]),
        ("Duration", [numbers.duration(run.seconds)]),
    ]
    return [(term, texts) for term, texts in lines if texts]
