"""The comparison as a table for a terminal of 80 columns."""

from __future__ import annotations

from ..lab.results import Comparison
from ..lab.summary import RuleSummary, Summary, summarise
from . import words
from .terminal import Table, Text, empty_table

__all__ = ["terminal_table"]


def terminal_table(comparison: Comparison) -> Table:
    """One row per rule, best first; the best row is marked by an asterisk, not by colour alone.

    Raises:
        ValueError: the comparison contradicts itself, see `steprule.lab.summary.summarise`.
    """
    summary = summarise(comparison)
    unit = f", {summary.metric.unit}" if summary.metric.unit else ""
    table = empty_table(f"{comparison.problem}, {words.plural(comparison.epochs, 'epoch')}")
    table.caption, table.caption_justify = Text("\n".join(["", *_notes(summary)])), "left"
    # No more than leaves room where the other two are long as well: Rich cuts off what is beyond the terminal.
    table.add_column("rule", overflow="fold", min_width=min(max(len(rule.rule) + 2 for rule in summary.rules), 16))
    table.add_column("best setting", overflow="fold", min_width=12)
    table.add_column(Text(f"{summary.metric.name}{unit}"), min_width=11)
    table.add_column("near\nbest", justify="right")
    table.add_column("per\nepoch", justify="right", no_wrap=True)
    table.add_column("diverged", justify="right", no_wrap=True)
    for rule in summary.rules:
        table.add_row(*_row(rule, summary), style="bold" if summary.is_best(rule) else "")
    return table


def _row(rule: RuleSummary, summary: Summary) -> list[Text]:
    best = rule.best
    mark = "* " if summary.is_best(rule) else "  "
    score = words.NOTHING
    if best is not None:
        digits = words.decimals(summary)
        score = f"{words.number(best.score.mean, digits)} {words.deviation(best.score, digits, best.seeds)}"
    cells = (
        mark + rule.rule,
        words.best_setting(rule),
        score,
        f"{rule.near_best} of {rule.ended}" if rule.ended else words.NOTHING,
        words.seconds(rule.seconds),
        f"{rule.diverged} of {rule.trials}" if rule.diverged else "0",
    )
    return [Text(cell) for cell in cells]


def _notes(summary: Summary) -> list[str]:
    notes = []
    if summary.winner is not None:
        notes.append(f"* best; each rule's setting was {words.choice(summary)}.")
        notes.append(f"{words.spread_note(summary)} near best: {words.nearness(summary)}.")
    failed = sum(rule.failed for rule in summary.rules)
    if failed:
        notes.append(f"{words.plural(failed, 'trial')} failed.")
    unmeasured = words.unmeasured(sum(rule.unmeasured for rule in summary.rules))
    if unmeasured:
        notes.append(f"Among the diverged are {unmeasured}.")
    return [*notes, *filter(None, [words.interruption(summary)])]
