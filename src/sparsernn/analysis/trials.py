"""The trials of a sweep: which of them nothing beats at its size, a plot of all settings, and quality against size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import log10
from typing import TYPE_CHECKING, Any

from . import words
from .charts import QUALITY, SIZES, better, logarithmic
from .columns import Column, label, numbers, show, table
from .extras import Extras, is_number
from .style import ACCENT, INK, MUTED, PALE, PALETTE, dress, legend, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Trials = Sequence[Mapping[str, Any]]
NAMED = 12  # so many values of a setting get a label each


def front(trials: Trials, more: bool) -> list[int]:
    """Numbers of the trials that no other beats in quality without being larger (the Pareto front), by size."""
    sign = -1 if more else 1
    found = [t for t in trials if is_number(t.get("quality")) and is_number(t.get("size"))]
    best = float("inf")
    kept = []
    for trial in sorted(found, key=lambda t: (t["size"], sign * t["quality"], t["number"])):
        if sign * trial["quality"] < best:
            best = sign * trial["quality"]
            kept.append(trial["number"])
    return kept


def best(trials: Trials, more: bool) -> int | None:
    """Number of the trial of the best quality, the smallest of equals; None if no trial has one."""
    sign = -1 if more else 1
    found = [t for t in trials if is_number(t.get("quality"))]
    least = min(found, key=lambda t: (sign * t["quality"], t.get("size") or 0, t["number"]), default=None)
    return None if least is None else least["number"]


def pareto_figure(sweep: Mapping[str, Any]) -> Figure:
    """Quality over size, a point for each trial that has both; the front filled and joined, with the trials' numbers.

    `sweep` as `Report.html` takes it.
    """
    trials = [t for t in sweep["trials"] if is_number(t.get("quality")) and is_number(t.get("size")) and t["size"] > 0]
    ahead = set(front(trials, sweep["more"]))
    figure = new_figure(5.2, 3.6)
    axes = figure.subplots()
    behind = [t for t in trials if t["number"] not in ahead]
    axes.scatter(*_places(behind), s=26, facecolors="none", edgecolors=MUTED, label="beaten", zorder=2)
    leading = sorted((t for t in trials if t["number"] in ahead), key=lambda t: t["size"])
    axes.plot(*_places(leading), color=ACCENT, linewidth=1.2, drawstyle="steps-post", zorder=2)
    axes.scatter(*_places(leading), s=40, color=ACCENT, label="nothing as small is better", zorder=3)
    for trial in leading:
        place = trial["size"], trial["quality"]
        axes.annotate(str(trial["number"]), place, (5, 5), textcoords="offset points", fontsize=8.5, color=INK)
    logarithmic(axes)
    axes.margins(0.12)
    dress(axes, x=SIZES.get(sweep["size"], _name(sweep["size"])), y=_quality(sweep))
    legend(axes, loc="upper left", bbox_to_anchor=(0, -0.18), ncols=2, borderaxespad=0)
    return figure


def _places(trials: Trials) -> tuple[list[float], list[float]]:
    return [t["size"] for t in trials], [t["quality"] for t in trials]


def parallel_figure(sweep: Mapping[str, Any]) -> Figure:
    """Parallel coordinates: an axis for each setting and one for the quality, a line for each trial.

    The better a trial, the darker its line; the best one stands out. `sweep` as `Report.html` takes it.
    """
    trials = [t for t in sweep["trials"] if is_number(t.get("quality"))]
    names = list(trials[0]["settings"]) if trials else []
    scales = [_scale([t["settings"][name] for t in trials], name in sweep["log"]) for name in names]
    scales.append(_scale([t["quality"] for t in trials], log=False))
    figure = new_figure(max(5.2, 1.7 * len(scales)), 3.6)
    axes = figure.subplots()
    sign = -1 if sweep["more"] else 1
    order = sorted(range(len(trials)), key=lambda n: sign * trials[n]["quality"], reverse=True)
    first = best(trials, sweep["more"])
    for rank, n in enumerate(order):
        heights = [scale.heights[n] for scale in scales]
        if trials[n]["number"] == first:
            axes.plot(heights, color=PALETTE["second"], linewidth=2.4, zorder=4, label=f"best: trial {first}")
        else:
            darkness = 0.12 + 0.7 * (rank / max(1, len(order) - 1)) ** 2
            axes.plot(heights, color=ACCENT, linewidth=1.2, alpha=darkness, zorder=2 + rank / len(order))
    for x, (name, scale) in enumerate(zip([*names, sweep["quality"]], scales)):
        _ruler(axes, x, scale, _name(name))
    axes.set_xlim(-0.35, len(scales) - 0.55)
    axes.set_ylim(-0.05, 1.14)
    axes.set_axis_off()
    if trials:
        legend(axes, loc="upper left", bbox_to_anchor=(0, -0.02), borderaxespad=0)
    return figure


@dataclass(frozen=True)
class _Scale:
    """Where values stand on an axis from 0 to 1, and its ticks."""

    heights: list[float]
    ticks: list[tuple[float, str]]


def _scale(values: Sequence[Any], log: bool) -> _Scale:
    return _numeric(values, log) if all(is_number(value) for value in values) else _texts([str(v) for v in values])


def _texts(values: Sequence[str]) -> _Scale:
    """Texts in their order, evenly."""
    different = sorted(set(values))
    places = {text: n / (len(different) - 1) if len(different) > 1 else 0.5 for n, text in enumerate(different)}
    return _Scale([places[value] for value in values], [(place, text) for text, place in places.items()])


def _numeric(values: Sequence[float], log: bool) -> _Scale:
    """Numbers, evenly or by their logarithm; a tick each, or five if there are many."""
    even = not (log and all(value > 0 for value in values))
    measured = [float(value) if even else log10(value) for value in values]
    low, high = min(measured, default=0.0), max(measured, default=1.0)

    def place(value: float) -> float:
        return (value - low) / (high - low) if high > low else 0.5

    shown = sorted(set(measured))
    if len(shown) > NAMED:
        shown = [low + (high - low) * n / 4 for n in range(5)]
        if even and all(isinstance(value, int) for value in values):
            shown = [float(round(value)) for value in shown]
    ticks = [(place(value), _short(value if even else 10**value)) for value in shown]
    return _Scale([place(value) for value in measured], ticks)


def _short(value: float) -> str:
    return words.figure(value) if abs(value) < 1e4 else words.count(value)


def _ruler(axes: Axes, x: int, scale: _Scale, name: str) -> None:
    axes.plot([x, x], [0, 1], color=PALE, linewidth=1, zorder=1)
    axes.text(x, 1.07, plain(name), ha="center", fontsize=9, color=INK, fontweight="bold")
    last = -1.0
    for height, text in sorted(scale.ticks):
        axes.plot([x - 0.02, x + 0.02], [height, height], color=MUTED, linewidth=0.8, zorder=1)
        if height - last >= 0.05:  # labels that would run into each other are left out
            axes.text(x + 0.05, height, plain(text), va="center", fontsize=8.5, color=MUTED, zorder=5)
            last = height


def section(extras: Extras, draw: Callable[..., dict[str, Any]]) -> dict[str, Any] | None:
    """The report's section on a sweep; None where there is none."""
    sweep = extras.sweep
    if not sweep or not sweep["trials"]:
        return None
    trials: Trials = sweep["trials"]
    ahead = set(front(trials, sweep["more"]))
    names = list(dict.fromkeys(name for trial in trials for name in trial["settings"]))
    columns = [
        *numbers("Trial"),
        *(Column(label(name), all(is_number(t["settings"].get(name)) for t in trials)) for name in names),
        *numbers(label(sweep["quality"]), label(sweep["size"])),
        Column("State"),
    ]
    rows = [
        [
            str(trial["number"]),
            *(show(name, trial["settings"].get(name)) for name in names),
            show(sweep["quality"], trial.get("quality")),
            show(sweep["size"], trial.get("size")),
            {"value": trial.get("state", ""), "note": trial.get("reason", "")},
        ]
        for trial in trials
    ]
    figures = []
    if any(is_number(trial.get("quality")) for trial in trials):
        caption = f"Settings and quality of all trials, {better(sweep['more'])}; the better, the darker."
        figures.append(draw(parallel_figure(sweep), caption, wide=True))
    if ahead:
        caption = f"{_name(sweep['quality']).capitalize()} against size; filled: no trial as small is better."
        figures.append(draw(pareto_figure(sweep), caption, wide=True))
    joined = words.listing([str(number) for number in front(trials, sweep["more"])])
    text = f"No other trial is as good at its size or smaller: {joined}." if ahead else ""
    return {
        "title": "Sweep",
        "text": text,
        "tables": [table(columns, rows, "Trials")],
        "figures": figures,
        "bars": [],
        "details": [],
    }


def _name(metric: str) -> str:
    return QUALITY[metric][0] if metric in QUALITY else metric.replace("_", " ")


def _quality(sweep: Mapping[str, Any]) -> str:
    return f"{_name(sweep['quality'])} ({better(sweep['more'])})"
