"""The reproduction of the paper as its readers meet it: the page, the table, and the file of results behind both."""

from __future__ import annotations

import json
import math
import re
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from tests.lab.zeiler2012.made import curve, experiment, papers, reproduced
from tests.report.browser import Browser
from tests.report.test_figures import contrast

from steprule.lab.results import Setting
from steprule.lab.zeiler2012 import Reproduced, published
from steprule.report import theme
from steprule.report.zeiler2012.distance import KEYS, shade
from steprule.report.zeiler2012.figures import curves
from steprule.report.zeiler2012.page import write_comparisons, write_reproduction
from steprule.report.zeiler2012.table import as_text, terminal_table

BAD = Setting("momentum", {"lr": 1.0})
RISKY = Setting("sgd", {"lr": 1.0})


def with_divergence(setting: Setting, seed: int, epoch: int) -> float:
    lost = setting == BAD or (setting == RISKY and seed == 1)
    return math.nan if lost else papers(experiment("table1"))(setting, seed, epoch)


def results() -> list[Reproduced]:
    return [
        reproduced("table1", with_divergence),
        reproduced("table2"),
        reproduced("fig1"),
        reproduced("tanh", there=2),
    ]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reproduction(results(), tmp_path_factory.mktemp("page"))


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_every_chart_is_drawn_and_nothing_is_asked_for(browser: Browser, page: Path, width: int, scheme: str) -> None:
    opened = browser.open(page, width, scheme)
    assert opened.said == []
    assert opened.requested == [page.as_uri()]
    assert opened.page.locator(".chart svg").count() == 3
    assert opened.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_a_rule_is_named_as_it_is_called_and_words_begin_a_head(browser: Browser, page: Path) -> None:
    heads = browser.open(page).page.locator("section:has(#fig1) thead th").all_text_contents()
    assert heads[0] == "Epoch"
    assert set(heads[1:]) >= {"adadelta", "sgd"}


def test_a_cell_has_the_papers_number_and_the_colour_of_its_distance(browser: Browser, page: Path) -> None:
    opened = browser.open(page).page
    texts = opened.locator("#chart-table1 svg text").all_text_contents()
    assert "paper 2.26; 1 of 3 diverged" in texts
    assert "paper 89.68" in texts and "diverged" in texts
    fills = opened.evaluate(
        "[...document.querySelectorAll('#chart-table1 .mark-rect path')].map(p => getComputedStyle(p).fill)"
    )
    assert len(fills) == 15
    assert len(set(fills)) == 2, "all are near the paper's but the one that diverged"


def test_the_page_says_what_is_missing_and_what_the_paper_says(page: Path) -> None:
    text = page.read_text(encoding="utf-8").split("<script", 1)[0]
    assert "Not here: schaul, fig2. tanh: 1 of 3 trials are not finished." in text
    assert re.search(r"Momentum ends best after 50 epochs</th><td class=\"verdict-holds\">holds", text)
    assert 'href="table1/1/index.html"' in text
    assert "How it was run" in text


@pytest.mark.parametrize(
    ("there", "said"),
    [(3, "deviation over 3 seeds. Each"), (2, "deviation over 2 seeds (3 are planned)"), (1, "One seed, of which")],
)
def test_fig_1_says_how_many_seeds_it_is_drawn_of(there: int, said: str) -> None:
    figure = curves(reproduced("fig1", there=there))
    assert figure is not None
    assert said in figure.caption


def test_fig_1_tells_of_a_seed_that_diverged_beside_the_mean_of_the_others() -> None:
    def course(setting: Setting, seed: int, epoch: int) -> float:
        return math.nan if (setting.rule, seed) == ("sgd", 1) else curve(setting, seed, epoch)

    made = reproduced("fig1", course)
    figure = curves(made)
    assert figure is not None
    assert "deviation over 2 to 3 seeds. 1 of 3 seeds of sgd diverged. Each method" in figure.caption
    table = as_text([made]).partition("What the paper says")[0]
    assert re.search(r"\n50 +1\.91 ± 0\.01 .*\n +1 of 3 diverged *\n", table)


def test_each_figure_is_a_file(page: Path) -> None:
    files = {path.name for path in (page.parent / "figures").iterdir()}
    assert files == {f"{name}.{kind}" for name in ("table1", "table2", "fig1") for kind in ("png", "svg")}


def test_compares_page_has_the_papers_numbers(tmp_path: Path) -> None:
    write_comparisons(reproduced("table2"), tmp_path)
    text = (tmp_path / "table2" / "1" / "index.html").read_text(encoding="utf-8")
    charts = json.loads(re.search(r'id="charts">(.*?)</script>', text, re.DOTALL)[1])["specifications"]  # type: ignore[index]
    (cells,) = charts["heat-map-adadelta"]["datasets"].values()
    told = {cell["text"].partition("\n")[2] for cell in cells}
    assert told == {f"paper {cell.error:.2f}" for cell in experiment("table2").printed.cells}
    assert re.search(r'<th scope="col" class="number">Paper</th>', text)
    assert re.search(r'<td class="number">1\.83</td>', text)


class TestTheTable:
    def test_fits_a_terminal_of_80_columns(self) -> None:
        printed = as_text(results())
        assert "…" not in printed
        assert max(map(len, printed.splitlines())) <= 80

    def test_is_the_papers_with_ours_beside(self) -> None:
        lines = as_text(results()).splitlines()
        start = lines.index("Table 1: rectified units, by learning rate")
        assert lines[start + 1].split() == ["lr", "sgd", "momentum", "adagrad"]
        row = lines[start + 3].split()
        assert row[0] == "1" and row[4:6] == ["(2.26)", "diverged"]
        assert lines[start + 4].split() == ["1", "of", "3", "diverged"]
        # Three seeds, at 0, 1 and 2 % above the paper's.
        assert lines[start + 5].split()[:5] == ["0.1", "2.54", "±", "0.03", "(2.51)"]
        assert "aim: at least 0.98; reached" in " ".join(" ".join(lines).split())

    def test_colours_a_cell_by_its_distance(self) -> None:
        console = Console(file=StringIO(), width=80, force_terminal=True, color_system="truecolor", no_color=False)
        own = papers(experiment("table2"))
        with console.capture() as captured:
            console.print(terminal_table([reproduced("table2", lambda *at: 1.2 * own(*at))]))
        red, green, blue = (int(theme.LIGHT["apart-5"][i : i + 2], 16) for i in (1, 3, 5))
        # Twelve cells and the legend.
        assert captured.get().count(f"48;2;{red};{green};{blue}m") == 13

    def test_tells_of_what_has_not_been_run(self) -> None:
        printed = " ".join(as_text([reproduced("fig1", there=0)]).split())
        assert "12 of 12 trials are not finished" in printed
        assert "Momentum ends best after 50 epochs: not run" in printed


class TestTheFileOfResults:
    def test_what_is_read_is_shown_as_what_was_written(self, tmp_path: Path) -> None:
        path = tmp_path / "results.json"
        path.write_text(published.as_text(results()), encoding="utf-8")
        read = published.read(path)
        assert as_text(read) == as_text(results())
        assert published.as_text(read) == path.read_text(encoding="utf-8")

    def test_has_a_line_for_each_trial_and_valid_json(self) -> None:
        text = published.as_text([reproduced("table1", with_divergence)])
        told = json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
        (made,) = told["parts"]["table1"]
        assert len(made["trials"]) == 45 == sum(line.strip().startswith('{"rule"') for line in text.splitlines())
        assert made["command"] == "steprule reproduce zeiler2012 table1 --seeds 3"

    @pytest.mark.parametrize("content", ["", "[]", '{"parts": {"table9": []}}'])
    def test_another_file_is_refused(self, tmp_path: Path, content: str) -> None:
        path = tmp_path / "results.json"
        path.write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match="is no file of results of zeiler2012"):
            published.read(path)

    def test_the_committed_one_is_whole_and_names_no_folder(self) -> None:
        assert all(not result.is_empty for result in published.read())
        assert not re.search(r"(^|[\s\"])(/|~/|\w:\\)\w", published.PATH.read_text(encoding="utf-8"))


def test_shades_are_symmetric_and_meet_at_the_limits() -> None:
    assert [shade(ours, 2.0) for ours in (1.0, 1.5, 1.8, 1.9, 2.0, 2.1, 2.2, 2.5, 9.0, math.inf)] == [
        0, 2 - 1, 2, 3, 3, 3, 4, 5, 6, 6,
    ]  # fmt: skip
    assert len(KEYS) == theme.DISTANCES == 7


@pytest.mark.parametrize("colours", [theme.LIGHT, theme.DARK], ids=["light", "dark"])
def test_text_can_be_read_on_every_shade(colours: dict[str, str]) -> None:
    assert all(contrast(colours["ink"], colours[f"apart-{index}"]) >= 4.5 for index in range(theme.DISTANCES))
