"""The reproduction's page and table, as their readers meet them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.report.browser import Browser

from steprule.lab.d2l import Missing, Reproduction, Training
from steprule.lab.d2l.exercises import Chart, Exercise, Point, Series
from steprule.lab.d2l.protocol import Trace
from steprule.lab.d2l.reproduction import expected
from steprule.lab.results import Run
from steprule.report.d2l.page import write_reproduction
from steprule.report.d2l.table import as_text

PLANS = tuple(plan for plan in expected() if plan.engine != "jax")
MISSING = Missing("jax", "<b>jax</b> is not installed", "pip install 'steprule[jax]'")


def reproduction() -> Reproduction:
    trainings = tuple(
        Training(plan, seed, Trace(((1500, 0.3), (3000, 0.243 + 0.001 * seed)), 0.1 * (number + 1), 0.01))
        for number, plan in enumerate(PLANS)
        for seed in range(3)
    )
    versions = {"torch": {"Python": "3.11", "torch": "2.13"}}
    return Reproduction(PLANS, 3, trainings, (MISSING,), versions, Run("steprule reproduce d2l", "now", 3.0))


def exercise() -> Exercise:
    points = tuple(Point(10.0**power, 0.3, 0.2, 0.4) for power in range(-6, 7))
    broken = (*points[:-1], Point(1e6, float("inf"), 0.3, float("nan")))
    charts = (
        Chart("one", "One line", "A caption.", "x", "loss", (Series("alone", points),), log_x=True),
        Chart(
            "two", "Two lines", "A caption.", "examples", "loss", (Series("first", points), Series("second", broken))
        ),
    )
    return Exercise("rho", "What <i>happens</i>?", ("This does.",), charts)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reproduction(reproduction(), tmp_path_factory.mktemp("page"), (exercise(),))


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_every_chart_is_drawn_and_nothing_is_asked_for(browser: Browser, page: Path, width: int, scheme: str) -> None:
    opened = browser.open(page, width, scheme)
    assert opened.said == []
    assert opened.requested == [page.as_uri()]
    sizes = opened.page.evaluate(
        "[...document.querySelectorAll('.chart svg')].map(c => [c.getBoundingClientRect().width, c.clientHeight])"
    )
    assert len(sizes) == 4
    assert all(width >= 250 and height >= 40 for width, height in sizes)
    assert opened.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert opened.page.locator("main b, main i:not(.keys i)").count() == 0


def test_the_books_marks_differ_from_ours_in_shape_and_colour(browser: Browser, page: Path) -> None:
    opened = browser.open(page).page
    marks = opened.evaluate(
        "[...document.querySelectorAll('#chart-seconds .mark-symbol')]"
        ".map(g => [...g.querySelectorAll('path')].map(p => [p.getAttribute('d'), p.getAttribute('stroke') || ''"
        ", p.getAttribute('fill')]))"
    )
    ours, book = marks
    assert len(ours) == len(PLANS)
    assert len(book) == sum(plan.seconds is not None for plan in PLANS)
    assert ours[0] != book[0]
    assert ours[0][0] != book[0][0]


def test_the_page_says_what_is_missing_and_what_was_found(page: Path) -> None:
    text = page.read_text(encoding="utf-8").split("<script", 1)[0].replace("&#39;", "'")
    assert "pip install 'steprule[jax]'" in text
    assert "&lt;b&gt;jax&lt;/b&gt; is not installed" in text
    assert "What &lt;i&gt;happens&lt;/i&gt;?" in text
    outside = "mxnet, its own class; tensorflow, its own class"
    assert f"4 of the book's 6 final losses are in the range of our 3 seeds; outside: {outside}." in text
    assert "the order by speed is the book's: torch before mxnet before tensorflow" in text


def test_each_figure_is_a_png_and_an_svg(page: Path) -> None:
    names = {"final-loss", "seconds", "one", "two"}
    files = {path.name for path in (page.parent / "figures").iterdir()}
    assert files == {f"{name}.{kind}" for name in names for kind in ("png", "svg")}


def test_where_nothing_ran_the_page_and_the_table_say_why(tmp_path: Path) -> None:
    nothing = replace(reproduction(), trainings=())
    text = write_reproduction(nothing, tmp_path).read_text(encoding="utf-8")
    assert "No run is one whose loss the book reports." in text
    assert "pip install" in as_text(nothing)


def test_the_table_fits_a_terminal_of_80_columns() -> None:
    printed = as_text(reproduction())
    assert "…" not in printed
    assert max(map(len, printed.splitlines())) <= 80
    row = next(line for line in printed.splitlines() if line.startswith("tensorflow, its own class"))
    assert row.split()[-3:] == ["0.900", "0.010", "1.551"]
