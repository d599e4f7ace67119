"""The sentences and cells of the reproduction, the same in the terminal and on the page."""

from __future__ import annotations

from ...lab.d2l.results import Reproduction
from ...lab.d2l.summary import Line, Ranking, Summary
from .. import words

__all__ = ["WAYS", "agreement", "book_loss", "epochs_and_error", "loss", "name", "rankings", "seconds", "verdict"]

WAYS = {"scratch": "from scratch", "steprule": "our class", "library": "its own class"}

CLOCK = (
    "Seconds per epoch, in the book and here, count loading the batches, the forward pass, the gradient and the step; the "
    "evaluation of the loss every 200 examples does not count. Here it is the median over the seeds, in one thread, and "
    "loading is that of a pass over the batches in which nothing else is done."
)
LOSSES = (
    "Loss: half the squared error over the 1,500 training rows after the last example; mean, sample standard deviation and "
    "range over the seeds. The book's figure is of one run."
)


def name(line: Line) -> str:
    """`torch, from scratch`."""
    return f"{line.plan.engine}, {WAYS[line.plan.way]}"


def loss(line: Line) -> tuple[str, str]:
    """The mean with its deviation, and the range."""
    spread = line.loss
    mean = f"{spread.mean:.4f}"
    if spread.sd is None:
        return f"{mean} (1 seed)", words.NOTHING
    return f"{mean} ±{words.NO_BREAK_SPACE}{spread.sd:.4f}", f"{spread.low:.4f} to {spread.high:.4f}"


def book_loss(line: Line) -> str:
    """The book's loss, to the digits that it prints."""
    return words.NOTHING if line.plan.loss is None else f"{line.plan.loss:.3f}"


def seconds(value: float | None) -> str:
    """Three decimals, as the book prints them."""
    return words.NOTHING if value is None else f"{value:.3f}"


def epochs_and_error(line: Line) -> str:
    """`2 epochs, half the squared error, rho=0.9, eps=1e-5`."""
    plan = line.plan
    error = "half the squared error" if plan.squared_error == "half" else "the squared error"
    return f"{words.plural(plan.epochs, 'epoch')}, {error}, {words.hyperparameters(plan.hyperparameters)}"


def rankings(summary: Summary) -> list[str]:
    """One sentence for each way that the book timed."""
    return [_ranking(ranking) for ranking in summary.rankings]


def _ranking(ranking: Ranking) -> str:
    way = {"scratch": "From scratch", "library": "By the libraries' classes"}[ranking.way]
    here = " before ".join(ranking.here)
    if ranking.here == ranking.book:
        return f"{way} the order by speed is the book's: {here}."
    return f"{way} the order by speed is {here}; the book's is {' before '.join(ranking.book)}."


def agreement(summary: Summary) -> str:
    """How far the engines are apart, or nothing where no two ran the same."""
    if summary.apart is None:
        return ""
    return (
        "With the same settings, seed and order of the rows, no two engines end further apart than "
        f"{words.significant(summary.apart)}."
    )


def verdict(reproduction: Reproduction, summary: Summary) -> str:
    """The reproduction in one sentence, computed from its numbers."""
    told = [line for line in summary.lines if line.holds_the_book is not None]
    if not told:
        return "No run is one whose loss the book reports."
    inside = [line for line in told if line.holds_the_book]
    outside = [name(line) for line in told if not line.holds_the_book]
    seeds = words.plural(reproduction.seeds, "seed")
    text = f"{len(inside)} of the book's {len(told)} final losses are in the range of our {seeds}"
    return text + (f"; outside: {'; '.join(outside)}." if outside else ".")
