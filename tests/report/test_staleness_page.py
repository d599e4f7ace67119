"""The study's page, figures and table, as their readers meet them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from tests.report.browser import Browser

from steprule.lab.cluster.simulated import CONDITIONS
from steprule.lab.results import Metric, Run, Setting
from steprule.lab.spread import Spread
from steprule.lab.staleness import Row, Staleness, Study
from steprule.lab.summary import SettingSummary
from steprule.report.staleness.figures import figures
from steprule.report.staleness.page import write_study
from steprule.report.staleness.table import terminal_table
from steprule.report.staleness.words import lines, protocol

NUMBERS = (1, 10, 100)


def setting(rule: str, rate: float, error: float | None) -> SettingSummary:
    spread = None if error is None else Spread.of([error, error + 0.2])
    finished = 0 if error is None else 2
    return SettingSummary(Setting(rule, {"lr": rate}), 2, finished, 2 - finished, 0, spread, spread, spread)


def made() -> Study:
    errors = {"sgd": (2.0, 2.5, None), "<b>mine</b>": (1.8, 1.9, 2.2)}
    rows = tuple(
        Row(
            rule, number, setting(rule, 0.1, error), setting(rule, 0.01, 2.0) if rule != "sgd" or number < 100 else None
        )
        for rule, each in errors.items()
        for number, error in zip(NUMBERS, each, strict=True)
    )
    stale = {number: Staleness(number - 1.0, number - 1.0, 2 * number) for number in NUMBERS}
    grids = {rule: {"lr": (0.1, 0.01)} for rule in errors}
    run = Run("steprule cluster study", "now", 3.0, {"cores": "2"}, {"torch": "2.13"})
    metric = Metric("test error", "%")
    return Study("A <i>problem</i>", CONDITIONS, metric, "validation", 3, 2, grids, stale, rows, run)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(made(), tmp_path_factory.mktemp("page"))


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_page_draws_itself_without_a_network(browser: Browser, page: Path, width: int, scheme: str) -> None:
    opened = browser.open(page, width, scheme)
    assert opened.said == []
    assert opened.requested == [page.as_uri()]
    assert opened.page.locator(".chart svg, .chart canvas").count() == 2
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_page_says_what_was_measured(browser: Browser, page: Path) -> None:
    text = browser.open(page).page.inner_text("main")
    for words in (
        "A <i>problem</i>",
        "compute gamma:10,0.1",
        "chosen on validation data with seed 0",
        "<b>mine</b>",
        "1.90 ± 0.14",
        "diverged (2 of 2)",
        "none finished",
        "Not drawn, since a seed diverged or failed: sgd at 100.",
    ):
        assert words in text


def test_who_stands_most_comes_first(page: Path) -> None:
    console = Console(width=120)
    with console.capture() as captured:
        console.print(terminal_table(made()))
    shown = captured.get()
    first = shown.index("<b>mine</b>")
    assert first < shown.index("sgd")
    assert shown[first:].split("\n")[0].split()[-1] == "100"
    assert "lr=0.01" in shown and "2.10 ± 0.14" in shown


def test_small_numbers_keep_their_digits() -> None:
    spread = Spread.of([0.0035, 0.0037])
    small = replace(setting("sgd", 0.1, 2.0), test=spread)
    study = replace(made(), metric=Metric("squared error"))
    study = replace(study, rows=tuple(replace(row, kept=small, own=small) for row in study.rows))
    assert lines(study, "kept")[0].cells[0] == "0.00360 ± 0.00014"


@pytest.mark.parametrize(
    ("metric", "seeds", "spread", "stands"),
    [
        (Metric("error", "%"), 2, "mean ± sample standard deviation over 2 seeds", "its mean at most 1.5 times that"),
        (Metric("accuracy", "%", False), 1, "one seed", "what its mean lacks to 100 % at most 1.5 times that"),
        (Metric("R2", "", False), 1, "one seed", "its mean at most 50 % worse than that"),
    ],
)
def test_the_protocol_is_that_of_the_metric(metric: Metric, seeds: int, spread: str, stands: str) -> None:
    told = protocol(replace(made(), metric=metric, seeds=seeds)).replace("\N{NO-BREAK SPACE}", " ")
    assert told.startswith(f"3 epochs of pushes in all, however many replicas; {spread}. ")
    assert told.endswith(f" A rule stands as many replicas as leave {stands} of one.")


def test_a_choice_on_the_test_data_is_told() -> None:
    caption = figures(replace(made(), chosen_on="test", seeds=1))[0].caption
    assert "chosen on the test data with seed 0, which flatters. One seed." in caption


def test_the_figures_files_are_there(page: Path) -> None:
    assert sorted(each.name for each in (page.parent / "figures").iterdir()) == [
        f"staleness-{which}.{kind}" for which in ("kept", "own") for kind in ("png", "svg")
    ]


def test_a_half_in_which_nothing_finished_has_no_figure() -> None:
    study = made()
    rows = tuple(replace(row, own=None) for row in study.rows)
    assert [figure.part for figure in figures(replace(study, rows=rows))] == ["kept"]
