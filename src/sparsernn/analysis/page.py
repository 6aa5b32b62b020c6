"""The one-file HTML report: fills the template with the sections that have data; all text is escaped there."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._version import __version__
from ..extras import require
from ..files import write_atomically
from . import sections, trials, words
from .extras import Extras
from .style import inline_svg
from .terminal import change

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .snapshot import Snapshot


def write_page(path: Path, found: Snapshot, verdict: str | None, extras: Extras) -> Path:
    """Write the report to `path` atomically and return it; see `Report.html`."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"html: the folder {path.parent} does not exist; make it first.")
    write_atomically(path, page(found, verdict, extras))
    return path


def page(found: Snapshot, verdict: str | None, extras: Extras) -> str:
    """The whole page as a string."""
    jinja2 = require("jinja2", "the HTML report")
    require("matplotlib", "the HTML report")
    template = files("sparsernn.analysis").joinpath("report.html.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    draw = _Drawings(jinja2)
    shown = [
        sections.quality(extras, draw),
        trials.section(extras, draw),
        sections.further(extras, draw),
        sections.layers(found, extras),
        sections.weights(found, draw),
        sections.kinds(found, extras, draw),
        sections.training(extras, draw),
        sections.reasons(found),
        sections.times(extras),
        sections.checks(extras),
    ]
    return environment.from_string(template).render(
        title=extras.title or f"{found.model}: what can go",
        verdict=extras.verdict or verdict,
        command=extras.command,
        tiles=_tiles(found),
        sections=[section for section in shown if section],
        version=__version__,
    )


class _Drawings:
    """Turns figures into inline SVG, each with ids of its own."""

    def __init__(self, jinja2: Any) -> None:
        self._markup: Callable[[str], Any] = jinja2.utils.markupsafe.Markup
        self._count = 0

    def __call__(self, figure: Figure, description: str, *, wide: bool = False) -> dict[str, Any]:
        self._count += 1
        svg = inline_svg(figure, description, f"fig{self._count}")
        # matplotlib escapes the text of a figure, inline_svg its description.
        return {"svg": self._markup(svg), "wide": wide, "caption": description}


def _tiles(found: Snapshot) -> list[dict[str, str]]:
    now, after, units = found.now, found.compact, found.units
    size, left = sum(u.size for u in units), sum(u.left for u in units)
    saved = now.mult_adds / after.mult_adds if after.mult_adds else 1.0
    return [
        {
            "label": "Units",
            "value": change(size, left),
            "note": f"{words.percent(1 - left / size)} can go" if size else "",
        },
        {
            "label": "Parameters",
            "value": change(now.parameters, after.parameters, words.count),
            "note": f"{words.size(now.bytes)} → {words.size(after.bytes)}",
        },
        {
            "label": "Multiply-adds a time step",
            "value": change(now.mult_adds, after.mult_adds, words.count),
            "note": f"{words.times(saved)} fewer" if saved > 1 else "one sequence, every layer once",
        },
        {
            "label": "Weights that are not zero",
            "value": words.percent(now.density),
            "note": f"{words.count(now.nonzero)} of {words.count(now.weights)}",
        },
    ]
