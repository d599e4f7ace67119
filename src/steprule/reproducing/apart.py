"""Parts of the ADADELTA paper that are no comparison of settings, for `steprule reproduce zeiler2012`.

The search for what the paper leaves out, and what is on speech: each runs in its own way, and writes its own page.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from rich.console import Console

from ..console import bar
from ..folders import made_folder, replace
from ..lab.places import Place, Processes
from ..lab.results import Setting

__all__ = ["PARTS", "TAKERS", "Asked", "check"]


@dataclasses.dataclass(frozen=True)
class Asked:
    """What the command line asks of a part: `None` where it does not say, and the part's own number holds."""

    out: Path
    seeds: int | None
    epochs: int | None
    fresh: bool
    on: Place
    full: bool
    corpus: Path | None
    device: str


def check(corpus: Path | None) -> None:
    """Raise `steprule.lab.data.DataError` for a folder that is no corpus: hours may go by until a part reads it."""
    from ..lab.speech.corpus import folder

    if corpus is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they come when it is read to be used
            folder(corpus)


def search(console: Console, asked: Asked) -> None:
    """Try every way to begin that the paper may have used, and write the table of them."""
    from ..lab.display import Display
    from ..lab.zeiler2012.candidates import CANDIDATES
    from ..lab.zeiler2012.search import try_out
    from ..report.zeiler2012.search import terminal_tables, write_search

    tried = []
    for number, candidate in enumerate(CANDIDATES, 1):
        console.print(f"candidate {number} of {len(CANDIDATES)}")
        with Display(console) as display:
            tried.append(
                try_out(
                    candidate,
                    seeds=1 if asked.seeds is None else asked.seeds,
                    epochs=asked.epochs,
                    on=asked.on,
                    out=asked.out,
                    fresh=asked.fresh,
                    progress=display,
                )
            )
        page = write_search(tried, asked.out)
    console.print(terminal_tables(tried))
    console.print(f"\nThe page: {page}", soft_wrap=True)


def alignment(console: Console, asked: Asked) -> None:
    """Align the corpus, measure what its GMM-HMM recognises, and write the page to check both by."""
    from ..lab.data.progress import counted
    from ..lab.problems.speech import corpus_data
    from ..lab.speech import facts
    from ..report.speech.page import described, recognition, write_alignment

    prepared = corpus_data(None if asked.corpus is None else str(asked.corpus.resolve()))
    folder = made_folder(asked.out / "alignment")
    with counted("recognisers", facts.trainings(prepared)) as advance:
        speakers = facts.speakers_held_out(prepared, advance)
        recordings = facts.recordings_held_out(prepared, advance)
    page = write_alignment(
        prepared, facts.durations(prepared), facts.by_speaker(prepared), speakers, recordings, folder
    )
    console.print(f"{described(prepared)}\n\n{recognition(speakers, recordings)}")
    console.print(f"\nThe page: {page}", soft_wrap=True)


def figure(name: str, console: Console, asked: Asked) -> None:
    """Run Fig. 3 or 4, draw it, and print what its claims come to."""
    from ..lab.zeiler2012.speech import plans, run
    from ..report.zeiler2012.speech import as_text, terminal_tables, write_page

    plan = plans()[name] if asked.seeds is None else dataclasses.replace(plans()[name], seeds=asked.seeds)
    with _Trainings(console, name, plan.runs, plan.updates) as shown:
        found = run(
            plan,
            asked.out / name,
            progress=shown.told,
            full=asked.full,
            corpus=asked.corpus,
            device=asked.device or "cpu",
            jobs=_side_by_side(asked),
            fresh=asked.fresh,
        )
    page = write_page([found], asked.out / name)
    replace(asked.out / name / "table.txt", as_text(found).encode())
    console.print(terminal_tables(found))
    console.print(f"\nThe page: {page}", soft_wrap=True)


def _side_by_side(asked: Asked) -> int:
    # 200 replicas of the paper's net take 18 GB, and one GPU is one.
    one = asked.full or asked.device or not isinstance(asked.on, Processes)
    return 1 if one else asked.on.jobs


class _Trainings:
    """Shows trainings, each of so many updates, as they go on; where nobody watches, a line for each measurement."""

    def __init__(self, console: Console, name: str, trainings: int, updates: int) -> None:
        self._console, self._name, self._updates = console, name, updates
        self._bar = bar(console)
        self._task = self._bar.add_task(name, total=trainings)
        self._ended: set[tuple[Setting, int]] = set()

    def __enter__(self) -> _Trainings:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def told(self, setting: Setting, seed: int, updates: int) -> None:
        """Take note of a measurement."""
        if updates >= self._updates:
            self._ended.add((setting, seed))
        said = f"{self._name}: {setting}, seed {seed}, {updates:,} of {self._updates:,} updates"
        self._bar.update(self._task, completed=len(self._ended), description=said)
        if not self._console.is_terminal:
            self._console.print(said)


PARTS: Final[Mapping[str, Callable[[Console, Asked], None]]] = {
    "alignment": alignment,
    "fig3": partial(figure, "fig3"),
    "fig4": partial(figure, "fig4"),
    "search": search,
}
"""By the name that the command line takes. `search` is run only where it is asked for."""

TAKERS: Final[Mapping[str, tuple[str, ...]]] = {
    "--seeds": ("fig3", "fig4", "search"),
    "--epochs": ("search",),
    "--jobs": ("fig3", "fig4", "search"),
    "--device": ("fig3", "fig4", "search"),
    "--on": ("search",),
    "--address": ("search",),
    "--full": ("fig3", "fig4"),
    "--corpus": ("alignment", "fig3", "fig4"),
}
"""Which of them take an option that not all take."""
