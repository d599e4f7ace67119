"""Fig. 3 and 4 on a small corpus: what is tried, chosen, kept, and said of the paper's claims."""

from __future__ import annotations

import dataclasses
import html
import json
from pathlib import Path
from typing import Any

import pytest
from tests.lab.speech.tones import write_corpus

import torch
from steprule.lab.problems.speech import corpus_data
from steprule.lab.results import Setting
from steprule.lab.workers import share_threads
from steprule.lab.zeiler2012.speech import DIVIDED, Course, Plan, Point, SpeechFigure, plans, run
from steprule.lab.zeiler2012.speech_claims import claims
from steprule.report.zeiler2012.speech import as_text, write_page


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "speech", speakers=4, takes=2)


@pytest.fixture(autouse=True)
def _cache(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPRULE_CACHE", str(root.parent / "cache"))


def small(name: str, **changes: Any) -> Plan:
    plan = plans()[name]
    settings = {rule: each[:2] for rule, each in plan.settings.items()}
    few = {"replicas": 4, "updates": 40, "every": 10, "warm_start": 5, "seeds": 2, "settings": settings}
    return dataclasses.replace(plan, **few | changes)


def test_the_protocol_is_the_papers() -> None:
    assert list(plans()) == ["fig3", "fig4"]
    fig3, fig4 = plans().values()
    assert (fig3.problem, fig3.full, fig3.replicas) == ("speech_logistic", "speech_full_logistic", 100)
    assert (fig4.problem, fig4.full, fig4.replicas) == ("speech", "speech_full", 200)
    assert list(fig3.settings) == ["adagrad", "adadelta"] and list(fig4.settings) == ["adagrad", "momentum", "adadelta"]
    for plan in (fig3, fig4):
        assert plan.settings["adadelta"] == (Setting("adadelta", {"eps": 1e-6, "rho": 0.95}),)
        assert plan.seeds == 3 and plan.runs == sum(len(each) + 2 for each in plan.settings.values()) + 3
        (divided,) = plan.beside.values()
        assert divided == Setting("adadelta", {"eps": 1e-6, "rho": 0.95, "lr": 1 / plan.replicas})


def test_each_setting_is_trained_once_and_the_best_with_every_seed(root: Path, tmp_path: Path) -> None:
    plan, told = small("fig4"), []
    found = run(plan, tmp_path, corpus=root, progress=lambda *each: told.append(each))
    assert [(each.setting.rule, each.seed) for each in found.tried] == [
        ("adagrad", 0), ("adagrad", 0), ("momentum", 0), ("momentum", 0), ("adadelta", 0),
    ]  # fmt: skip
    for rule, courses in found.courses.items():
        best = max((each for each in found.tried if each.setting.rule == rule), key=lambda each: each.score)
        assert courses[0] == best and [each.seed for each in courses] == [0, 1]
        assert {each.setting for each in courses} == {best.setting}
    assert [point.updates for point in found.courses["adadelta"][0].points] == [10, 20, 30, 40]
    (divided,) = found.beside.values()
    assert [each.seed for each in divided] == [0, 1]
    assert divided[0].points != found.courses["adadelta"][0].points
    assert len({(setting, seed) for setting, seed, _ in told}) == plan.runs
    assert len(set(told)) == len(told), "a measurement is told twice"
    assert "speech: the state of each frame" in found.description and found.parameters > 400_000


def test_what_is_finished_is_kept_and_a_changed_plan_is_trained_anew(root: Path, tmp_path: Path) -> None:
    plan, told = small("fig3"), []
    first = run(plan, tmp_path, corpus=root)
    again = run(plan, tmp_path, corpus=root, progress=lambda *each: told.append(each))
    assert again == first and all(updates == plan.updates for _, _, updates in told)
    longer = run(dataclasses.replace(plan, updates=50), tmp_path, corpus=root)
    assert longer.courses["adadelta"][0].points[:4] == first.courses["adadelta"][0].points
    assert run(plan, tmp_path, corpus=root, fresh=True) == first, "the same seed gives another result"
    for each in tmp_path.glob("adadelta-*.json"):
        each.write_text("{")
    with pytest.raises(ValueError, match=r"adadelta.*json is no training of this figure"):
        run(plan, tmp_path, corpus=root)


def test_no_seeds_are_refused_before_anything_is_trained(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="seeds is 0; allowed is a whole number from 1"):
        run(small("fig3", seeds=0), tmp_path / "out", corpus=root)
    assert not (tmp_path / "out").exists()


def test_each_form_of_a_training_is_kept_and_taken_for_no_other(root: Path, tmp_path: Path) -> None:
    plan = small("fig3", seeds=1, updates=20)
    plan = dataclasses.replace(plan, settings={rule: each[:1] for rule, each in plan.settings.items()})

    def trained(**form: Any) -> list[int]:
        told: list[int] = []
        run(plan, tmp_path, corpus=root, progress=lambda *each: told.append(each[2]), **form)
        return [each for each in told if each < plan.updates]

    threads = torch.get_num_threads()
    for number in (1, 2):
        torch.set_num_threads(number)
        try:
            assert trained() == [10, 10, 10]
        finally:
            torch.set_num_threads(threads)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(before) == 6
    torch.set_num_threads(1)
    try:
        assert trained() == [], "what was trained first has been overwritten"
        assert trained(device="cpu:0") == [10, 10, 10], "of another device's trainings it makes its own"
    finally:
        torch.set_num_threads(threads)
    assert {path: path.read_bytes() for path in before} == before


def test_of_a_corpus_that_has_changed_nothing_is_kept(tmp_path: Path) -> None:
    corpus, plan = tmp_path / "corpus", small("fig3", seeds=1, updates=10)
    plan = dataclasses.replace(plan, settings={"adadelta": plan.settings["adadelta"]})
    for takes in (1, 2):
        write_corpus(corpus, takes=takes)
        corpus_data.cache_clear()  # as in another process
        run(plan, tmp_path / "out", corpus=corpus)
        assert len(list((tmp_path / "out").iterdir())) == 2 * takes


def test_trainings_side_by_side_are_those_of_one_process(root: Path, tmp_path: Path) -> None:
    plan = small("fig3", seeds=1, updates=20)
    plan, told = dataclasses.replace(plan, settings={rule: each[:1] for rule, each in plan.settings.items()}), []
    threads = torch.get_num_threads()
    torch.set_num_threads(share_threads(2))  # on which the last bits depend
    try:
        one = run(plan, tmp_path / "one", corpus=root)
    finally:
        torch.set_num_threads(threads)
    beside = run(plan, tmp_path / "two", corpus=root, jobs=2, progress=lambda *each: told.append(each))
    assert beside == one
    assert sorted(updates for setting, _, updates in told if setting.rule == "adagrad") == [10, 20]


def course(rule: str, seed: int, tests: list[float], diverged: bool = False) -> Course:
    points = tuple(Point(10 * n, 1.0 * n, 1.0, test, test) for n, test in enumerate(tests, 1))
    return Course(Setting(rule, {"lr": 0.1} if rule != "adadelta" else {}), seed, points, 3.0, diverged)


def made(name: str, **tests: list[list[float]]) -> SpeechFigure:
    courses = {
        rule: tuple(course(rule, n, each, len(each) < 4) for n, each in enumerate(every))
        for rule, every in tests.items()
    }
    tried = tuple(each[0] for each in courses.values())
    beside = {DIVIDED: (course("adadelta", 0, [21.0, 22.0, 23.0, 24.5]),)}
    return SpeechFigure(small(name, seeds=len(tests["adadelta"])), "a corpus", 5, tried, courses, beside)


@pytest.mark.parametrize(
    ("ours", "other", "verdicts"),
    [
        ([[30, 40, 50, 60]], [[20, 30, 40, 50]], ["holds", "holds"]),
        ([[30, 40, 50, 60]], [[20, 30, 55, 50]], ["holds", "does not hold"]),
        ([[10, 40, 50, 60]], [[20, 30, 40, 50]], ["does not hold", "holds"]),
        ([[30, 40]], [[20, 30, 40, 50]], ["holds", "does not hold"]),
        ([[30, 40, 50, 60]] * 2, [[20, 30, 40, 50], [20, 50, 40, 50]], ["holds", "holds in 1 of 2 seeds"]),
    ],
)
def test_the_claims_of_figure_3_are_decided_seed_by_seed(ours: list, other: list, verdicts: list[str]) -> None:
    assert [each.verdict for each in claims(made("fig3", adagrad=other, adadelta=ours))] == verdicts


@pytest.mark.parametrize(
    ("ours", "other", "verdicts"),
    [
        ([[30, 49, 50, 49.5]], [[20, 30, 40, 50]], ["holds", "holds"]),
        ([[30, 40, 49, 49.5]], [[20, 30, 40, 50]], ["holds", "does not hold"]),
        ([[30, 48, 48, 48.5]], [[20, 30, 40, 50]], ["does not hold", "holds"]),
        ([[30]], [[20, 30, 40, 50]], ["does not hold", "does not hold"]),
        ([[49, 49, 20, 20]], [[20, 30, 40, 50]], ["does not hold", "does not hold"]),
    ],
)
def test_the_claims_of_figure_4_are_decided_seed_by_seed(ours: list, other: list, verdicts: list[str]) -> None:
    found = made("fig4", adagrad=[[1, 2, 3, 4]], momentum=other, adadelta=ours)
    assert [each.verdict for each in claims(found)] == verdicts


def test_the_page_has_every_claim_setting_and_figure(tmp_path: Path) -> None:
    fig3 = made("fig3", adagrad=[[20, 30, 40, 50]], adadelta=[[30, 40, 50, 60]])
    fig4 = made("fig4", adagrad=[[1, 2, 3, 4]], momentum=[[1, 2]], adadelta=[[1, 2, 3, 5]])
    page = html.unescape(write_page([fig3, fig4], tmp_path).read_text())
    for found in (fig3, fig4):
        for claim in claims(found):
            assert claim.text in page and claim.criterion in page
        for kind in ("updates", "time"):
            assert (tmp_path / "figures" / f"{found.plan.name}-{kind}.svg").is_file()
    assert page.count('<td class="number">24.5 %</td>') == 2 and "which is not in the paper" in page
    assert "diverged in 1 of 1 seeds" in page and "60.0 %" in page
    charts = json.loads(page.partition('id="charts">')[2].partition("</script>")[0])
    assert set(charts["specifications"]) == {"fig3-updates", "fig3-time", "fig4-updates", "fig4-time"}
    text = " ".join(as_text(fig3).split())
    assert "Fig. 3: logistic units, 100 replicas" in text
    assert text.count("holds") == 2 and "24.5 %" in text
