"""Figures of a pruning study: accuracy over the share pruned, and what is left of each gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .style import PALETTE, SERIES, dress, legend, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = tuple[Sequence[float], Sequence[float], Sequence[float]]  # percentages, means, standard deviations


def accuracy_figure(panels: Mapping[str, Mapping[str, Curve]], dense: Mapping[str, float], *, y: str) -> Figure:
    """Accuracy over the percentage pruned: one panel a net, one line a curve with its standard deviation as a band.

    `dense`: panel -> accuracy of the dense net, a dotted line. Panels share their axes.
    """
    figure = new_figure(2.6 * max(1, len(panels)) + 0.4, 3.0)
    row = figure.subplots(1, max(1, len(panels)), squeeze=False, sharex=True, sharey=True)[0]
    for axes, (title, curves) in zip(row, panels.items()):
        for number, (name, (percent, mean, spread)) in enumerate(curves.items()):
            colour, line = SERIES[number // 2 % len(SERIES)], "--" if number % 2 == 0 else "-"
            # Equal steps between the percentages: the last ones matter most and lie closest together.
            at = [_place(p) for p in percent]
            axes.plot(at, mean, line, color=colour, linewidth=1.5, marker="o", markersize=3, label=name)
            low = [m - s for m, s in zip(mean, spread)]
            axes.fill_between(at, low, [m + s for m, s in zip(mean, spread)], color=colour, alpha=0.15, linewidth=0)
        if title in dense:
            axes.axhline(dense[title], color=PALETTE["muted"], linewidth=1, linestyle=":", label="dense")
        shown = sorted({p for percent, _, _ in curves.values() for p in percent})
        axes.set_xticks([_place(p) for p in shown], [f"{p:g}" for p in shown])
        dress(axes, title=title, x="weights pruned, %", y=y if axes is row[0] else "")
    handles, labels = row[-1].get_legend_handles_labels() if panels else ([], [])
    if handles:
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=min(4, len(handles)),
            fontsize=8.5,
            frameon=False,
            labelcolor=PALETTE["ink"],
        )
    return figure


def _place(percent: float) -> float:
    """Where a percentage stands: by the logarithm of the share that is left."""
    from math import log

    return -log(max(1e-3, 1 - percent / 100))


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
