"""The numbers and sentences of a report as text, the same in the terminal and on the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from ..lab.numerals import plural, short_exponent
from ..lab.results import Metric, Setting
from ..lab.spread import Spread
from ..lab.summary import NEAR, RuleSummary, SettingSummary, Summary

__all__ = [
    "NOTHING",
    "NO_BREAK_SPACE",
    "best_score",
    "best_setting",
    "capital",
    "choice",
    "decimals",
    "decimals_of",
    "deviation",
    "duration",
    "hyperparameter",
    "hyperparameters",
    "interruption",
    "labels",
    "listed",
    "nearness",
    "number",
    "plural",
    "quantity",
    "seconds",
    "seeds",
    "setting_name",
    "share",
    "significant",
    "spread_note",
    "state",
    "unmeasured",
    "verdict",
    "with_unit",
    "without_best",
]

NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"
NOTHING = "\N{EN DASH}"
"""Stands in a cell that has no number."""


_LARGE: Final = 5
"""Digits that a number from 1 on has at most: what has diverged must not run into what stands beside it."""


def decimals(summary: Summary) -> int:
    """Digits after the point for the metric: two for a percentage, as in the paper, else three significant digits.

    One number for a whole report, taken from its best score, so that columns align.
    """
    return decimals_of(summary.metric, summary.best.score.mean if summary.winner else 0.0)


def decimals_of(metric: Metric, best: float) -> int:
    """As `decimals`, of a report with that best score."""
    if best == 0 or (metric.unit == "%" and abs(best) >= 0.1):
        return 2
    return min(max(0, 2 - math.floor(math.log10(abs(best)))), 6)


def number(value: float, digits: int) -> str:
    """`value` with `digits` after the point, fewer where it is large, or in powers of ten where they would hide it."""
    if value != 0 and not 0.5 * 10**-digits <= abs(value) < 10**_LARGE:
        return short_exponent(f"{value:.2e}" if digits else f"{value:.1e}")
    if abs(value) >= 1:
        digits = min(digits, _LARGE - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}".replace("-", MINUS)


def significant(value: float) -> str:
    """Three significant digits, zeros at the end too: `0.100`, `12.3`, `1.23e-7`."""
    return number(value, max(0, 2 - math.floor(math.log10(abs(value)))) if 1e-4 <= abs(value) < 10**_LARGE else 2)


def hyperparameter(value: float) -> str:
    """A hyperparameter as the papers print it: `0.95`, `1e-6`; three digits of one that has more than six."""
    text = f"{value:g}"
    if float(text) != value:
        text = min(f"{value:.3g}", f"{value:.2e}", key=lambda shown: len(short_exponent(shown)))
    return short_exponent(text)


def labels(values: Iterable[float]) -> dict[float, str]:
    """Each value and a text for it that no other of the values has."""
    values = tuple(values)
    short = {value: hyperparameter(value) for value in values}
    return short if len(set(short.values())) == len(short) else {value: repr(value) for value in values}


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
    return f"{spread.seeds} of {planned} seeds" if spread.seeds < planned else plural(spread.seeds, "seed")


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


def best_setting(rule: RuleSummary) -> str:
    """The hyperparameters of the rule's best setting, or why it has none."""
    return hyperparameters(rule.best.setting.hyperparameters) if rule.best else without_best(rule)


def without_best(rule: RuleSummary) -> str:
    """Why a rule has no best setting."""
    if rule.unfinished:
        return "none finished yet"
    if not rule.failed:
        return "every setting diverged"
    return "every setting failed" if not rule.diverged else "every setting diverged or failed"


def unmeasured(trials: int) -> str:
    """What is to be known of trials that count as diverged though their loss did not; nothing where there are none."""
    return f"{plural(trials, 'trial')} with a finite loss, and a metric that is NaN or infinite" if trials else ""


def spread_note(summary: Summary) -> str:
    """What stands behind the ± sign."""
    if summary.seeds == 1:
        return "One seed, so there is no spread;"
    return f"\N{PLUS-MINUS SIGN} is the sample standard deviation over {summary.seeds} seeds;"


def best_score(summary: Summary) -> str:
    """The score that all others are compared with, with its unit."""
    return with_unit(number(summary.best.score.mean, decimals(summary)), summary.metric.unit)


def nearness(summary: Summary) -> str:
    """What near the best means, as a number of this comparison and as the rule behind it (see `summary.reach`)."""
    best = summary.best.score.mean
    limit = summary.limit()
    shown, top = with_unit(number(limit, decimals(summary)), summary.metric.unit), best_score(summary)
    percent = f"{100 * NEAR:.0f}{NO_BREAK_SPACE}%"
    if math.isclose(abs(limit - best), NEAR * abs(best)):
        reason = f"within {percent} of the best score of any rule, {top}"
    elif math.isclose(abs(limit - best), NEAR * (100 - best)):
        reason = f"within {percent} of what the best score of any rule, {top}, lacks to 100{NO_BREAK_SPACE}%"
    else:
        reason = f"within a thousandth of the median distance to the best score of any rule, {top}"
    return f"no worse than {shown}, which is {reason}"


def listed(items: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def capital(text: str) -> str:
    """The text with a capital first letter, and the others as they are."""
    return text[:1].upper() + text[1:]


def seconds(value: float | None) -> str:
    """Wall time of an epoch: `12 ms`, `0.41 s`."""
    if value is None:
        return NOTHING
    if value < 0.0995:  # what two digits round to 100 would be in powers of ten
        return with_unit(f"{1000 * value:.2g}", "ms")
    return with_unit(f"{value:.2f}" if value < 10 else f"{value:.0f}", "s")


def duration(value: float) -> str:
    """How long the whole took: `8.2 s`, `12 min 5 s`, `3 h 20 min`."""
    if value < 59.5:
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
    scored = [(rule, rule.best) for rule in summary.rules if rule.best is not None]
    if not scored:
        return "No trial has ended yet." if summary.unfinished else "Every setting of every rule diverged or failed."
    rule, best = scored[0]
    name = summary.metric.name
    settled = f"({hyperparameters(best.setting.hyperparameters)}; {seeds(best.score, best.seeds)})"
    first = f"{_plain(best, summary)} {settled}"
    if len(summary.rules) == 1:
        return f"{rule.rule} reached {_article(name)} {name} of {first}."
    parts = [f"{rule.rule} reached the {'lowest' if summary.metric.lower_is_better else 'highest'} {name}, {first}"]
    equal = [other.rule for other, _ in scored[1:] if summary.is_best(other)]
    if equal:
        parts += [f"{listed(equal)} reached the same"]
    else:
        parts += [_second(best, *scored[1], summary)] if len(scored) > 1 else ["no other rule has a result"]
    parts += [] if summary.unfinished else _least_tuning([rule for rule, _ in scored])
    return "; ".join(parts) + "."


def _plain(setting: SettingSummary, summary: Summary) -> str:
    """The score without its seeds, which the sentence names once."""
    return quantity(setting.score, summary, setting.score.seeds).removesuffix(" (1 seed)")


def _second(first: SettingSummary, rule: RuleSummary, second: SettingSummary, summary: Summary) -> str:
    text = f"{rule.rule} came next with {_plain(second, summary)}"
    one, two = first.score, second.score
    is_close = abs(one.mean - two.mean) < max(one.sd or 0.0, two.sd or 0.0)
    return f"{text}, less than a standard deviation away" if is_close else text


def _least_tuning(scored: Sequence[RuleSummary]) -> list[str]:
    """Nothing where no single rule comes first, or where it does by its best setting alone."""
    most = max(rule.near_best / rule.ended for rule in scored)
    easiest = [rule for rule in scored if rule.near_best / rule.ended == most]
    if len(easiest) > 1 or easiest[0].near_best < 2:
        return []
    settings = f"{easiest[0].near_best} of {easiest[0].ended} settings"
    return [f"{easiest[0].rule} needed the least tuning, with {settings} near the best"]


def _article(noun: str) -> str:
    return "an" if noun[:1].lower() in "aeiou" else "a"
