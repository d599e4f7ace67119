"""The numbers and sentences of a report as text, the same in the terminal and on the page."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from ..lab.results import Setting
from ..lab.summary import RuleSummary, SettingSummary, Spread, Summary

__all__ = [
    "choice",
    "decimals",
    "duration",
    "hyperparameter",
    "hyperparameters",
    "interruption",
    "number",
    "quantity",
    "seconds",
    "seeds",
    "share",
    "state",
    "verdict",
    "with_unit",
]

NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"
NOTHING = "\N{EN DASH}"
"""Stands in a cell that has no number."""


def decimals(summary: Summary) -> int:
    """Digits after the point for the metric: two for a percentage, as in the paper, else three significant digits.

    One number for a whole report, taken from its best score, so that columns align.
    """
    best = abs(summary.winner.best.test.mean) if summary.winner and summary.winner.best and summary.winner.best.test else 0
    if best == 0 or (summary.metric.unit == "%" and best >= 0.1):
        return 2
    return min(max(0, 2 - math.floor(math.log10(best))), 6)


def number(value: float, digits: int) -> str:
    """`value` with `digits` after the point, or in powers of ten where that would hide it or run on."""
    if value != 0 and not 0.5 * 10**-digits <= abs(value) < 1e5:
        return _short_exponent(f"{value:.2e}" if digits else f"{value:.1e}")
    return f"{value:.{digits}f}".replace("-", MINUS)


def hyperparameter(value: float) -> str:
    """A hyperparameter as the papers print it: `0.95`, `1e-6`."""
    return _short_exponent(f"{value:g}")


def hyperparameters(values: Mapping[str, float]) -> str:
    """`rho=0.95, eps=1e-6`; a setting in which nothing varies is called by what it is, the defaults."""
    pairs = (f"{name}={hyperparameter(value)}" for name, value in values.items())
    return ", ".join(pairs) or "defaults"


def setting_name(setting: Setting) -> str:
    """`adadelta, rho=0.95, eps=1e-6`."""
    return f"{setting.rule}, {hyperparameters(setting.hyperparameters)}"


def with_unit(text: str, unit: str) -> str:
    """A number and its unit, kept on one line."""
    return f"{text}{NO_BREAK_SPACE}{unit}" if unit else text


def seeds(spread: Spread, planned: int) -> str:
    """`3 seeds`, or `2 of 3 seeds` where the others have not ended."""
    if spread.seeds < planned:
        return f"{spread.seeds} of {planned} seeds"
    return "1 seed" if spread.seeds == 1 else f"{spread.seeds} seeds"


def deviation(spread: Spread, digits: int, planned: int) -> str:
    """`± 0.05`, or `(1 seed)` where there is no deviation; with the seeds that are there where some are missing."""
    text = "" if spread.sd is None else f"±{NO_BREAK_SPACE}{number(spread.sd, digits)}"
    return " ".join(filter(None, [text, f"({seeds(spread, planned)})" if not text or spread.seeds < planned else ""]))


def quantity(spread: Spread, summary: Summary, planned: int) -> str:
    """`1.83 ± 0.05 %`, or `1.83 % (1 seed)`."""
    digits = decimals(summary)
    mean = number(spread.mean, digits)
    if spread.sd is not None:
        mean = f"{mean}{NO_BREAK_SPACE}±{NO_BREAK_SPACE}{number(spread.sd, digits)}"
    missing = spread.sd is None or spread.seeds < planned
    return with_unit(mean, summary.metric.unit) + (f" ({seeds(spread, planned)})" if missing else "")


def state(setting: SettingSummary) -> str:
    """How a setting without a score ended: `diverged (2 of 3)`, `failed (1 of 3)`, `unfinished`."""
    if setting.state == "diverged":
        return f"diverged ({setting.diverged} of {setting.seeds})"
    if setting.state == "failed":
        return f"failed ({setting.failed} of {setting.seeds})"
    return setting.state


def share(near: int, ended: int) -> str:
    """`83 % (10 of 12)`."""
    return f"{100 * near / ended:.0f}{NO_BREAK_SPACE}% ({near} of {ended})" if ended else "none has ended"


def without_best(rule: RuleSummary) -> str:
    """Why a rule has no best setting."""
    if rule.unfinished:
        return "none finished yet"
    if not rule.failed:
        return "every setting diverged"
    return "every setting failed" if not rule.diverged else "every setting diverged or failed"


def spread_note(summary: Summary) -> str:
    """What stands behind the ± sign."""
    if summary.seeds == 1:
        return "One seed, so there is no spread;"
    return f"\N{PLUS-MINUS SIGN} is the sample standard deviation over {summary.seeds} seeds;"


def best_score(summary: Summary) -> str:
    """The score that all others are compared with, with its unit; nothing where there is none."""
    if summary.winner is None or summary.winner.best is None or summary.winner.best.test is None:
        return ""
    return with_unit(number(summary.winner.best.test.mean, decimals(summary)), summary.metric.unit)


def listed(items: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def capital(text: str) -> str:
    """The text with a capital first letter, and the others as they are."""
    return text[:1].upper() + text[1:]


def plural(count: int, noun: str) -> str:
    """`1 epoch`, `20 epochs`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def seconds(value: float | None) -> str:
    """Wall time of an epoch: `12 ms`, `0.41 s`."""
    if value is None:
        return NOTHING
    if value < 0.1:
        return with_unit(f"{1000 * value:.2g}", "ms")
    return with_unit(f"{value:.2f}" if value < 10 else f"{value:.0f}", "s")


def duration(value: float) -> str:
    """How long the whole took: `8.2 s`, `12 min 5 s`, `3 h 20 min`."""
    if value < 60:
        return with_unit(f"{value:.1f}" if value < 10 else f"{value:.0f}", "s")
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def choice(summary: Summary) -> str:
    """How each rule's setting was found; it stands wherever the best number does, after "each rule's setting was"."""
    if all(len(rule.settings) < 2 for rule in summary.rules):
        return "the only one tried"
    if summary.chosen_on == "validation":
        return "chosen on the validation data"
    return "chosen on the test data, as in the paper's tables, so it flatters"


def interruption(summary: Summary) -> str:
    """One sentence on what is missing of an interrupted run, or nothing."""
    planned = sum(rule.trials for rule in summary.rules)
    missing = summary.unfinished
    return f"The run is not complete: {missing} of {planned} trials have not ended." if missing else ""


def verdict(summary: Summary) -> str:
    """The comparison in one sentence, computed from its numbers."""
    scored = [rule for rule in summary.rules if rule.best is not None]
    if not scored:
        return "No trial has ended yet." if summary.unfinished else "Every setting of every rule diverged or failed."
    first = _reached(scored[0], summary)
    if len(scored) == 1 and len(summary.rules) == 1:
        return f"{scored[0].rule} reached a {summary.metric.name} of {first}."
    parts = [f"{scored[0].rule} reached the {_extreme(summary)} {summary.metric.name}, {first}"]
    parts += [_second(scored[0], scored[1], summary)] if len(scored) > 1 else ["no other rule has a result"]
    parts += [_least_tuning(scored)] if any(rule.ended > 1 for rule in scored) else []
    return "; ".join(filter(None, parts)) + "."


def _reached(rule: RuleSummary, summary: Summary) -> str:
    assert rule.best is not None and rule.best.test is not None
    spread, planned = rule.best.test, rule.best.seeds
    mean = quantity(spread, summary, spread.seeds).removesuffix(" (1 seed)")
    return f"{mean} ({hyperparameters(rule.best.setting.hyperparameters)}; {seeds(spread, planned)})"


def _second(first: RuleSummary, second: RuleSummary, summary: Summary) -> str:
    assert first.best and first.best.test and second.best and second.best.test
    one, two = first.best.test, second.best.test
    text = f"{second.rule} came next with {quantity(two, summary, two.seeds).removesuffix(' (1 seed)')}"
    if abs(one.mean - two.mean) < max(one.sd or 0.0, two.sd or 0.0):
        return f"{text}, less than a standard deviation away"
    return text


def _least_tuning(scored: list[RuleSummary]) -> str:
    tried = [rule for rule in scored if rule.ended]
    most = max(rule.near_best / rule.ended for rule in tried)
    easiest = [rule for rule in tried if rule.near_best / rule.ended == most]
    if len(easiest) > 1:
        return ""
    return f"{easiest[0].rule} needed the least tuning, with {easiest[0].near_best} of {easiest[0].ended} settings near the best"


def _extreme(summary: Summary) -> str:
    return "lowest" if summary.metric.lower_is_better else "highest"


def _short_exponent(text: str) -> str:
    return re.sub(r"e([+-]?)0*(\d)", lambda m: f"e{m[1].strip('+')}{m[2]}", text)
