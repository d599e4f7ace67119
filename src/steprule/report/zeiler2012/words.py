"""The sentences of the reproduction, the same in the terminal and on the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ...lab.zeiler2012 import Reproduced, Result, parts
from ...lab.zeiler2012.agreement import Agreement, agreement
from ...lab.zeiler2012.judging import Judged
from .. import words

__all__ = ["agreements", "evidence", "not_here", "verdict"]


def agreements(reproduced: Reproduced) -> list[str]:
    """How near a table comes to the paper's, with the aims that it has; nothing where no cell can be compared."""
    found, aims = agreement(reproduced), reproduced.part.printed.aims
    told = []
    if found.difference is not None:
        aim = _aim(aims.difference, found.difference, "at most {:.2f}")
        told.append(f"On average {found.difference:.4f} points from the paper's number{aim}.")
    if found.ratio is not None:
        aim = (
            ""
            if aims.ratio is None
            else _reached(abs(found.ratio - 1) <= aims.ratio, f"within {100 * aims.ratio:.0f} %")
        )
        told.append(f"The median cell is {found.ratio:.2f} times the paper's{aim}.")
    if found.rank is not None:
        aim = "" if aims.rank is None else _reached(found.rank >= aims.rank, f"at least {aims.rank:.2f}")
        told.append(f"Rank correlation with the paper's cells (Spearman): {found.rank:.3f}{aim}.")
        if found.strict_rank is not None and found.strict_rank != found.rank:
            told.append(
                f"It is {found.strict_rank:.3f} where a setting counts as the worst as soon as one of its seeds diverged."
            )
    return told + _plausible(found)


def _aim(aim: float | None, value: float, text: str) -> str:
    return "" if aim is None else _reached(value <= aim, text.format(aim))


def _reached(is_reached: bool, aim: str) -> str:
    return f" (aim: {aim}; {'reached' if is_reached else 'not reached'})"


def _plausible(found: Agreement) -> list[str]:
    if not found.judged:
        return []
    where = f"{found.plausible} of {words.plural(found.judged, 'cell')}"
    return [f"The paper's number, which is of one run, is where 95 % of further runs of ours would lie in {where}."]


def evidence(judged: Judged) -> str:
    """The figures that decide a claim."""
    return "; ".join(each.says for each in judged.evidence) or words.NOTHING


def verdict(judged: Sequence[Judged]) -> str:
    """How many of the claims hold, as a sentence; nothing where none was decided."""
    decided = Counter(each.verdict for each in judged if each.verdict not in ("not run", "one seed"))
    if not decided:
        return ""
    told = ", ".join(f"{verdict}: {count}" for verdict, count in decided.most_common())
    return f"Of {words.plural(decided.total(), 'claim')} of the paper, {told}."


def not_here(results: Sequence[Result]) -> str:
    """Which parts are missing, or parts of them; nothing where all is there."""
    there = {result.part.name: result.missing for result in results}
    absent = [name for name in parts() if name not in there]
    told = [f"Not here: {', '.join(absent)}."] if absent else []
    told += [f"{name}: {missing}." for name, missing in there.items() if missing]
    return " ".join(told)
