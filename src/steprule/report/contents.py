"""What the page's tables and lists hold, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..lab.results import Comparison, Run, Setting
from ..lab.summary import RuleSummary, SettingSummary, Summary
from . import words
from .drawing import Figure

__all__ = ["PARTS", "facts", "failures", "lead", "rule_rows", "scope", "table_notes"]

PARTS = (
    ("curves", "The course of training"),
    ("tuning", "How much tuning does it need"),
)
"""The page's sections of figures: `Figure.part` and the heading."""


def lead(part: str, drawn: Sequence[Figure]) -> str:
    """One sentence on how to read a section's figures."""
    if part == "tuning":
        return "The more of its grid a rule fills with strong colour, the less tuning it needs."
    if any(figure.rules for figure in drawn):
        return "Choose a rule in a legend to see it alone, with Shift several; point at a curve to read its numbers."
    return "Point at a mark to read its numbers."


def rule_rows(summary: Summary, published: Mapping[Setting, float]) -> list[dict[str, Any]]:
    """One row per rule, best first; with what is published of its best setting."""
    return [_rule_row(rule, summary, published) for rule in summary.rules]


def _rule_row(rule: RuleSummary, summary: Summary, published: Mapping[Setting, float]) -> dict[str, Any]:
    row = {
        "rule": rule.rule,
        "is_best": summary.is_best(rule) and len(summary.rules) > 1,
        "setting": words.best_setting(rule),
        "mean": "",
        "deviation": "",
        "published": words.NOTHING,
        "loss": words.NOTHING,
        "share": f"{100 * rule.near_best / rule.ended:.0f}{words.NO_BREAK_SPACE}%" if rule.ended else words.NOTHING,
        "near": f"{rule.near_best} of {rule.ended}" if rule.ended else "",
        "seconds": words.seconds(rule.seconds),
        "diverged": f"{rule.diverged} of {rule.trials}" if rule.diverged else "0",
    }
    if rule.best is not None:
        digits = words.decimals(summary)
        row["mean"] = words.number(rule.best.score.mean, digits)
        row["deviation"] = words.deviation(rule.best.score, digits, rule.best.seeds)
        if rule.best.setting in published:
            row["published"] = words.number(published[rule.best.setting], digits)
        row["loss"] = words.significant(rule.best.loss.mean) if rule.best.loss else words.NOTHING
    return row


def table_notes(summary: Summary) -> list[str]:
    """The sentences under the table of rules."""
    if summary.winner is None:
        return ["Diverged: trials, out of all settings and seeds."]
    spread = "" if summary.seeds == 1 else f"± is the sample standard deviation over {summary.seeds} seeds."
    return [
        f"The metric is that of the last epoch. {spread}".strip(),
        f"Each rule's setting was {words.choice(summary)}.",
        f"Near the best: {words.nearness(summary)}.",
        "Time per epoch: median over the epochs of finished trials. Diverged: trials, out of all settings and seeds.",
    ]


def failures(summary: Summary) -> list[dict[str, str]]:
    """Every setting with failed or diverged seeds, failed ones first, because only they have a cause to mend."""
    settings = [setting for rule in summary.rules for setting in rule.settings]
    failed = [_failure(s, s.failed, "Failed: " + "; ".join(s.causes)) for s in settings if s.failed]
    return failed + [_failure(s, s.diverged, _divergence(s)) for s in settings if s.diverged]


def _failure(setting: SettingSummary, seeds: int, cause: str) -> dict[str, str]:
    return {
        "rule": setting.setting.rule,
        "setting": words.hyperparameters(setting.setting.hyperparameters),
        "seeds": f"{seeds} of {setting.seeds}",
        "cause": cause,
    }


def _divergence(setting: SettingSummary) -> str:
    if not setting.diverged_at:
        return "Diverged"
    first, last = min(setting.diverged_at), max(setting.diverged_at)
    when = f"epoch{words.NO_BREAK_SPACE}{first}" if first == last else f"epochs {first} to {last}"
    return ": ".join(filter(None, [f"Diverged in {when}", words.unmeasured(setting.unmeasured)]))


def scope(summary: Summary) -> str:
    """How large the comparison is, in one line."""
    settings = sum(len(rule.settings) for rule in summary.rules)
    counts = ((len(summary.rules), "rule"), (settings, "setting"), (summary.seeds, "seed"), (summary.epochs, "epoch"))
    return ", ".join(words.plural(count, noun) for count, noun in counts)


def facts(comparison: Comparison, summary: Summary) -> list[tuple[str, list[str]]]:
    """How the comparison was run: terms, each with its lines of text."""
    run = comparison.run
    grids = [f"{rule}: {_grid(grid)}" for rule, grid in comparison.grids.items()]
    chosen = f"Each rule's setting was {words.choice(summary)}." if summary.winner else "No setting finished."
    lines = [
        ("Problem", [comparison.problem]),
        ("Description", [comparison.description]),
        ("Metric", [_metric(comparison)]),
        ("Epochs", [str(comparison.epochs)]),
        ("Seeds", [str(comparison.seeds)]),
        ("Choice", [chosen]),
        ("Grids", grids),
        ("Versions", [", ".join(f"{name} {version}" for name, version in run.versions.items())]),
        ("Machine", [f"{name}: {value}" for name, value in run.machine.items()]),
        ("Command", [run.command]),
        ("Started", [run.started]),
        ("Duration", [words.duration(run.seconds) + _earlier(run)]),
    ]
    return [(term, texts) for term, texts in lines if any(texts)]


def _earlier(run: Run) -> str:
    return f"; {words.plural(run.taken_over, 'trial')} had been finished before" if run.taken_over else ""


def _metric(comparison: Comparison) -> str:
    metric = comparison.metric
    unit = f" in {metric.unit}" if metric.unit else ""
    return f"{metric.name}{unit}; {'less' if metric.lower_is_better else 'more'} is better"


def _grid(grid: Mapping[str, tuple[float, ...]]) -> str:
    parts = [f"{name} in {', '.join(map(words.hyperparameter, values))}" for name, values in grid.items()]
    return "; ".join(parts) or "defaults"
