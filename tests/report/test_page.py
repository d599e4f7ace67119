"""The page as its readers meet it: in a browser without a network, and as files."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import altair as alt
import pytest
from tests.report.browser import Browser
from tests.report.comparisons import (
    all_diverged,
    hostile,
    interrupted,
    large,
    long_names,
    mean_scores,
    realistic,
    three_hyperparameters,
)

from steprule.report import sheet
from steprule.report.figures import figures
from steprule.report.page import write_report

FLATTERS = "chosen on the test data, as in the paper's tables, so it flatters"


COMPARISONS = {
    "realistic": realistic,
    "one of everything": lambda: mean_scores({"adadelta": {1.0: [2.05]}}),
    "three hyperparameters": three_hyperparameters,
    "hostile": hostile,
    "all diverged": all_diverged,
    "interrupted": interrupted,
    "large": large,
    "long names": long_names,
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        name: write_report(make(), tmp_path_factory.mktemp(name.replace(" ", "-")))
        for name, make in COMPARISONS.items()
    }


class TestInTheBrowser:
    @pytest.mark.parametrize(
        ("name", "width", "scheme"),
        [(name, width, scheme) for name in COMPARISONS for width, scheme in ((1280, "light"), (390, "dark"))]
        + [("realistic", 1280, "dark"), ("realistic", 390, "light")],
    )
    def test_every_chart_is_drawn_and_nothing_is_asked_for(
        self, browser: Browser, written: dict[str, Path], name: str, width: int, scheme: str
    ) -> None:
        opened = browser.open(written[name], width, scheme)
        assert opened.said == []
        assert opened.requested == [written[name].as_uri()]
        sizes = opened.page.evaluate(
            "[...document.querySelectorAll('.chart')].map(c => c.querySelector('svg')?.getBoundingClientRect())"
            ".map(r => r ? [r.width, r.height] : null)"
        )
        assert len(sizes) == len(figures(COMPARISONS[name]()))
        assert all(size and size[0] >= 250 and size[1] >= 40 for size in sizes)
        assert opened.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0

    def test_wide_tables_and_maps_scroll_inside_their_boxes(self, browser: Browser, written: dict[str, Path]) -> None:
        page = browser.open(written["large"], 390).page
        hidden = page.evaluate(
            "[...document.querySelectorAll('.scroll')].filter(b => b.scrollWidth > b.clientWidth + 1)"
            ".map(b => b.querySelector('table, .chart').id || 'table')"
        )
        assert hidden == ["table", "chart-heat-map-lr"]

    def test_charts_follow_the_width_of_the_window(self, browser: Browser, written: dict[str, Path]) -> None:
        page = browser.open(written["realistic"]).page
        page.set_viewport_size({"width": 390, "height": 844})
        page.wait_for_function(
            "[...document.querySelectorAll('.chart svg')].every(svg => svg.getBoundingClientRect().width <= 360)"
        )
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0

    def test_a_click_in_the_legend_isolates_a_rule_in_both_curves(
        self, browser: Browser, written: dict[str, Path]
    ) -> None:
        page = browser.open(written["realistic"]).page

        def faded() -> list[int]:
            page.wait_for_timeout(100)
            return page.evaluate(
                "['test-metric', 'training-loss'].map(name => [...document.querySelectorAll("
                "`#chart-${name} .mark-line path`)].filter(p => Number(p.getAttribute('opacity') ?? 1) < 0.5).length)"
            )

        def button(rule: str) -> Any:
            return page.locator(f"#test-metric .legend button[data-rule='{rule}']")

        assert faded() == [0, 0]
        button("adadelta").click()
        assert faded() == [7, 7]
        assert button("adadelta").get_attribute("aria-pressed") == "true"
        button("adam").click(modifiers=["Shift"])
        assert faded() == [6, 6]
        button("sgd").click()
        assert faded() == [7, 7]
        button("sgd").press("Enter")
        assert faded() == [0, 0]

    def test_pointing_at_a_chart_shows_its_numbers(self, browser: Browser, written: dict[str, Path]) -> None:
        page = browser.open(written["realistic"]).page
        tooltip = page.locator("#vg-tooltip-element")
        page.locator("#chart-heat-map-lr svg text", has_text="88.47").hover()
        assert "adam, lr=0.1" in tooltip.inner_text()
        page.locator("#chart-test-metric").hover()
        page.wait_for_function("document.querySelector('#vg-tooltip-element').innerText.includes('epoch')")
        assert "undefined" not in tooltip.inner_text()
        assert re.search(r"seeds from \d+\.\d\d to \d+\.\d\d", tooltip.inner_text())

    def test_the_charts_follow_a_change_of_the_colour_scheme(self, browser: Browser, written: dict[str, Path]) -> None:
        page = browser.open(written["realistic"], scheme="light").page
        colour = (
            "[document.body, document.querySelector('#chart-test-metric .role-axis-label text')]"
            ".map(e => getComputedStyle(e)[e === document.body ? 'backgroundColor' : 'fill'])"
        )
        light = page.evaluate(colour)
        page.emulate_media(color_scheme="dark")
        dark = page.evaluate(colour)
        page.emulate_media(media="print", color_scheme="dark")
        assert light[0] != dark[0]
        assert light[1] != dark[1]
        assert page.evaluate(colour) == light, "paper is printed in the light colours"

    def test_texts_are_shown_and_never_obeyed(self, browser: Browser, written: dict[str, Path]) -> None:
        opened = browser.open(written["hostile"])
        assert opened.page.locator("b, main img, h1 ~ h1").count() == 0
        text = opened.page.locator("main").inner_text()
        for shown in (
            "<script>alert(1)</script>",
            "</script><b>x",
            "a'b\"c & d",
            "onerror=alert(1)> {{ 7 * 7 }}",
            "</style><h1>no",
        ):
            assert shown in text

    def test_without_javascript_the_figures_are_pictures(self, browser: Browser, written: dict[str, Path]) -> None:
        page = browser.open(written["realistic"], java_script_enabled=False).page
        widths = page.locator("figure img").evaluate_all("images => images.map(i => i.naturalWidth)")
        assert len(widths) == 5
        assert all(width > 100 for width in widths)


class TestTheText:
    def test_stands_in_order(self, written: dict[str, Path]) -> None:
        page = written["realistic"].read_text(encoding="utf-8").split("<script", 1)[0]
        assert re.findall(r"<h2[^>]*>(.*?)</h2>", page) == [
            "The rules",
            "The course of training",
            "How much tuning does it need",
            "Failures",
            "How it was run",
        ]
        assert "MemoryError: could not allocate 2.1 GB" in page

    def test_says_wherever_the_best_number_stands_how_it_was_chosen(self, written: dict[str, Path]) -> None:
        page = written["realistic"].read_text(encoding="utf-8").replace("&#39;", "'")
        head, *parts = re.split(r"<section|<figure", page.split("<script", 1)[0])
        assert FLATTERS in head
        with_numbers = [part for part in parts if '<table class="rules"' in part or "<figcaption" in part]
        assert len(with_numbers) == 6
        assert all(FLATTERS in part for part in with_numbers)


class TestTheFiles:
    def test_each_figure_is_a_png_and_an_svg_and_nothing_is_left_aside(self, written: dict[str, Path]) -> None:
        folder = written["realistic"].parent
        names = {figure.name for figure in figures(realistic())}
        assert names == {"test-metric", "training-loss", "near-best", "heat-map-lr", "heat-map-adadelta"}
        assert {path.name for path in (folder / "figures").iterdir()} == {
            f"{name}.{kind}" for name in names for kind in ("png", "svg")
        }
        assert {path.name for path in folder.iterdir()} == {"index.html", "figures"}
        for name in names:
            assert (folder / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
            drawing = ElementTree.parse(folder / "figures" / f"{name}.svg").getroot()
            shown = " ".join(drawing.itertext())
            assert FLATTERS in re.sub(r"\s+", " ", shown)

    def test_a_long_name_is_shown_by_both_its_ends(self, written: dict[str, Path]) -> None:
        for name in ("near-best", "heat-map-lr", "test-metric"):
            drawn = (written["long names"].parent / "figures" / f"{name}.svg").read_text(encoding="utf-8")
            for end in ("a", "b"):
                assert f"adadelta_with\N{HORIZONTAL ELLIPSIS}ght_of_parts_{end}" in drawn, name

    def test_a_theme_of_altairs_may_have_no_configuration(self, written: dict[str, Path], tmp_path: Path) -> None:
        themes = alt.theme if hasattr(alt.theme, "enable") else alt.themes  # the latter before Altair 5.5
        with themes.enable("none"):
            page = write_report(COMPARISONS["realistic"](), tmp_path)
        # Before Altair 5.5, views are numbered through a whole process.
        found, expected = (re.sub(r"view_\d+", "view", each.read_text()) for each in (page, written["realistic"]))
        assert found == expected

    def test_a_large_comparison_makes_a_small_page(self, written: dict[str, Path]) -> None:
        assert written["large"].stat().st_size < 2_000_000

    def test_a_failed_write_leaves_the_old_page(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "index.html").write_text("old")
        replace = Path.replace

        def full(self: Path, target: Path) -> Path:
            if target.name == "index.html":
                raise OSError("no space left on device")
            return replace(self, target)

        monkeypatch.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="no space left"):
            write_report(COMPARISONS["one of everything"](), str(tmp_path))
        assert (tmp_path / "index.html").read_text() == "old"
        assert {path.name for path in tmp_path.iterdir()} == {"index.html", "figures"}

    @pytest.mark.parametrize("module", ["figures", "page", "table"])
    def test_a_missing_extra_is_one_sentence_that_names_it(self, module: str) -> None:
        done = imported(f"steprule.report.{module}", without=("altair", "vl_convert", "jinja2", "rich"))
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith("ModuleNotFoundError: the report's")
        assert last.endswith("pip install 'steprule[lab]'")

    def test_the_terminals_table_needs_no_charts(self) -> None:
        assert imported("steprule.report.table", without=("altair", "vl_convert", "jinja2")).returncode == 0


def imported(module: str, without: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.modules.update(dict.fromkeys({without})); import {module}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("damaged", [False, True])
def test_its_script_is_made_once_for_all_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: bool
) -> None:
    monkeypatch.setenv("STEPRULE_CACHE", str(tmp_path))
    made = sheet._bundle.__wrapped__()  # as in another process
    (file,) = (tmp_path / "page").iterdir()
    if damaged:
        file.write_bytes(file.read_bytes()[:-1])
    else:
        monkeypatch.setattr(sheet.vl_convert, "javascript_bundle", None)
    assert sheet._bundle.__wrapped__() == made


def test_its_script_is_there_where_nothing_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("STEPRULE_CACHE", str(tmp_path / "file"))
    assert "vegaEmbed" in sheet._bundle.__wrapped__()
