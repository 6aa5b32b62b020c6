"""The figures of a report, drawn with matplotlib from plain data; none touches pyplot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .gates import KINDS, kind_counts, sorted_units
from .snapshot import Snapshot
from .style import ACCENT, INK, KIND_COLOURS, LINE, MUTED, PALETTE, dress, legend, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..structure.cells import RecurrentLayer

_MOST_PIXELS = 1400  # along one side of an image; more than a screen shows
_SHADES = 15
_ROOM_FOR_LABELS = 0.7  # inches above a weight matrix: title, gates, marks of dead units


def weights_figure(
    found: Snapshot, *, sort: bool = False, only: str | None = None, most_pixels: int = _MOST_PIXELS
) -> Figure:
    """One panel a layer and direction: rows are inputs, then hidden units; columns the units gate by gate.

    A matrix larger than `most_pixels` along a side is reduced; the shade of a pixel is the share of non-zeros in it.
    """
    layers = [layer for layer in found.recurrent if only in (None, layer.name)]
    heights = [_panel_height(layer) for layer in layers]
    figure = new_figure(7.2, sum(heights) + 0.1)
    panels = figure.subplots(max(1, len(layers)), 1, squeeze=False, height_ratios=heights or None)[:, 0]
    for axes, layer in zip(panels, layers):
        _weights_panel(axes, layer, found, sort, most_pixels)
    if not layers:
        _empty(panels[0], "no recurrent layer of a declared cell")
    return figure


def _panel_height(layer: RecurrentLayer) -> float:
    rows, columns = layer.input_size + (layer.proj_size or layer.hidden_size), len(layer.gates) * layer.hidden_size
    return float(np.clip(6.4 * rows / columns, 1.3, 4.2)) + _ROOM_FOR_LABELS


def _weights_panel(axes: Axes, layer: RecurrentLayer, found: Snapshot, sort: bool, most_pixels: int) -> None:
    units = layer.hidden_size
    order = torch.arange(units)
    if sort:
        order = sorted_units(found.kinds[layer.name], found.alive[layer.name])
    kept_RC = _matrix_of(layer, found, order, sort)
    dead_H = _dead(found, layer.name, units)[order]
    rows, columns = kept_RC.shape
    image = axes.inset_axes((0.0, 0.0, 1.0, 1.0))
    _image(image, _shares(kept_RC.numpy(), most_pixels), (0, columns, rows, 0), ACCENT)
    # Above the matrix every dead unit has its mark, however many units share a pixel.
    inch = 1 / (_panel_height(layer) - _ROOM_FOR_LABELS)
    marks = axes.inset_axes((0.0, 1 + 0.03 * inch, 1.0, 0.07 * inch))
    dead_C = dead_H.repeat(len(layer.gates)).numpy()[None]
    _image(marks, (_shares(dead_C, most_pixels) > 0).astype(float), (0, columns, 1, 0), PALETTE["second"])
    for number, gate in enumerate(layer.gates):
        left = number * units
        marks.text(left + units / 2, -0.3, plain(gate), ha="center", va="bottom", fontsize=9, color=INK)
        if number:
            image.axvline(left, color=INK, linewidth=0.8)
    image.axhline(layer.input_size, color=INK, linewidth=0.8)
    for label, low, high in (("input", 0, layer.input_size), ("hidden", layer.input_size, rows)):
        image.text(
            -0.008 * columns, (low + high) / 2, label, ha="right", va="center", fontsize=8.5, color=MUTED, rotation=90
        )
    for part in (axes, image, marks):
        part.set(xticks=[], yticks=[])
        part.patch.set_alpha(0)
        for spine in part.spines.values():
            spine.set(visible=part is image, color=MUTED, linewidth=0.8)
    title = f"{layer.name}: {int(dead_H.sum()):,} of {units:,} units dead"
    axes.set_title(plain(title), loc="left", fontsize=9.5, color=INK, fontweight="bold", pad=24)


def _matrix_of(layer: RecurrentLayer, found: Snapshot, order: Tensor, sort: bool) -> Tensor:
    """bool (I + H, G H): all matrices of the layer side by side, transposed, so that gates stand next to each other.

    What compaction takes out is False: the columns of dead units in each gate, and their rows among the hidden ones.
    """
    dead_H = _dead(found, layer.name, layer.hidden_size)
    halves = []
    for kind in ("ih", "hh"):
        blocks = {
            rows.gate: found.masks[rows.parameter][rows.start : rows.start + layer.hidden_size] & ~dead_H[:, None]
            for rows in layer.rows
            if rows.kind == kind
        }
        # Not every gate has rows of every kind: the deeper ones of a highway network don't read the input.
        none = torch.zeros_like(next(iter(blocks.values())))
        half_RC = torch.cat([blocks.get(gate, none)[order] for gate in layer.gates]).T
        if kind == "hh":
            read = layer.unit_sets[-1]  # with a projection the recurrent rows are projected units
            half_RC = half_RC & ~_dead(found, read, len(half_RC))[:, None]
            half_RC = half_RC[order] if sort and read == layer.name else half_RC
        halves.append(half_RC)
    return torch.cat(halves)


def _dead(found: Snapshot, name: str, size: int) -> Tensor:
    return found.dead.get(name, torch.zeros(size, dtype=torch.bool))


def _shares(kept_RC: np.ndarray[Any, Any], most: int) -> np.ndarray[Any, Any]:
    """The share of True in each pixel, at most `most` pixels a side; every element lies in exactly one pixel."""
    shares = kept_RC.astype(np.float64)
    for axis, size in enumerate(kept_RC.shape):
        if size > most:
            edges = np.linspace(0, size, most, endpoint=False).astype(int)
            width = np.diff(np.append(edges, size))
            shares = np.add.reduceat(shares, edges, axis) / np.expand_dims(width, 1 - axis)
    return shares


def _image(axes: Axes, shares: np.ndarray[Any, Any], extent: tuple[float, float, float, float], colour: str) -> None:
    from matplotlib.colors import to_rgb

    # The square root keeps one non-zero among many visible; nothing stays nothing. Few shades make small files.
    pixels = np.zeros((*shares.shape, 4))
    pixels[..., :3] = to_rgb(colour)
    pixels[..., 3] = np.ceil(np.sqrt(shares) * _SHADES) / _SHADES
    axes.imshow(pixels, extent=extent, aspect="auto", interpolation="none")


def groups_figure(found: Snapshot, *, only: str | None = None) -> Figure:
    """A histogram of group norms for each kind of units; groups at zero stand in a bar of their own."""
    norms = {name: values.numpy() for name, values in found.group_norms.items() if len(values)}
    norms = {name: values for name, values in norms.items() if only in (None, name)}
    columns = min(2, max(1, len(norms)))
    lines = -(-max(1, len(norms)) // columns)
    figure = new_figure(4.1 * columns, 2.5 * lines)
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, (name, values) in zip(panels, norms.items()):
        _histogram(axes, name, values)
    for axes in panels[len(norms) :]:
        axes.set_visible(False)
    if not norms:
        panels[0].set_visible(True)
        _empty(panels[0], "no unit may go")
    return figure


def _histogram(axes: Axes, name: str, values: np.ndarray[Any, Any]) -> None:
    zero, rest = int((values == 0).sum()), values[values != 0]
    top = float(rest.max()) if len(rest) else 1.0
    width = top / 40
    counts, edges = np.histogram(rest, bins=40, range=(0, top))
    axes.bar(edges[:-1], counts, width * 0.92, align="edge", color=ACCENT)
    if zero:
        axes.bar(-width * 1.5, zero, width * 1.5, align="edge", color=PALETTE["second"])
        place = (-width * 0.7, zero)
        text = f"{zero:,} at zero"
        axes.annotate(text, place, (6, 0), textcoords="offset points", fontsize=8.5, color=INK, va="top")
    dress(axes, title=name, x="2-norm of a unit's group of weights", y="units")


Gates = tuple[tuple[str, ...], tuple[str, ...], Tensor]  # gates, kind of each unit, bool (gates, units): alive


def gates_figure(found: Snapshot, *, only: str | None = None) -> Figure:
    """One panel a layer: a column a unit, a row a gate, coloured where the gate is alive."""
    layers = [layer for layer in found.recurrent if only in (None, layer.name)]
    figure = gate_panels({each.name: (each.gates, found.kinds[each.name], found.alive[each.name]) for each in layers})
    if not layers:
        _empty(figure.add_subplot(), "no recurrent layer of a declared cell")
    return figure


def gate_panels(panels: Mapping[str, Gates]) -> Figure:
    """One panel each: a column a unit, units sorted by kind, a row a gate, coloured where the gate is alive."""
    heights = [0.2 * len(gates) + 0.75 for gates, _, _ in panels.values()]
    figure = new_figure(7.2, sum(heights or [0.75]) + 0.1)
    if panels:
        places = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, (title, gates) in zip(places, panels.items()):
            _gates_panel(axes, title, gates)
    return figure


def _gates_panel(axes: Axes, title: str, of: Gates) -> None:
    gates, kinds, alive_GH = of
    order = sorted_units(kinds, alive_GH)
    sorted_kinds = np.array([kinds[k] for k in order.tolist()])
    for row, alive_H in enumerate(alive_GH[:, order].numpy()):
        for kind in kind_counts(kinds):  # in a fixed order, so that the same net gives the same file
            # A dead unit keeps its place as a pale column, whatever its rows still hold.
            shown = (sorted_kinds == kind) & (alive_H | (kind == "dead"))
            axes.broken_barh(_runs(shown), (row, 1), color=KIND_COLOURS[kind], linewidth=0)
    axes.set(xlim=(0, max(1, len(kinds))), ylim=(len(gates), 0))
    dress(axes, title=title, x="units, sorted", grid="")
    axes.set_yticks(np.arange(len(gates)) + 0.5, [plain(gate) for gate in gates])
    axes.tick_params(axis="y", length=0)
    for line in range(1, len(gates)):
        axes.axhline(line, color=LINE, linewidth=0.7, zorder=3)
    from matplotlib.patches import Patch

    counts = kind_counts(kinds)
    handles = [Patch(color=KIND_COLOURS[kind], label=f"{kind} {number:,}") for kind, number in counts.items()]
    legend(axes, handles=handles, loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=len(handles), borderaxespad=0)


def _runs(shown: np.ndarray[Any, Any]) -> list[tuple[int, int]]:
    """(start, length) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], shown, [False]]).astype(int)))
    return [(int(start), int(end - start)) for start, end in zip(edges[::2], edges[1::2])]


def lag_figure(lag: Mapping[str, Any], *, only: str | None = None) -> Figure:
    """One panel a layer: gradient norm over lag on a logarithmic scale, a line for each kind of unit."""
    shown = {name: values for name, values in lag.items() if "kinds" in values and only in (None, name)}
    columns = min(2, max(1, len(shown)))
    lines = -(-max(1, len(shown)) // columns)
    figure = new_figure(4.1 * columns, 3.2 * lines)
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, (name, values) in zip(panels, shown.items()):
        for kind in (k for k in KINDS if k in values["kinds"]):
            line = values["kinds"][kind]
            norm = np.array(line["norm"])
            label = f"{kind} ({line['units']}): mean lag {line['mean_lag']:.1f}"
            axes.plot(np.where(norm > 0, norm, np.nan), color=KIND_COLOURS[kind], linewidth=1.6, label=label)
        axes.set_yscale("log")
        dress(axes, title=name, x="lag, time steps", y="norm of dh_t / dx_(t−lag)")
        legend(axes, loc="upper left", bbox_to_anchor=(0, -0.26), ncols=1, borderaxespad=0)
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    if not shown:
        panels[0].set_visible(True)
        _empty(panels[0], "no layer whose gradient can be taken")
    return figure


def _empty(axes: Axes, why: str) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, plain(why), ha="center", va="center", fontsize=9, color=MUTED)
