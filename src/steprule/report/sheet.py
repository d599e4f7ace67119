"""A page of figures that needs no network, and its figures as files: what every report of ours is written with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from textwrap import wrap
from typing import Any

try:
    import jinja2
    import vl_convert
    from markupsafe import Markup
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError("the report's page needs vl-convert and Jinja: pip install 'steprule[lab]'") from missing

from ..folders import cache_folder, keep, kept, replace
from . import theme, words
from .drawing import Figure, alt, specification

__all__ = ["VEGA_LITE", "vl_convert", "write_sheet"]

HERE = Path(__file__).parent
VEGA_LITE = ".".join(alt.SCHEMA_VERSION.split(".")[:2])
"""The version that Altair writes, as vl-convert names it: `v6.4`."""


def write_sheet(
    folder: Path | str, template: str, drawn: Sequence[Figure], names: Iterable[str], content: Mapping[str, Any]
) -> Path:
    """Write `folder/index.html` and each figure as `folder/figures/NAME.png` and `.svg`; return the page's path.

    `template` is one of this folder, which extends `sheet.html.jinja` and is given `content`; `names` are those that the
    legends isolate, in the order of their colours. The page holds its scripts, data and style, and makes no request;
    only its links to the figures' files and the pictures for readers without JavaScript need the folder beside it. A file
    is replaced when it is complete.

    Raises `OSError` where the folder cannot be written.
    """
    page, folder = _page(template, drawn, names, content), Path(folder)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for figure in drawn:
        svg = vl_convert.vegalite_to_svg(_for_file(figure), vl_version=VEGA_LITE, config=theme.config(theme.LIGHT))
        replace(folder / "figures" / f"{figure.name}.svg", svg.encode())
        replace(folder / "figures" / f"{figure.name}.png", vl_convert.svg_to_png(svg, scale=2))
    replace(folder / "index.html", page.encode())
    return folder / "index.html"


def _page(template: str, drawn: Sequence[Figure], names: Iterable[str], content: Mapping[str, Any]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["capital"] = words.capital
    charts = {
        "config": theme.config(theme.css_names(), theme.FONT) | {"legend": {"disable": True}},
        "specifications": {figure.name: _for_page(figure) for figure in drawn},
    }
    return environment.get_template(template).render(
        **content,
        looks=theme.looks(names, ()),
        plural=words.plural,
        charts=charts,
        font=Markup(theme.FONT),
        light=theme.LIGHT,
        dark=theme.DARK,
        style=_ours("page.css"),
        script=_ours("page.js"),
        bundle=_bundle(),
    )


def _for_page(figure: Figure) -> dict[str, Any]:
    """As wide as its box, without title and legend, which the page prints itself."""
    usermeta = {"isolates": bool(figure.rules)}
    # Vega-Lite has no width of a container for several charts side by side.
    width = {"width": "container"} if isinstance(figure.chart, alt.LayerChart) else {}
    found = specification(figure.chart.properties(**width, description=figure.description, usermeta=usermeta))
    for parameter in found.get("params", []):
        parameter.pop("bind", None)
    for layer in found.get("layer", []):
        for channel in layer["encoding"].values():
            if "legend" in channel:
                channel["legend"] = None
    return found


def _for_file(figure: Figure) -> dict[str, Any]:
    title = alt.TitleParams(figure.title, subtitle=wrap(figure.caption, 88))
    look: dict[str, Any] = {"background": theme.LIGHT["paper"], "padding": 16}
    return specification(figure.chart.properties(title=title, description=figure.description, **look))


@cache
def _bundle() -> Markup:
    """Vega, Vega-Lite and Vega-Embed as one script, made safe to stand inside a script element."""
    # To make it takes longer than all else of a page.
    path = cache_folder() / "page" / f"vega-{version('vl-convert-python')}-{VEGA_LITE}.js"
    script = kept(path)
    if script is None:
        made = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE)
        script = made.encode()
        with suppress(OSError):  # the next page takes as long, and that is all
            keep(path, script)
    return Markup(script.decode().replace("</script", "<\\/script"))


def _ours(name: str) -> Markup:
    return Markup((HERE / name).read_text(encoding="utf-8"))
