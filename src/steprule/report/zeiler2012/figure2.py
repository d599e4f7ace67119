"""The paper's Fig. 2 as a chart, and what its claims come to, for a page and for the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

try:
    import altair as alt
    from rich import box
    from rich.table import Table
    from rich.text import Text
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(f"the report needs {missing.name}: pip install 'steprule[lab]'") from missing

from ...lab.summary import Spread
from ...lab.zeiler2012.figure2 import LAYERS, Figure2
from ...lab.zeiler2012.figure2_claims import Claim, claims
from .. import words
from ..rates import Layer, figure, write

__all__ = ["Section", "chart", "section", "terminal_table", "write_figures"]

_TITLES = dict(
    zip(LAYERS, ("lowest weights, 784 x 500", "middle weights, 500 x 300", "top weights, 300 x 10"), strict=True)
)


@dataclass(frozen=True)
class Section:
    """What a page says of the figure: its title and caption, the chart's address beside the page, the claims."""

    title: str
    caption: str
    image: str
    claims: tuple[Claim, ...]


def chart(found: Figure2, number: int = 0) -> alt.VConcatChart:
    """Return the figure of one seed, by its place: step sizes left, updates right, a row for each weight matrix."""
    course = found.courses[number]
    layers = [Layer(_TITLES[name], course.batches, course.sizes[name], course.updates[name]) for name in LAYERS]
    return figure(layers, "batch", "step size")


def write_figures(found: Figure2, folder: Path) -> None:
    """Write `figure2.svg` and `figure2.png` of the first seed into the folder. Raises `OSError` where that cannot be."""
    drawn = chart(found)
    for ending in ("svg", "png"):
        write(drawn, folder / f"figure2.{ending}")


def section(found: Figure2, folder: str = "fig2") -> Section:
    """Return what a page says, beside which `write_figures` has written into `folder`."""
    settings = found.settings
    errors = Spread.of([course.test_error for course in found.courses])
    spread = "" if errors.sd is None else f" ± {errors.sd:.2f}"
    missing = " ".join(
        f"{100 * sum(course.without_gradient[name] for course in found.courses) / len(found.courses):.0f} %"
        for name in LAYERS
    )
    return Section(
        "Fig. 2: step sizes and updates",
        f"Tanh units, ADADELTA with rho {settings.rho:g} and eps {settings.eps:g}, "
        f"{words.plural(settings.epochs, 'epoch')}, every {settings.every} batches, "
        f"{settings.sample} random dimensions of each weight matrix, trained in float64. "
        f"The chart shows seed {found.courses[0].seed} of {words.plural(len(found.courses), 'seed')}. A step size is "
        f"-update / gradient; where the gradient is 0 ({missing} of the points, the lowest layer first) its limit for a "
        f"vanishing gradient. Test error at the end: {errors.mean:.2f}{spread} %.",
        f"{folder}/figure2.svg",
        claims(found),
    )


def terminal_table(found: Figure2) -> Table:
    """Return the claims, what was measured, and the verdicts."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, title_justify="left", title_style="bold")
    table.title = "Fig. 2: what the paper says of it"
    for name in ("claim", "measured", "verdict"):
        table.add_column(name, overflow="fold")
    for claim in claims(found):
        table.add_row(Text(f"{claim.text} ({claim.criterion})"), Text(claim.says), Text(claim.verdict))
    return table
