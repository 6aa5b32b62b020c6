"""Figures of a pruning study: accuracy over the share pruned, and what is left of each gate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import log
from typing import TYPE_CHECKING, Any

from .style import PALETTE, SERIES, dress, legend, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = tuple[Sequence[float], Sequence[float], Sequence[float]]  # percentages, means, standard deviations


def by_share_left(percent: float) -> float:
    """Where a percentage stands by the logarithm of the share that is left: the last ones have most room."""
    return -log(max(1e-3, 1 - percent / 100))


def evenly(percent: float) -> float:
    """Where a percentage stands when all have as much room."""
    return percent


def accuracy_figure(
    panels: Mapping[str, Mapping[str, Curve]],
    dense: Mapping[str, float],
    *,
    y: str,
    place: Callable[[float], float] = by_share_left,
) -> Figure:
    """Accuracy over the percentage pruned: one panel a net, one line a curve with its standard deviation as a band.

    Curves come in pairs, dashed and solid. `dense`: panel -> accuracy of the dense net, a dotted line. Panels share
    their axes; `place` says where a percentage stands.
    """
    figure = new_figure(2.6 * max(1, len(panels)) + 0.4, 3.0)
    row = figure.subplots(1, max(1, len(panels)), squeeze=False, sharex=True, sharey=True)[0]
    for axes, (title, curves) in zip(row, panels.items()):
        for number, (name, (percent, mean, spread)) in enumerate(curves.items()):
            colour, line = SERIES[number // 2 % len(SERIES)], "--" if number % 2 == 0 else "-"
            at = [place(p) for p in percent]
            axes.plot(at, mean, line, color=colour, linewidth=1.5, marker="o", markersize=3, label=name)
            low = [m - s for m, s in zip(mean, spread)]
            high = [min(1.0, m + s) for m, s in zip(mean, spread)]
            axes.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)
        if title in dense:
            axes.axhline(dense[title], color=PALETTE["muted"], linewidth=1, linestyle=":", label="dense")
        ticks = sorted({p for percent, _, _ in curves.values() for p in percent})
        axes.set_xticks([place(p) for p in ticks], [f"{p:g}" for p in ticks])
        dress(axes, title=title, x="weights pruned, %", y=y if axes is row[0] else "")
    shown = {name: handle for axes in row for handle, name in zip(*axes.get_legend_handles_labels())}
    if shown:
        figure.legend(
            list(shown.values()),
            list(shown),
            loc="outside lower center",
            ncols=min(4, len(shown)),
            fontsize=8.5,
            frameon=False,
            labelcolor=PALETTE["ink"],
        )
    return figure


def remaining_figure(panels: Mapping[str, Mapping[str, tuple[int, int]]]) -> Figure:
    """Remaining and pruned weights of each block: one panel a net, block -> (remaining, pruned), one bar a block."""
    most = max((len(blocks) for blocks in panels.values()), default=1)
    figure = new_figure(7.6, 0.9 + 0.27 * most)
    row = figure.subplots(1, max(1, len(panels)), squeeze=False)[0]
    for axes, (title, blocks) in zip(row, panels.items()):
        names = list(blocks)
        left = [blocks[name][0] for name in names]
        gone = [blocks[name][1] for name in names]
        axes.barh(names, left, color=PALETTE["accent"], label="remaining")
        axes.barh(names, gone, left=left, color=PALETTE["pale"], label="pruned")
        for place, name in enumerate(names):
            total = sum(blocks[name])
            axes.annotate(
                f"{100 * blocks[name][0] / total:.1f}%",
                (total, place),
                (3, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=PALETTE["ink"],
            )
        axes.invert_yaxis()
        axes.margins(x=0.25)
        dress(axes, title=title, x="weights", grid="x")
    if panels:
        legend(row[0], loc="lower right")
    return figure


def distribution_figure(
    panels: Mapping[str, Mapping[str, Sequence[float]]], edges: Sequence[float], *, columns: int
) -> Figure:
    """How many weights have which value: one panel a title, one line a net, logarithmic counts, `columns` in a row.

    Each line holds a count for every bin between `edges`.
    """
    rows = -(-max(1, len(panels)) // columns)
    figure = new_figure(2.5 * columns + 0.4, 1.9 * rows + 0.5)
    places = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    shown: dict[str, Any] = {}
    for number, (title, nets) in enumerate(panels.items()):
        axes = places[number // columns][number % columns]
        for n, (net, counts) in enumerate(nets.items()):
            shown[net] = axes.stairs(counts, edges, color=SERIES[n % len(SERIES)], linewidth=1.3, label=net)
        axes.set_yscale("log")
        bottom = number // columns == rows - 1
        dress(axes, title=title, x="weight" if bottom else "", y="" if number % columns else "weights")
    for axes in places.flat[len(panels) :]:
        axes.set_axis_off()
    if shown:
        below = {"loc": "outside lower center", "ncols": len(shown), "fontsize": 8.5, "frameon": False}
        figure.legend(list(shown.values()), list(shown), labelcolor=PALETTE["ink"], **below)
    return figure
