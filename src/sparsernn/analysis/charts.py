"""Figures that only the HTML report shows: quality against size and speed, and the course of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .extras import is_number
from .style import ACCENT, INK, MUTED, PALETTE, SERIES, dress, legend, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Metric -> (what it is called, whether more is better).
QUALITY = {
    "test_perplexity": ("test perplexity", False),
    "test_bpc": ("test bits per character", False),
    "test_accuracy": ("test accuracy", True),
    "f1": ("F1", True),
    "valid_perplexity": ("valid perplexity", False),
    "valid_bpc": ("valid bits per character", False),
    "valid_accuracy": ("valid accuracy", True),
}
SIZES = {"weights": "weights", "parameters": "parameters", "nonzero": "weights that are not zero"}
TIMES: dict[str, str] = dict.fromkeys(("ms", "ms_batch", "ms_fast", "ms_compact"), "milliseconds a batch")
STEPS = {"ms_step": "milliseconds a streaming step"}


def quality_figures(rows: Sequence[Mapping[str, Any]]) -> list[tuple[Figure, str]]:
    """Scatter plots of quality over size and over time, with descriptions; rows carry "number", "measured", "paper".

    A plot appears if at least two rows measured both of its quantities. Points are numbered as the rows of the table.
    """
    quality = next((m for m in QUALITY if any(m in row["measured"] for row in rows)), None)
    if quality is None:
        return []
    figures = []
    for axis in (SIZES, TIMES, STEPS):
        found = next((m for m in axis if len(_points(rows, "measured", m, quality)) >= 2), None)
        if found:
            name, more = QUALITY[quality]
            caption = f"{name[:1].upper()}{name[1:]} over {axis[found]}; {better(more)}."
            figures.append((_scatter(rows, found, axis[found], quality), caption))
    return figures


def _scatter(rows: Sequence[Mapping[str, Any]], x: str, x_label: str, y: str) -> Figure:
    name, more = QUALITY[y]
    figure = new_figure(4.1, 3.1)
    axes = figure.subplots()
    styles = {"measured": ("o", ACCENT, "measured"), "paper": ("D", PALETTE["second"], "in the paper")}
    for source, (marker, colour, label) in styles.items():
        points = _points(rows, source, x, y)
        if not points:
            continue
        fill = "none" if source == "paper" else colour
        at, values = [p[1] for p in points], [p[2] for p in points]
        axes.scatter(at, values, s=34, marker=marker, edgecolors=colour, facecolors=fill, label=label, zorder=3)
        for (at, value), numbers in _places(points).items():
            axes.annotate(numbers, (at, value), (5, 4), textcoords="offset points", fontsize=8.5, color=INK, zorder=4)
    logarithmic(axes)
    axes.margins(0.12)
    dress(axes, x=x_label, y=f"{name} ({better(more)})")
    if len(axes.collections) > 1:
        legend(axes, loc="upper left", bbox_to_anchor=(0, -0.2), ncols=2, borderaxespad=0)
    return figure


def logarithmic(axes: Axes) -> None:
    """A logarithmic x-axis of counts or milliseconds, labelled as people read them."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    from . import words

    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: words.count(v)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    low, high = axes.get_xlim()
    if high / low < 30:
        # Less than a decade and a half: powers of ten alone would leave the axis almost bare.
        axes.xaxis.set_minor_formatter(FuncFormatter(lambda v, _: words.count(v) if f"{v:e}"[0] in "25" else ""))
    axes.tick_params(axis="x", which="minor", labelsize=8.5, colors=MUTED)


def _points(rows: Sequence[Mapping[str, Any]], source: str, x: str, y: str) -> list[tuple[int, float, float]]:
    """(number, x, y) of the rows that have both; x stands on a logarithmic axis, so it has to be above zero."""
    numbers = [(row["number"], row[source].get(x), row[source].get(y)) for row in rows]
    return [(n, a, b) for n, a, b in numbers if is_number(a) and is_number(b) and a > 0]


def _places(points: Sequence[tuple[int, float, float]]) -> dict[tuple[float, float], str]:
    """The numbers at each place: rows that measure the same stand together, as in "3, 4"."""
    places: dict[tuple[float, float], list[int]] = {}
    for number, x, y in points:
        places.setdefault((x, y), []).append(number)
    return {place: ", ".join(map(str, numbers)) for place, numbers in places.items()}


def better(more: bool) -> str:
    return "more is better" if more else "less is better"


_MOST_POINTS = 500  # of one line
# What stands together in one panel, and its axis label.
_PANELS = (
    (("kept", "density", "target"), "share kept"),
    (("loss", "valid", "valid_loss", "train_loss"), "loss"),
    (("strength",), "strength"),
    (("rate", "lr"), "learning rate"),
)


def history_figure(history: Mapping[str, Sequence[float]]) -> Figure:
    """The course of training: one panel a quantity, all over the same axis of steps.

    Series whose names are not known get a panel each; missing values (None, NaN) are passed over.
    """
    steps = history.get("step", range(len(next(iter(history.values())))))
    known = {name for names, _ in _PANELS for name in names}
    panels = [([name for name in names if name in history], label) for names, label in _PANELS]
    panels += [([name], name.replace("_", " ")) for name in history if name not in known and name != "step"]
    panels = [panel for panel in panels if panel[0]]
    figure = new_figure(7.2, 0.5 + 1.35 * len(panels))
    rows = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
    for axes, (names, label) in zip(rows, panels):
        _course(axes, steps, {name: history[name] for name in names}, label)
    rows[-1].set_xlabel("step", fontsize=9, color=MUTED)
    figure.align_ylabels(list(rows))
    return figure


def _course(axes: Axes, steps: Sequence[float], series: Mapping[str, Sequence[float]], label: str) -> None:
    for colour, (name, values) in zip(SERIES, series.items()):
        at, numbers = _thinned(steps, values)
        line = "--" if name == "target" else "-"
        axes.plot(at, numbers, color=colour, linewidth=1.5, label=name.replace("_", " "), linestyle=line)
    dress(axes, y=label)
    if label == "share kept":
        axes.set_ylim(0, 1.05)
    if len(series) > 1:
        legend(axes, loc="upper right", ncols=len(series))


def _thinned(steps: Sequence[float], values: Sequence[float]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """At most `_MOST_POINTS` points: each the mean of as many neighbours; a neighbourhood without values is a gap."""
    at, numbers = np.asarray(steps, float), np.array([np.nan if v is None else v for v in values], float)
    given = np.isfinite(numbers)
    if given.sum() <= _MOST_POINTS:
        return at[given], numbers[given]
    starts = np.linspace(0, len(numbers), _MOST_POINTS, endpoint=False).astype(int)
    held = np.add.reduceat(given.astype(float), starts)
    total = np.add.reduceat(np.where(given, numbers, 0.0), starts)
    width = np.diff(np.append(starts, len(numbers)))
    return np.add.reduceat(at, starts) / width, np.where(held > 0, total / np.maximum(held, 1), np.nan)
