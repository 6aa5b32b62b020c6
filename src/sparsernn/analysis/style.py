"""The look of all figures: one palette, no global state of matplotlib, and figures as inline SVG."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

from ..extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The report's style sheet redefines each colour by its name for dark surroundings.
PALETTE = {
    "ink": "#1d2733",
    "muted": "#5a6675",
    "line": "#d5dae1",
    "accent": "#24579c",
    "second": "#b0501f",
    "third": "#2c7a6b",
    "fourth": "#7a4fa3",
    "pale": "#b9c2cd",
}
INK, MUTED, LINE, ACCENT, PALE = (PALETTE[name] for name in ("ink", "muted", "line", "accent", "pale"))
SERIES = tuple(PALETTE[name] for name in ("accent", "second", "third", "fourth", "muted"))
KIND_COLOURS = {
    "full": PALETTE["accent"],
    "partial": PALETTE["fourth"],
    "leaky": PALETTE["third"],
    "vanilla": PALETTE["second"],
    "constant": PALETTE["muted"],
    "dead": PALETTE["pale"],
}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of `width` x `height` inches that belongs to nobody's pyplot."""
    require("matplotlib", "plots")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    figure.patch.set_alpha(0)
    return figure


def plain(text: str) -> str:
    """`text` shown as it stands: dollar signs are no formulas."""
    return text.replace("$", r"\$")


def dress(axes: Axes, *, title: str = "", x: str = "", y: str = "", grid: str = "y") -> None:
    """Quiet axes: title at the left, two spines, a pale grid, small labels."""
    if title:
        axes.set_title(plain(title), loc="left", fontsize=9.5, color=INK, fontweight="bold")
    axes.set_xlabel(plain(x), fontsize=9, color=MUTED)
    axes.set_ylabel(plain(y), fontsize=9, color=MUTED)
    axes.tick_params(labelsize=8.5, colors=MUTED, length=3, width=0.8)
    axes.patch.set_alpha(0)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(PALE)
    if grid:
        axes.grid(axis=grid, color=LINE, linewidth=0.7)  # type: ignore[arg-type]
        axes.set_axisbelow(True)


def legend(axes: Axes, **where: Any) -> None:
    axes.legend(fontsize=8.5, frameon=False, labelcolor=INK, handlelength=1.4, **where)


def inline_svg(figure: Figure, description: str, name: str) -> str:
    """`figure` as an SVG element for a page: text stays text, colours follow the page, ids begin with `name`."""
    from html import escape

    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    out = io.StringIO()
    settings: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": name, "image.composite_image": False}
    with mpl.rc_context(settings):
        canvas = FigureCanvasSVG(figure)
        figure.set_dpi(72)  # of every SVG
        if (layout := figure.get_layout_engine()) is not None:  # here, since savefig would draw all twice for it
            layout.execute(figure)
            figure.set_layout_engine("none")
        canvas.print_svg(out, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.S)
    view = re.search(r'viewBox="([^"]*)"', svg)
    assert view is not None, "matplotlib writes a viewBox"
    width = float(view[1].split()[2])
    head = (
        f'<svg viewBox="{view[1]}" role="img" aria-label="{escape(description, quote=True)}" '
        f'style="width:{width / 72 * 96:.0f}px">'
    )
    svg = head + svg[svg.index(">") + 1 :]
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{re.escape(name)}-", svg)
    # Fonts are the page's; matplotlib names its own in every text.
    svg = re.sub(r"font: ([^;\"']*?)([\d.]+px) [^;\"]*", r"font-size: \2; font-weight: \1", svg)
    for colour, value in PALETTE.items():
        svg = svg.replace(value, f"var(--{colour})")
    return re.sub(r"\n\s*", "\n", svg)
