"""The paper's Fig. 3 and 4 as charts, with every setting that was tried and what the claims come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...lab.spread import Spread
from ...lab.zeiler2012.speech import DIVIDED, OURS, Course, SpeechFigure
from ...lab.zeiler2012.speech_claims import claims
from .. import words
from ..axes import value_scale
from ..drawing import Figure, alt
from ..lines import line_chart
from ..sheet import write_sheet
from ..terminal import Group, Table, Text, empty_table, plain

__all__ = ["as_text", "figures", "terminal_tables", "write_page"]

ORDER = ("adagrad", "momentum", OURS, DIVIDED)


def write_page(found: Sequence[SpeechFigure], folder: Path) -> Path:
    """Write `folder/index.html` with the charts' files beside it; return its path. Raises `OSError` where it cannot be."""
    drawn = {each.plan.name: figures(each) for each in found}
    parts = [
        {
            "name": each.plan.name,
            "title": each.plan.title,
            "setup": _setup(each),
            "claims": claims(each),
            "rows": _rows(each),
            "figures": drawn[each.plan.name],
        }
        for each in found
    ]
    every = [figure for pair in drawn.values() for figure in pair]
    return write_sheet(folder, "zeiler2012-speech.html.jinja", every, ORDER, {"parts": parts})


def figures(found: SpeechFigure) -> tuple[Figure, Figure]:
    """Return frame accuracy on the test speakers against updates, and against the cluster's time."""
    return _chart(found, "updates", "updates"), _chart(found, "time", "seconds of the cluster's clock")


def _chart(found: SpeechFigure, x: str, title: str) -> Figure:
    curves = {**found.courses, **found.beside}
    rows = [row for rule, courses in curves.items() for row in _points(rule, courses, x)]
    ends = [row[end] for row in rows for end in ("low", "high")]
    places = sorted({row["x"] for row in rows})
    plan = found.plan
    names = list(curves)
    chart = line_chart(
        rows,
        names,
        ORDER,
        alt.X("x:Q", axis=alt.Axis(title=title, grid=False, tickCount=6, titlePadding=8), scale=alt.Scale(zero=False)),
        value_scale("frame accuracy on the test speakers, %", ends, may_be_log=False),
        alt.FieldOneOfPredicate(field="x", oneOf=places[:: max(1, len(places) // 12)]),
        {"rule": "rule", title: "place", "frame accuracy": "value"},
    )
    said = "; ".join(f"{rule} {_end(courses)}" for rule, courses in curves.items())
    return Figure(
        name=f"{plan.name}-{x}",
        part=plan.name,
        title=f"{plan.title}, by {title}",
        caption="Frame accuracy on speakers that are not trained on; lines are means over "
        f"{words.plural(plan.seeds, 'seed')}, bands their range."
        + "".join(f" {name} is {plan.beside[name]}, which is not in the paper." for name in found.beside),
        description=f"{plan.title}: at the end {said}.",
        chart=chart,
        least_width=300,
        rules=tuple(names),
    )


def _points(rule: str, courses: Sequence[Course], x: str) -> list[dict[str, Any]]:
    found = []
    for number in range(max(len(course.points) for course in courses)):
        points = [course.points[number] for course in courses if number < len(course.points)]
        spread = Spread.of([point.test for point in points])
        place = sum(getattr(point, x) for point in points) / len(points)
        found.append(
            {
                "rule": rule,
                "x": place,
                "mean": spread.mean,
                "low": spread.low,
                "high": spread.high,
                "place": f"{place:,.0f}",
                "value": f"{spread.mean:.1f} ({spread.low:.1f} to {spread.high:.1f})",
            }
        )
    return found


def _end(courses: Sequence[Course]) -> str:
    """The frame accuracy at the end, mean and spread; how many seeds diverged, if any did."""
    diverged = sum(course.diverged for course in courses)
    if diverged:
        return f"diverged in {diverged} of {len(courses)} seeds"
    spread = Spread.of([course.points[-1].test for course in courses])
    return f"{spread:.1f} %"


def _rows(found: SpeechFigure) -> list[Mapping[str, str]]:
    """Every setting: how it did on the validation speakers, and on the test speakers where it has every seed."""
    chosen = {courses[0].setting: _end(courses) for courses in found.courses.values()}
    tried = [_row(each.setting.rule, each, chosen.get(each.setting, words.NOTHING)) for each in found.tried]
    return [*tried, *(_row(name, courses[0], _end(courses)) for name, courses in found.beside.items())]


def _row(name: str, course: Course, test: str) -> Mapping[str, str]:
    return {
        "rule": name,
        "setting": words.hyperparameters(course.setting.hyperparameters),
        "validation": "diverged" if course.diverged else f"{course.score:.1f}",
        "test": test,
        "staleness": f"{course.staleness:.0f}",
    }


def _setup(found: SpeechFigure) -> str:
    plan = found.plan
    conditions = ", ".join(f"{name} {value}" for name, value in plan.conditions.items())
    return (
        f"{found.description}; {found.parameters:,} parameters. {plan.replicas} simulated replicas, {plan.updates:,} "
        f"updates, the first {plan.warm_start} by one replica alone; {conditions} (seconds). A rule's rate was chosen on "
        "the validation speakers, with seed 0; ADADELTA's settings are those of MNIST."
    )


def terminal_tables(found: SpeechFigure) -> Group:
    """Return the claims, what was measured, and the verdicts; and every setting that was tried."""
    said = _table(found.plan.title, "claim", "measured", "verdict")
    for claim in claims(found):
        said.add_row(Text(f"{claim.text} ({claim.criterion})"), Text(claim.says), Text(claim.verdict))
    tried = _table("", "rule", "setting", "validation, %", "test, %", "staleness")
    for row in _rows(found):
        tried.add_row(*(Text(row[name]) for name in ("rule", "setting", "validation", "test", "staleness")))
    return Group(said, Text(), tried)


def as_text(found: SpeechFigure) -> str:
    """Return what the terminal shows as lines of 80 columns, for a file."""
    return plain(terminal_tables(found))


def _table(title: str, *columns: str) -> Table:
    table = empty_table(title)
    for name in columns:
        table.add_column(name, overflow="fold")
    return table
